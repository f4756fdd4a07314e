"""What a job returns, for every task: small JSON, never the bytes.

`docs/contract.schema.json` is generated from these models, as the input is from `worker.contract`.
"""

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from errors import CodedError, ErrorCode
from lora_registry.character import ActiveVersion, CharacterRecord, CharacterVersion, Status


class Result(BaseModel):
    """Base of the parts of a result."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def to_json(self) -> dict[str, Any]:
        """The JSON form; fields that say nothing are left out."""
        return self.model_dump(mode="json", exclude_none=True)


OutputKind = Literal[
    "image", "video", "audio", "text", "file", "poster", "lora", "sheet", "curve", "report"
]


class StoredOutput(Result):
    """One object of the bucket. `bytes` and `sha256` were confirmed against the store."""

    kind: OutputKind
    name: str | None = Field(None, description="of the output, as its workflow declares it")
    node: str | None = Field(None, description="of the workflow's graph that wrote it")
    key: str
    content_type: str
    bytes: int
    sha256: str
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    frames: int | None = None
    duration_s: float | None = None


class LikenessResult(Result):
    """How alike a picture is to the photos of its characters, 0 to 1.

    Without a `score`, or where it is not of all characters, `reason` says why. Of several
    `characters` the least alike one counts.
    """

    score: float | None = None
    characters: dict[str, float] | None = None
    reason: str | None = None


class OutputResult(StoredOutput):
    """A delivered object with the URL to fetch it by, for as long as that lasts.

    `seed` is there where it is another one than the job's.
    """

    url: str
    expires_at: str | None = None
    seed: int | None = None
    likeness: LikenessResult | None = None


class CharacterResult(Result):
    """A character as it was used: the version is what a later job pins.

    Without a version its reference photos alone were used; `references` says how many were.
    """

    character_id: str
    version: str | None = None
    strength: float | None = None
    trigger: str
    references: int | None = None


class WorkflowResult(Result):
    """The workflow that ran; the digest changes with its files."""

    name: str
    digest: str


class ManifestResult(Result):
    """Where the job's manifest lies: all it takes to make the outputs again."""

    key: str
    url: str


class CandidateResult(Result):
    """One of the pictures that were made, to choose from."""

    seed: int
    likeness: LikenessResult
    delivered: bool


class SelectionResult(Result):
    """What the delivered pictures were chosen from.

    `passed` counts those that reach `min_likeness`, where the job has one.
    """

    made: int
    min_likeness: float | None = None
    passed: int | None = None
    candidates: list[CandidateResult]


class GenerationResult(Result):
    """The result of image, video and workflow jobs."""

    task: Literal["image", "video", "workflow"]
    job_id: str
    outputs: list[OutputResult]
    seed: int | None = None
    prompt: str | None = None
    character: CharacterResult | None = None
    characters: list[CharacterResult] | None = None
    selection: SelectionResult | None = None
    workflow: WorkflowResult
    manifest: ManifestResult
    warnings: list[str] | None = None
    timings_ms: dict[str, float]


class CharacterSummary(Result):
    """One line of a listing; `active` is null while no version is active."""

    character_id: str
    name: str
    status: Status
    trigger: str
    active: ActiveVersion | None
    updated_at: AwareDatetime


class RegistryResult(Result):
    """Base of the results of characters jobs; null says something here, so it is not left out."""

    def to_json(self) -> dict[str, Any]:
        """The JSON form, as the registry's own documents have it."""
        return self.model_dump(mode="json")


class CharacterPageResult(RegistryResult):
    """`list`: one page; `cursor` is null at the end."""

    characters: list[CharacterSummary]
    cursor: str | None


class CharacterDetailResult(RegistryResult):
    """`get`: the character and every version, oldest first."""

    character: CharacterRecord
    versions: list[CharacterVersion]


class CharacterChangedResult(RegistryResult):
    """Every other action: the character as it stands after it, and what a person should know."""

    character: CharacterRecord
    warnings: list[str] = []


class CharacterErasedResult(RegistryResult):
    """`erase`: what went, in objects of the bucket and records of jobs."""

    character_id: str
    objects: int
    jobs: int


class ErrorResult(Result):
    """The result of a job that failed; RunPod shows `error` and keeps the rest as output."""

    error: str
    code: ErrorCode
    retryable: Annotated[bool, Field(description="A function of the code.")]
    field: str | None = None
    details: dict[str, Any] | None = None
    job_id: str | None = None
    refresh_worker: Annotated[
        Literal[True] | None, Field(description="The platform replaces this worker.")
    ] = None


def error_result(error: CodedError, job_id: str, *, refresh_worker: bool = False) -> ErrorResult:
    """Turn an error of any package into what the caller sees."""
    return ErrorResult(
        error=str(error),
        code=error.code,
        retryable=error.retryable,
        field=error.field,
        details=dict(error.details) or None,
        job_id=job_id,
        refresh_worker=True if refresh_worker else None,
    )
