"""What a training job returns, and the report keeps: photos, settings, checks, previews."""

from typing import Literal

from pydantic import Field

from worker.results import CharacterResult, ManifestResult, OutputResult, Result


class PhotoReason(Result):
    """Why a photo was warned about or rejected."""

    code: str
    message: str


class PhotoResult(Result):
    """What became of one photo; sides in pixels, sha256 of the file as it came.

    `repeats` says how often it is seen for each time that others are, as kohya's folders have it.
    `faces` counts faces; `face_side` is the subject's, in pixels, `likeness` that face's to the
    subject in the other photos, 0 to 1; `cropped` is what is trained on, where that is not all of
    the photo: left, top, right, bottom.
    """

    index: int
    name: str
    verdict: Literal["kept", "warned", "rejected"]
    reasons: list[PhotoReason] = Field(default_factory=list)
    width: int | None = None
    height: int | None = None
    sha256: str | None = None
    caption: str | None = None
    repeats: int | None = None
    faces: int | None = None
    face_side: int | None = None
    likeness: float | None = None
    cropped: tuple[int, int, int, int] | None = None


class SubjectResult(Result):
    """The person whom the photos show.

    `likeness` is the median of a photo's to the others: what pictures of the character can reach.
    """

    photos: int
    likeness: float | None = None
    scorer: str
    scorer_version: str


class UnusedFileResult(Result):
    """A file of an archive that has no part in the training, or not all of it, and why."""

    name: str
    reason: str


class DatasetResult(Result):
    """The photos of a training; `digest` names photos, captions and repeats.

    `unused` names at most 100 files; `unused_count` counts all. `subject` is the person who recurs;
    where there is none, `not_measured` says why likeness is not measured.
    """

    digest: str | None = None
    photos: list[PhotoResult] = Field(default_factory=list)
    captioner: str | None = None
    unused: list[UnusedFileResult] = Field(default_factory=list)
    unused_count: int | None = None
    subject: SubjectResult | None = None
    not_measured: str | None = None


class TrainingSettings(Result):
    """What was trained with; `defaults` says why, for what the job left out."""

    trainer: str
    base_model: str | None = None
    steps: int | None = None
    rank: int | None = None
    alpha: float | None = None
    learning_rate: float | None = None
    resolution: int | None = None
    batch_size: int | None = None
    gradient_checkpointing: bool | None = None
    seed: int | None = None
    class_noun: str | None = None
    defaults: dict[str, str] = Field(default_factory=dict)


class LoraCheckResult(Result):
    """What was found in the trained file; the norm is of up·down, without alpha/rank."""

    modules: int | None = None
    modules_learned: int | None = None
    rank: int
    mean_alpha: float | None = None
    mean_norm: float | None = None
    bytes: int


class CheckpointResult(Result):
    """One step of a training at one strength; `faces` counts pictures with a face."""

    step: int
    strength: float
    likeness: float
    by_prompt: list[float]
    faces: int
    chosen: bool


class GateResult(Result):
    """Which step became the version, and at which strength it is used, by likeness.

    `likeness` is of what was chosen. Where it is not measured the last step is the version.
    """

    workflow: str | None = None
    step: int | None = None
    strength: float | None = None
    likeness: float | None = None
    checkpoints: list[CheckpointResult] = Field(default_factory=list)
    strengths: list[CheckpointResult] = Field(default_factory=list)
    prompts: list[str] = Field(default_factory=list)
    seeds: list[int] = Field(default_factory=list)
    differences: list[float | None] = Field(default_factory=list)
    not_measured: str | None = None


class PreviewResult(Result):
    """One prompt; `difference` is the mean over pixels of what the LoRA changed, 0 to 255."""

    prompt: str
    seed: int
    difference: float | None = None


class PreviewsResult(Result):
    """The preview pictures; `problem` says in a sentence why some are missing."""

    status: Literal["done", "failed", "none"]
    workflow: str
    pictures: list[PreviewResult]
    problem: str | None = None


class TrainedCharacterResult(CharacterResult):
    """The version that the training made, and whether it is the active one now."""

    version: str
    strength: float
    name: str
    active: bool


class TrainResult(Result):
    """The result of train jobs."""

    task: Literal["train"]
    job_id: str
    character: TrainedCharacterResult
    outputs: list[OutputResult]
    seed: int | None = None
    training: TrainingSettings
    dataset: DatasetResult
    check: LoraCheckResult
    gate: GateResult | None = None
    previews: PreviewsResult
    warnings: list[str]
    manifest: ManifestResult
    timings_ms: dict[str, float]
