"""A family as data: what `family.toml` may say, and the table of the model's modules beside it.

A module is a weight that a LoRA can change. `modules.json` has a table for each way to name them:
`{"native": {"layers.{0-29}.attention.qkv": [11520, 3840]}}`. Braces count (`{0-3,7}`); a shape is
the weight's own in PyTorch: outputs, inputs, and a convolution's kernel.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from families.training import Training

MAX_MODULES: Final = 20_000
"""Names of one table, its braces counted out; the largest model known has 2,000."""

_COUNTED = re.compile(r"\{(\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*)\}")
_NAME: Final = r"^[a-z0-9][a-z0-9_]{0,63}$"
Shape = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1, max_length=5)]


def _counts(pattern: str) -> tuple[tuple[str, ...], ...]:
    return tuple(
        tuple(
            str(number)
            for part in counted.split(",")
            for low, _, high in [part.partition("-")]
            for number in range(int(low), int(high or low) + 1)
        )
        for counted in _COUNTED.findall(pattern)
    )


def _names_something(pattern: str) -> str:
    size = 1
    for counted in _COUNTED.findall(pattern):
        spans = [part.partition("-") for part in counted.split(",")]
        size *= sum(max(0, int(high or low) + 1 - int(low)) for low, _, high in spans)
    if not 1 <= size <= MAX_MODULES or re.search(r"[{}]", _COUNTED.sub("", pattern)):
        raise ValueError(
            f"{pattern!r} must name 1 to {MAX_MODULES} modules, as in 'layers.{{0-29}}.qkv'"
        )
    return pattern


def _expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from error
    return text


Pattern = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_names_something)]
Modules = Mapping[str, Mapping[Pattern, Shape]]


def literal_patterns(pattern: str) -> Iterator[str]:
    """A pattern's names, its braces counted out."""
    pieces = _COUNTED.split(pattern)[::2]  # the groups between are the braces' contents
    for numbers in itertools.product(*_counts(pattern)):
        yield "".join(map("".join, itertools.zip_longest(pieces, numbers, fillvalue="")))


def forms(pattern: str) -> Iterator[str]:
    """One of a pattern's names for each number of digits: few, where names are many."""
    pieces = _COUNTED.split(pattern)[::2]
    lengths = [{len(number): number for number in numbers} for numbers in _counts(pattern)]
    for numbers in itertools.product(*(each.values() for each in lengths)):
        yield "".join(map("".join, itertools.zip_longest(pieces, numbers, fillvalue="")))


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Layout(_Part):
    """One way to name modules in a file: a prefix, then names of a table.

    Attributes:
        name: what people call it: kohya, comfyui, diffusers, lycoris, …
        prefix: what stands before every name.
        names: tables of `modules.json`.
        underscores: dots of the names become underscores.
        text_encoder: the modules are a text encoder's.
        remedy: set where ComfyUI loads this layout as nothing: what to do about it.
    """

    name: Annotated[str, Field(pattern=_NAME)]
    prefix: str
    names: Annotated[tuple[str, ...], Field(min_length=1)]
    underscores: bool = False
    text_encoder: bool = False
    remedy: str | None = None


class Lora(_Part):
    """How the family's LoRA files look."""

    layouts: Annotated[tuple[Layout, ...], Field(min_length=1)]


class Licence(_Part):
    """Of the base model; `commercial` is what it says of use in a product, as we read it."""

    name: str
    commercial: bool
    note: str = ""


class Family(_Part):
    """One folder below `families/`, parsed and checked against itself."""

    name: Annotated[str, Field(pattern=_NAME)]
    title: str
    licence: Licence
    stated: tuple[Annotated[str, AfterValidator(_expression)], ...] = Field(
        (), description="expressions for what a file's metadata calls the base model, lower case"
    )
    workflows: Mapping[Literal["image", "video"], str] = Field(
        {}, description="what a job runs that names a character of the family and no workflow"
    )
    lora: Lora
    training: Training | None = Field(None, description="absent: nothing here trains it")
    modules: Modules = Field(repr=False)

    @model_validator(mode="after")
    def _tables_exist(self) -> Self:
        for layout in self.lora.layouts:
            for table in layout.names:
                if table not in self.modules:
                    raise ValueError(
                        f"layout {layout.name!r} names table {table!r}, which modules.json lacks"
                    )
        return self

    @property
    def matrices(self) -> int:
        """Linear layers that a LoRA can change, by ComfyUI's own names or the first table's."""
        table = self.modules.get("native") or self.modules[self.lora.layouts[0].names[0]]
        return sum(
            sum(1 for _ in literal_patterns(pattern))
            for pattern, shape in table.items()
            if len(shape) == 2  # noqa: PLR2004 - a matrix
        )

    def calls_itself(self, stated: str) -> bool:
        """Whether a file's metadata means this family."""
        return any(re.search(expression, stated) for expression in self.stated)
