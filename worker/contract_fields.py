"""What the fields of a job may be: the types that the contract is made of, each with its limits."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from lora_registry import fields
from worker.errors import InvalidInput

MAX_SEED: Final = 2**64 - 1  # KSampler's own maximum, from its node spec
MAX_CAPTION: Final = 2000  # characters
MAX_KEY: Final = 1024  # characters, as S3 has it
MAX_INPUT_DEPTH: Final = 16
_EXACT: Final = 2**53  # above, not every whole number is one that JSON's numbers can say
_PARAM_NAME = re.compile(r"[A-Za-z0-9_]{1,64}")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_DATA = re.compile(r"data:", re.IGNORECASE)
_A_SOURCE: Final = (
    "must be an address, a data: URI or a key as a text, or an object with exactly one of url, "
    "base64, key"
)
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


def _kind_of(text: str) -> str:
    """Which field of a source a plain text stands for."""
    if _DATA.match(text) or len(text) > MAX_KEY:
        return "base64"
    return "url" if _SCHEME.match(text) else "key"


def long_form(given: Any) -> Any:
    """A source as an object, its base64 without line breaks; anything else as it is.

    Browsers put a data: URI wherever an address goes, and most programs write base64 in lines.

    Raises:
        ValueError: neither a text nor an object.
    """
    if isinstance(given, str):
        given = {_kind_of(given): given}
    if isinstance(given, BaseModel):
        return given
    if not isinstance(given, Mapping):
        raise ValueError(_A_SOURCE)  # noqa: TRY004 - pydantic makes a refusal of it
    fields = dict(given)
    url, text = fields.get("url"), fields.get("base64")
    if isinstance(url, str) and _DATA.match(url) and text is None:
        text = fields["base64"] = fields.pop("url")
    if isinstance(text, str) and any(space in text for space in "\n\r\t "):
        fields["base64"] = "".join(text.split())
    return fields


def _or_a_text(schema: dict[str, Any]) -> None:
    """A source's JSON Schema: the object, or the text that is short for it."""
    whole = dict(schema)
    schema.clear()
    description, title = whole.pop("description"), whole.pop("title")
    short = {"type": "string", "minLength": 1, "maxLength": 40_000_000}
    schema |= {"title": title, "description": description, "anyOf": [short, whole]}


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
Seed = Annotated[
    Annotated[int, Field(ge=-1, le=MAX_SEED)] | None,
    # Other programs say "random" so; past this door a seed that is to be drawn is None.
    AfterValidator(lambda seed: None if seed == -1 else seed),
]
Steps = Annotated[int, Field(ge=1, le=100)]
Cfg = Annotated[float, Field(ge=0, le=30, allow_inf_nan=False)]
Strength = Annotated[
    float, Field(ge=-fields.MAX_STRENGTH, le=fields.MAX_STRENGTH, allow_inf_nan=False)
]
Timeout = Annotated[float, Field(ge=1, le=86_400, allow_inf_nan=False)]
Prompt = Annotated[Text, Field(min_length=1)]
Count = Annotated[int, Field(ge=1, le=8)]
Denoise = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Frames = Annotated[int, Field(ge=2, le=1024)]
Fps = Annotated[float, Field(ge=1, le=60, allow_inf_nan=False)]
Motion = Annotated[int, Field(ge=1, le=255)]
Augmentation = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]
OutputFormat = Literal[
    "png", "jpeg", "webp", "gif", "mp4", "webm", "mov", "flac", "mp3", "opus", "wav"
]
SamplerName = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,64}$")]
ParamValue = bool | int | Annotated[float, Field(allow_inf_nan=False)] | Text
Params = Annotated[dict[str, ParamValue], Field(max_length=64), AfterValidator(_short_plain_names)]


class Strict(BaseModel):
    """Base of all of the contract: unknown fields are refused, values are not coerced."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Source(Strict):
    """Where bytes come from: exactly one of `url`, `base64`, `key` (an object of our bucket).

    A plain text is short for one of them: an address, a `data:` URI, or a key.
    """

    model_config = ConfigDict(json_schema_extra=_or_a_text)

    url: Annotated[str, Field(min_length=1, max_length=8192)] | None = None
    base64: Annotated[str, Field(min_length=1, max_length=40_000_000)] | None = Field(
        default=None, repr=False
    )
    key: (
        Annotated[
            str,
            Field(min_length=1, max_length=MAX_KEY),
            AfterValidator(_printable),
            AfterValidator(_relative_key),
        ]
        | None
    ) = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, given: Any) -> Any:
        return long_form(given)

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(value is not None for value in (self.url, self.base64, self.key)) != 1:
            raise ValueError("must have exactly one of url, base64, key")
        return self


class Photo(Source):
    """A reference photo; a caption given here wins over any that we would write."""

    caption: Annotated[Text, Field(max_length=MAX_CAPTION)] | None = None


Inputs = Annotated[dict[str, Source], Field(max_length=16), AfterValidator(_short_plain_names)]


class CharacterUse(Strict):
    """One character of a picture; without version the active one, without strength its own."""

    character_id: CharacterId
    strength: Strength | None = None
    version: VersionId | None = None


def check_depth(raw: object) -> None:
    """Raises InvalidInput for what is nested deeper than `MAX_INPUT_DEPTH` levels."""
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


def whole_numbers(value: Any) -> Any:
    """Whole numbers as such: many languages write 20 as 20.0."""
    if isinstance(value, dict):
        return {name: whole_numbers(child) for name, child in value.items()}
    if isinstance(value, list):
        return [whole_numbers(child) for child in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return int(value)
    return value
