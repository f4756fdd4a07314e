"""The public API: what a job's `input` may say, field by field with its limits.

`parse_job` is the only door. Past it nobody sees a raw dict, and every limit here has been checked
before a GPU or a bucket is touched. `docs/contract.schema.json` is generated from these models.
"""

import functools
import re
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from lora_registry import fields
from lora_registry.references import MAX_REFERENCES
from worker.errors import InvalidInput
from worker.refusals import refusal

MAX_SEED: Final = 2**64 - 1  # KSampler's own maximum, from its node spec
MAX_INPUT_DEPTH: Final = 16
MIN_PHOTOS: Final = 5
MAX_PHOTOS: Final = 100
MAX_CAPTION: Final = 2000  # characters
_PARAM_NAME = re.compile(r"[A-Za-z0-9_]{1,64}")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def _printable(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("must not contain control characters")
    return text


def _relative_key(key: str) -> str:
    parts = key.split("/")
    if key.startswith("/") or "\\" in key or any(part in {"", ".", ".."} for part in parts):
        raise ValueError("must be a plain object key without '..', empty parts or a leading '/'")
    return key


def _short_plain_names(params: dict[str, Any]) -> dict[str, Any]:
    if not all(_PARAM_NAME.fullmatch(name) for name in params):
        raise ValueError("must have names of letters, digits and underscores, 64 at most")
    return params


Text = Annotated[str, Field(max_length=8192), AfterValidator(_printable)]
# Names, triggers, nouns and ids by the registry's own rules, so what passes here is registered.
ShortText = Annotated[
    str, Field(min_length=1, max_length=fields.MAX_TEXT), AfterValidator(fields.short_text)
]
CharacterId = Annotated[str, Field(pattern=f"^{fields.CHARACTER_ID}$", max_length=64)]
VersionId = Annotated[str, Field(pattern=f"^{fields.VERSION_ID}$", max_length=128)]
RequestId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$")]
WorkflowName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", max_length=64)]
Side = Annotated[int, Field(ge=256, le=2048, multiple_of=8)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Steps = Annotated[int, Field(ge=1, le=100)]
Cfg = Annotated[float, Field(ge=0, le=30, allow_inf_nan=False)]
Strength = Annotated[
    float, Field(ge=-fields.MAX_STRENGTH, le=fields.MAX_STRENGTH, allow_inf_nan=False)
]
Timeout = Annotated[float, Field(ge=1, le=86_400, allow_inf_nan=False)]
SamplerName = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,64}$")]
ParamValue = bool | int | Annotated[float, Field(allow_inf_nan=False)] | Text
Params = Annotated[dict[str, ParamValue], Field(max_length=64), AfterValidator(_short_plain_names)]


class Strict(BaseModel):
    """Base of all of the contract: unknown fields are refused, values are not coerced."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Source(Strict):
    """Where bytes come from: exactly one of `url`, `base64`, `key` (an object of our bucket)."""

    url: Annotated[str, Field(min_length=1, max_length=8192)] | None = None
    base64: Annotated[str, Field(min_length=1, max_length=40_000_000)] | None = Field(
        default=None, repr=False
    )
    key: (
        Annotated[
            str,
            Field(min_length=1, max_length=1024),
            AfterValidator(_printable),
            AfterValidator(_relative_key),
        ]
        | None
    ) = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(value is not None for value in (self.url, self.base64, self.key)) != 1:
            raise ValueError("must have exactly one of url, base64, key")
        return self


class Photo(Source):
    """A reference photo; a caption given here wins over any that we would write."""

    caption: Annotated[Text, Field(max_length=MAX_CAPTION)] | None = None


class CharacterUse(Strict):
    """One character of a picture; without version the active one, without strength its own."""

    character_id: CharacterId
    strength: Strength | None = None
    version: VersionId | None = None


class Request(Strict):
    """What every job may say: the name of its record, `jobs/{request_id}.json` in the bucket.

    A worker that finds the record final answers it instead of making the request again.
    """

    request_id: RequestId | None = None


class Generation(Request):
    """What image and video jobs share."""

    negative_prompt: Text | None = None
    character_id: CharacterId | None = None
    strength: Strength | None = None
    version: VersionId | None = None
    characters: Annotated[list[CharacterUse], Field(max_length=4)] = []
    width: Side | None = None
    height: Side | None = None
    steps: Steps | None = None
    cfg: Cfg | None = None
    sampler: SamplerName | None = None
    scheduler: SamplerName | None = None
    seed: Seed | None = None
    quality: Annotated[int, Field(ge=1, le=100)] | None = None
    params: Params = {}
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


class ImageJob(Generation):
    """A picture, or up to eight, from a prompt."""

    task: Literal["image"]
    prompt: Annotated[Text, Field(min_length=1)]
    workflow: WorkflowName | None = Field(
        None, description="left out: what the characters' base model runs by default, else sdxl"
    )
    count: Annotated[int, Field(ge=1, le=8)] = 1
    init_image: Source | None = None
    denoise: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    format: Literal["png", "jpeg", "webp"] = "png"

    @model_validator(mode="after")
    def _denoise_needs_an_init_image(self) -> Self:
        if self.denoise is not None and self.init_image is None:
            raise ValueError("denoise needs an init_image")
        return self


class VideoJob(Generation):
    """A clip from a picture, or from a prompt whose picture is made first."""

    task: Literal["video"]
    prompt: Annotated[Text, Field(min_length=1)] | None = None
    image: Source | None = None
    workflow: WorkflowName | None = Field(
        None, description="left out: what the characters' base model runs by default, else svd"
    )
    frames: Annotated[int, Field(ge=2, le=1024)] | None = None
    fps: Annotated[float, Field(ge=1, le=60, allow_inf_nan=False)] | None = None
    motion: Annotated[int, Field(ge=1, le=255)] | None = None
    augmentation: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] | None = None
    fit: Literal["cover", "contain"] = "cover"
    format: Literal["mp4", "webm", "webp"] = "mp4"

    @model_validator(mode="after")
    def _something_to_start_from(self) -> Self:
        if self.image is None and self.prompt is None:
            raise ValueError("give an image, or a prompt to make the start frame from")
        return self


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
    seed: Seed | None = None
    trainer: Literal["kohya", "comfyui"] = "kohya"
    activate: bool = True
    instant: Annotated[
        bool, Field(description="register up to 5 of the photos as references before the training")
    ] = False
    crop: Literal["auto", "off"] = Field(
        "auto", description="auto: a photo with other people in it is cropped to the subject"
    )
    preview_prompts: Annotated[list[Text], Field(max_length=8)] | None = None
    timeout_s: Timeout | None = None

    @model_validator(mode="after")
    def _one_kind_of_dataset(self) -> Self:
        if (self.images is None) == (self.archive is None):
            raise ValueError("give exactly one of images, archive")
        return self


class CharactersJob(Request):
    """Reading and changing the registry."""

    task: Literal["characters"]
    action: Literal[
        "list",
        "get",
        "create",
        "register",
        "activate",
        "rollback",
        "delete",
        "restore",
        "erase",
    ]
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


Job = ImageJob | VideoJob | TrainJob | CharactersJob | HealthJob
Task = Literal["image", "video", "train", "characters", "health"]
JOB: Final[TypeAdapter[Job]] = TypeAdapter(Annotated[Job, Field(discriminator="task")])


def parse_job(raw: object) -> Job:
    """Turn a job's `input` into one of the jobs above.

    Raises:
        InvalidInput: with the dotted field and one sentence that names the allowed range.
    """
    if not isinstance(raw, dict):
        raise InvalidInput("input must be a JSON object with a task.", field="input")
    _check_depth(raw)
    try:
        return JOB.validate_python(raw)
    except ValidationError as error:
        raise _invalid(error.errors(include_url=False)) from None


def _check_depth(raw: object) -> None:
    level: list[object] = [raw]
    for _ in range(MAX_INPUT_DEPTH):
        level = [child for value in level for child in _children(value)]
        if not level:
            return
    raise InvalidInput(f"input is nested deeper than {MAX_INPUT_DEPTH} levels.", field="input")


def _children(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _invalid(errors: list[ErrorDetails]) -> InvalidInput:
    field, sentence = refusal(errors[0], _schema())
    return InvalidInput(f"{field}: {sentence}.", field=field)


@functools.cache
def _schema() -> dict[str, Any]:
    return JOB.json_schema()  # 10 ms the first time
