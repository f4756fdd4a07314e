"""The public API: what a job's `input` may say, field by field with its limits.

`parse_job` is the only door. Past it nobody sees a raw dict, and every limit here has been checked
before a GPU or a bucket is touched. `docs/contract.schema.json` is generated from these models.
"""

import functools
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import ErrorDetails

from lora_registry.references import MAX_REFERENCES
from worker.contract_fields import (
    Augmentation,
    Cfg,
    CharacterId,
    CharacterUse,
    Count,
    Denoise,
    Fps,
    Frames,
    Inputs,
    Motion,
    OutputFormat,
    Params,
    Photo,
    Prompt,
    RequestId,
    SamplerName,
    Seed,
    ShortText,
    Side,
    Source,
    Steps,
    Strength,
    Strict,
    Text,
    Timeout,
    VersionId,
    WorkflowName,
    check_depth,
    whole_numbers,
)
from worker.errors import InvalidInput
from worker.refusals import refusal

MIN_PHOTOS: Final = 5
MAX_PHOTOS: Final = 100
DEFAULT_BEST_OF: Final = 4  # of a job that has min_likeness alone


class Request(Strict):
    """What every job may say: the name of its record, `jobs/{request_id}.json` in the bucket.

    A worker that finds the record final answers it instead of making the request again.
    """

    request_id: RequestId | None = None


class Generation(Request):
    """What image, video and workflow jobs share.

    `metadata` says whether prompt and graph stay in delivered files; None leaves that to the
    worker's setting.
    """

    negative_prompt: Text | None = None
    character_id: CharacterId | None = None
    strength: Strength | None = None
    version: VersionId | None = None
    characters: Annotated[list[CharacterUse], Field(max_length=4)] = Field([])
    width: Side | None = None
    height: Side | None = None
    steps: Steps | None = None
    cfg: Cfg | None = None
    sampler: SamplerName | None = None
    scheduler: SamplerName | None = None
    seed: Seed = None
    quality: Annotated[int, Field(ge=1, le=100)] | None = None
    inputs: Inputs = Field({})
    params: Params = Field({})
    metadata: Literal["keep", "strip"] | None = None
    timeout_s: Timeout | None = None

    @model_validator(mode="after")
    def _one_way_to_name_characters(self) -> Self:
        if self.character_id is not None and self.characters:
            raise ValueError("give either character_id or characters, not both")
        if self.character_id is None and (self.strength is not None or self.version is not None):
            raise ValueError("strength and version need a character_id")
        ids = [use.character_id for use in self.characters]
        if len(set(ids)) != len(ids):
            raise ValueError("characters must not name the same character_id twice")
        return self

    @property
    def used_characters(self) -> tuple[CharacterUse, ...]:
        """The characters of the picture, in order, however the job named them."""
        if self.character_id is None:
            return tuple(self.characters)
        use = CharacterUse(
            character_id=self.character_id, strength=self.strength, version=self.version
        )
        return (use,)

    def sources(self) -> dict[str, Source]:
        """The files that the job brings, by the name of the workflow's input."""
        return dict(self.inputs)


class ImageJob(Generation):
    """A picture, or up to eight, from a prompt.

    Without a `format` pictures are png, and what moves stays as its node wrote it.
    """

    task: Literal["image"]
    prompt: Prompt | None = None
    workflow: WorkflowName | None = Field(
        None, description="left out: what the characters' base model runs by default, else sdxl"
    )
    count: Count = 1
    init_image: Source | None = None
    denoise: Denoise | None = None
    format: Literal["png", "jpeg", "webp"] | None = None
    likeness: Annotated[
        bool, Field(description="measure how alike the pictures are to the characters' photos")
    ] = False
    best_of: Annotated[int, Field(ge=2, le=16)] | None = Field(
        None, description="make so many and deliver the `count` most alike"
    )
    min_likeness: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = Field(
        None, description="try further seeds, at most best_of, until `count` are so alike"
    )

    @model_validator(mode="after")
    def _likeness_needs_a_character(self) -> Self:
        if self.measured and not self.used_characters:
            raise ValueError("likeness, best_of and min_likeness need a character")
        if self.best_of is not None and self.best_of < self.count:
            raise ValueError("best_of must not be less than count")
        return self

    @property
    def measured(self) -> bool:
        """Whether the job asks for likeness in any way."""
        return self.likeness or self.best_of is not None or self.min_likeness is not None

    @property
    def most(self) -> int:
        """How many pictures are made at most, to deliver `count` of them."""
        if self.min_likeness is None:
            return self.best_of or self.count
        return self.best_of or max(DEFAULT_BEST_OF, self.count)

    @model_validator(mode="after")
    def _denoise_needs_an_init_image(self) -> Self:
        if not self.sources() and self.denoise is not None:
            raise ValueError("denoise needs an init_image")
        return self

    def sources(self) -> dict[str, Source]:
        """The files that the job brings, by the name of the workflow's input."""
        return _with_own(self.inputs, "init_image", self.init_image)


class VideoJob(Generation):
    """A clip from a picture, or from a prompt whose picture is made first.

    Without a `format` it is mp4 where the workflow offers that, else what its node writes.
    """

    task: Literal["video"]
    prompt: Prompt | None = None
    image: Source | None = None
    workflow: WorkflowName | None = Field(
        None, description="left out: what the characters' base model runs by default, else svd"
    )
    frames: Frames | None = None
    fps: Fps | None = None
    motion: Motion | None = None
    augmentation: Augmentation | None = None
    fit: Literal["cover", "contain"] = "cover"
    format: Literal["mp4", "webm", "webp", "gif"] | None = None

    @model_validator(mode="after")
    def _something_to_start_from(self) -> Self:
        if not self.sources() and self.prompt is None:
            raise ValueError("give an image, or a prompt to make the start frame from")
        return self

    def sources(self) -> dict[str, Source]:
        """The files that the job brings, by the name of the workflow's input."""
        return _with_own(self.inputs, "image", self.image)


