"""What a job answers: small JSON, never the bytes."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from worker.errors import CodedError


class Result(BaseModel):
    """Base of the parts of a result."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def to_json(self) -> dict[str, Any]:
        """The JSON form; fields that say nothing are left out."""
        return self.model_dump(mode="json", exclude_none=True)


class OutputResult(Result):
    """One delivered object. `bytes` and `sha256` were confirmed against the store."""

    kind: Literal["image", "video", "audio", "poster", "lora", "sheet", "curve", "report"]
    url: str
    expires_at: str | None = None
    key: str
    content_type: str
    bytes: int
    sha256: str
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    frames: int | None = None
    duration_s: float | None = None


class CharacterResult(Result):
    """A character as it was used: the version is what a later job pins."""

    character_id: str
    version: str
    strength: float
    trigger: str


class WorkflowResult(Result):
    """The workflow that ran; the digest changes with its files."""

    name: str
    digest: str


class ManifestResult(Result):
    """Where the job's manifest lies: all it takes to make the outputs again."""

    key: str
    url: str


class GenerationResult(Result):
    """The answer of image and video jobs."""

    task: Literal["image", "video"]
    job_id: str
    outputs: list[OutputResult]
    seed: int | None = None
    prompt: str | None = None
    character: CharacterResult | None = None
    characters: list[CharacterResult] | None = None
    workflow: WorkflowResult
    manifest: ManifestResult
    timings_ms: dict[str, float]


class ErrorResult(Result):
    """The answer of a job that failed; RunPod shows `error` and keeps the rest as output."""

    error: str
    code: str
    retryable: bool
    field: str | None = None
    details: Mapping[str, Any] | None = None
    job_id: str | None = None


def error_result(error: CodedError, job_id: str) -> dict[str, Any]:
    """Turn an error of any package into what the caller sees."""
    return ErrorResult(
        error=str(error),
        code=error.code,
        retryable=error.retryable,
        field=error.field,
        details=error.details or None,
        job_id=job_id,
    ).to_json()
