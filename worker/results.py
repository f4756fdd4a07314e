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
    reasons: list[PhotoReason] = []
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
    photos: list[PhotoResult] = []
    captioner: str | None = None
    unused: list[UnusedFileResult] = []
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
    defaults: dict[str, str] = {}


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
    checkpoints: list[CheckpointResult] = []
    strengths: list[CheckpointResult] = []
    prompts: list[str] = []
    seeds: list[int] = []
    differences: list[float | None] = []
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


class GpuResult(Result):
    """One device as ComfyUI sees it; memory in bytes."""

    name: str | None = None
    type: str | None = None
    vram_total: int | None = None
    vram_free: int | None = None


class ComfyUIHealth(Result):
    """ComfyUI; `starts` counts its starts, 1 while it never had to be restarted."""

    ok: bool
    error: str | None = None
    starts: int | None = None
    gpu: list[GpuResult] = []


class StorageHealth(Result):
    """The bucket."""

    ok: bool
    error: str | None = None
    provider: str
    bucket: str


class DiskHealth(Result):
    """The local disk, in bytes."""

    ok: bool
    total: int
    free: int


class WorkflowHealth(Result):
    """One workflow, and what ComfyUI lacks for it."""

    kind: str
    digest: str
    ok: bool
    problems: list[str]


class CacheHealth(Result):
    """The LoRA cache, in bytes."""

    files: int
    bytes: int
    budget_bytes: int


class FamilyHealth(Result):
    """One base model, and what this worker lacks to use its characters."""

    title: str
    licence: str
    commercial: bool
    workflows: list[str]
    trainers: list[str]
    ok: bool
    lacks: list[str]


class LikenessHealth(Result):
    """Whether likeness is measured, by which scorer, and else why not."""

    measured: bool
    scorer: str
    version: str | None = None
    problem: str | None = None


class HealthResult(Result):
    """The result of health jobs."""

    task: Literal["health"]
    job_id: str
    ok: Annotated[bool, Field(description="All parts are well and a task can be done.")]
    tasks: list[str]
    cannot: Annotated[
        dict[str, list[str]], Field(description="Tasks that cannot be done now, and why.")
    ]
    versions: dict[str, str]
    workflows: dict[str, WorkflowHealth]
    families: dict[str, FamilyHealth]
    cache: CacheHealth
    comfyui: ComfyUIHealth
    storage: StorageHealth
    disk: DiskHealth
    likeness: LikenessHealth


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


JobResult = (
    GenerationResult
    | TrainResult
    | CharacterPageResult
    | CharacterDetailResult
    | CharacterChangedResult
    | HealthResult
    | ErrorResult
)


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