class WorkflowJob(Generation):
    """Any workflow by its name, with what it declares and nothing else.

    Without a `format` every output is as its node wrote it.
    """

    task: Literal["workflow"]
    workflow: WorkflowName
    prompt: Prompt | None = None
    count: Count | None = None
    denoise: Denoise | None = None
    frames: Frames | None = None
    fps: Fps | None = None
    motion: Motion | None = None
    augmentation: Augmentation | None = None
    format: OutputFormat | None = None


def _with_own(inputs: Mapping[str, Source], name: str, own: Source | None) -> dict[str, Source]:
    """The inputs, with the one that has a field of its own."""
    if own is not None and name in inputs:
        raise ValueError(f"give either {name} or inputs.{name}, not both")
    return {**({name: own} if own is not None else {}), **inputs}


class TrainJob(Request):
    """A character from photos. What is left out follows from the number of photos and the GPU."""

    task: Literal["train"]
    character_id: CharacterId
    name: ShortText | None = None
    images: Annotated[list[Photo], Field(min_length=MIN_PHOTOS, max_length=MAX_PHOTOS)] | None = (
        None
    )
    archive: Source | None = None
    trigger: ShortText | None = None
    class_noun: ShortText | None = None
    steps: Annotated[int, Field(ge=1, le=20_000)] | None = None
    rank: Annotated[int, Field(ge=1, le=128)] | None = None
    alpha: Annotated[float, Field(gt=0, le=256, allow_inf_nan=False)] | None = None
    learning_rate: Annotated[float, Field(gt=0, le=0.01, allow_inf_nan=False)] | None = None
    resolution: Annotated[int, Field(ge=256, le=1536, multiple_of=64)] | None = None
    batch_size: Annotated[int, Field(ge=1, le=16)] | None = None
    seed: Seed = None
    trainer: Literal["kohya", "comfyui"] = "kohya"
    base_model: WorkflowName = Field(
        "sdxl", description="the family to train; health shows which trainers it has"
    )
    activate: bool = True
    instant: Annotated[
        bool, Field(description="register up to 5 of the photos as references before the training")
    ] = False
    crop: Literal["auto", "off"] = Field(
        "auto", description="auto: a photo with other people in it is cropped to the subject"
    )
    preview_prompts: Annotated[list[Text], Field(max_length=8)] | None = None
    checkpoints: Annotated[int, Field(ge=1, le=8)] = Field(
        4, description="kohya: so many steps are shown and the most alike one becomes the version"
    )
    gate_seeds: Annotated[int, Field(ge=1, le=4)] = Field(
        2, description="pictures of each preview prompt by which a checkpoint is measured"
    )
    likeness_gate: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = Field(
        None, description="a version less alike than this is registered and not activated"
    )
    timeout_s: Timeout | None = None

    @model_validator(mode="after")
    def _one_kind_of_dataset(self) -> Self:
        if (self.images is None) == (self.archive is None):
            raise ValueError("give exactly one of images, archive")
        return self


Reading = Literal["list", "get"]
Change = Literal["create", "register", "activate", "rollback", "delete", "restore", "erase"]


class CharactersJob(Request):
    """Reading and changing the registry."""

    task: Literal["characters"]
    action: Reading | Change
    character_id: CharacterId | None = None
    version: VersionId | None = None
    source: Source | None = None
    references: Annotated[list[Source], Field(min_length=1, max_length=MAX_REFERENCES)] | None = (
        Field(None, description="photos of the character, the best first")
    )
    name: ShortText | None = None
    trigger: ShortText | None = None
    class_noun: ShortText | None = None
    strength: Strength | None = None
    base_model: WorkflowName | None = None
    activate: bool = True
    status: Literal["active", "deleted"] | None = None
    order: Literal["id", "newest"] = "id"
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Annotated[str, Field(min_length=1, max_length=512)] | None = None

    @model_validator(mode="after")
    def _what_the_action_needs(self) -> Self:
        if self.action != "list" and self.character_id is None:
            raise ValueError(f"character_id is needed to {self.action}")
        if self.action == "create" and self.references is None:
            raise ValueError("references (1 to 5 photos) are needed to create")
        if self.action == "register" and self.source is None:
            raise ValueError("source (a .safetensors file) is needed to register")
        if self.action == "activate" and self.version is None:
            raise ValueError("version is needed to activate")
        return self


class HealthJob(Request):
    """What runs here and whether it is well."""

    task: Literal["health"]


Job = ImageJob | VideoJob | WorkflowJob | TrainJob | CharactersJob | HealthJob
Task = Literal["image", "video", "workflow", "train", "characters", "health"]
JOB: Final[TypeAdapter[Job]] = TypeAdapter(Annotated[Job, Field(discriminator="task")])


def parse_job(raw: object) -> Job:
    """Turn a job's `input` into one of the jobs above.

    Raises:
        InvalidInput: with the dotted field and one sentence that names the allowed range.
    """
    if not isinstance(raw, dict):
        raise InvalidInput("input must be a JSON object with a task.", field="input")
    check_depth(raw)
    try:
        return JOB.validate_python(whole_numbers(raw))
    except ValidationError as error:
        raise _invalid(error.errors(include_url=False)) from None


def _invalid(errors: list[ErrorDetails]) -> InvalidInput:
    field, sentence = refusal(errors[0], _schema())
    return InvalidInput(f"{field}: {sentence}.", field=field)


@functools.cache
def _schema() -> dict[str, Any]:
    return JOB.json_schema()  # 10 ms the first time
