"""A workflow as data: what `workflow.toml` may say, and the graph beside it.

`workflow.toml` names what a job may set and where it goes, so that no code ever knows a node
number. docs/workflows.md has every key in one table.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from workflows.graph import Graph as Graph  # noqa: PLC0414 - part of this module's vocabulary
from workflows.graph import Slot, Socket, consumers

Value = bool | int | float | str
InputKind = Literal["image", "mask", "video", "audio", "file"]

# Fields of a job that are values and may be bound by `[roles]`; a test holds them against the
# contract, of which this package knows nothing else.
ROLES: Final = (
    *("prompt", "negative_prompt", "width", "height", "count", "steps", "cfg", "sampler"),
    *("scheduler", "seed", "denoise", "quality", "frames", "fps", "motion", "augmentation"),
)
TEXT_ROLES: Final = frozenset({"prompt", "negative_prompt", "sampler", "scheduler"})
# The two inputs that have a field of their own in the contract; `[roles]` may name them too.
OWN_FIELDS: Final = ("init_image", "image")
CHARACTERS: Final = "characters"  # what `required` calls a job's characters


def _slot(value: object) -> object:
    if isinstance(value, str):
        node, dot, name = value.partition(".")
        if not (node and dot and name):
            raise ValueError(f"{value!r} must look like '6.text' (node and input)")
        return Slot(node, name)
    return value


def _slots(value: object) -> object:
    return tuple(_slot(item) for item in (value if isinstance(value, list | tuple) else [value]))


def _socket(value: object) -> object:
    if value is None or isinstance(value, Socket | tuple):
        return value
    node, _, index = value.rpartition(".") if isinstance(value, str) else ("", "", "")
    if not (node and index.isdecimal()):
        raise ValueError(f"{value!r} must look like '4.0' (node and number of the output)")
    return Socket(node, int(index))


def _tuple(value: object) -> object:
    return value if isinstance(value, tuple) else (value,)


Slots = Annotated[tuple[Slot, ...], BeforeValidator(_slots), Field(min_length=1)]
OneSocket = Annotated[Socket, BeforeValidator(_socket)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{1,64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LoraChain(_Part):
    """Where LoRAs are chained in: everything that hangs on these sockets hangs on the last LoRA."""

    model: OneSocket
    clip: Annotated[Socket | None, BeforeValidator(_socket)] = None


class Output(_Part):
    """A node whose files are delivered, all of them.

    With a `format` the node runs only when the job asks for that format; without, always.

    Attributes:
        node: its id in the graph.
        kind: what the author expects it to write; None leaves that to the file's content.
        format: the file format that it writes, as jobs name it.
        name: how the job's result names its files.
        prefix: the input that takes the file name's beginning; a node without one keeps its own.
    """

    node: str
    kind: Literal["image", "video", "audio", "text", "file"] | None = None
    format: str | None = None
    name: Name | None = None
    prefix: str = "filename_prefix"


class Input(_Part):
    """A file that a job brings: where it goes, and how it is made ready.

    Attributes:
        bind: the loader's input that takes the file's name.
        kind: what the file must be.
        required: whether a job must bring it; None: unless the workflow's `files/` has one.
            One that is not required and not brought leaves the graph with its loader.
        size: of a picture or mask: as it comes, or brought to the size of the job (or of the input
            that `follows` names) by cutting (`cover`) or by filling up (`contain`).
        follows: the input whose size this one is brought to.
        nodes: further ones that work on this file alone, and leave the graph with its loader.
    """

    bind: Slots
    nodes: tuple[str, ...] = ()
    kind: InputKind
    required: bool | None = None
    size: Literal["as_is", "cover", "contain"] = "as_is"
    follows: Name | None = None
    description: str = ""


class Limits(_Part):
    """Bounds that a workflow sets to a number, tighter than the contract's."""

    minimum: float | None = None
    maximum: float | None = None
    step: int | None = None
    choices: tuple[Value, ...] | None = None

    def problem(self, value: Value) -> str | None:
        """What is wrong with a value, as the end of a sentence; None when it fits."""
        if self.choices is not None and value not in self.choices:
            return f"must be one of {', '.join(map(str, self.choices))}"
        if isinstance(value, str):
            return None
        low = "" if self.minimum is None else f" at least {in_full(self.minimum)}"
        high = "" if self.maximum is None else f" at most {in_full(self.maximum)}"
        if (self.minimum is not None and value < self.minimum) or (
            self.maximum is not None and value > self.maximum
        ):
            return "must be" + " and".join(part for part in (low, high) if part)
        if self.step is not None and (value - (self.minimum or 0)) % self.step:
            start = f" from {in_full(self.minimum or 0)}" if low else ""
            return f"must be a multiple of {self.step}{start}"
        return None


class Budget(_Part):
    """A bound on a product of numbers, e.g. width x height x frames."""

    roles: Annotated[tuple[str, ...], Field(min_length=2)]
    maximum: float


class Param(Limits):
    """A parameter that only this workflow has; jobs set it in `params`.

    Attributes:
        default: what a job that says nothing gets; None leaves what the graph says.
        triggers: whether `{trigger}` and `{trigger:id}` in a text stand for a character's words.
    """

    type: Literal["int", "float", "bool", "string"]
    bind: Slots
    default: Value | None = None
    triggers: bool = False
    description: str = ""

    def mismatch(self, value: Value) -> str | None:
        """What is wrong with a job's value, as the end of a sentence; None when it fits."""
        allowed: dict[str, tuple[type, ...]] = {
            "int": (int,),
            "float": (int, float),
            "bool": (bool,),
            "string": (str,),
        }
        right = isinstance(value, allowed[self.type])
        if not right or (isinstance(value, bool) and self.type != "bool"):
            return f"must be of type {self.type}"
        return self.problem(value)


class Replacement(_Part):
    """What stands in for a node on the second try after an OOM, e.g. `VAEDecodeTiled`."""

    class_type: str
    inputs: Mapping[str, Value] = {}


class Workflow(_Part):
    """One folder below `workflows/`, parsed; `soundness.faults` says whether it fits its graph.

    Attributes:
        kind: the task that runs it; audio and file only run as `task: "workflow"`.
        base_model: family of the LoRAs that fit; needed where there are LoRA sockets.
        required: roles that a job must give, and "characters".
        references: inputs that take photos of a job's characters, in this order.
        files: names below the folder's `files/` that the graph reads, and where they lie.
    """

    name: str
    digest: str = Field(description="sha256 over graph and workflow.toml")
    graph: Mapping[str, Mapping[str, Any]] = Field(repr=False)
    kind: Literal["image", "video", "audio", "file"]
    title: str
    description: str = ""
    base_model: str = Field("", description="family of the LoRAs that fit, e.g. sdxl")
    models: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    roles: Mapping[str, Slots] = {}
    inputs: Mapping[Name, Input] = {}
    references: tuple[Name, ...] = ()
    limits: Mapping[str, Limits] = {}
    budgets: tuple[Budget, ...] = ()
    loras: Annotated[tuple[LoraChain, ...], BeforeValidator(_tuple)] = ()
    outputs: Annotated[tuple[Output, ...], Field(min_length=1)]
    params: Mapping[Name, Param] = {}
    out_of_memory: Mapping[str, Replacement] = Field(
        {}, description="node -> what replaces it when the first try ran out of GPU memory"
    )
    variants: Mapping[str, str] = Field(
        {}, description="prompt or input -> workflow that takes this one's place for such a job"
    )
    files: Mapping[str, Path] = Field({}, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        return {**raw, **_inputs_among_roles(raw), **_chains(raw)}

    def slots(self, name: str) -> tuple[Slot, ...]:
        """Where a role or an input goes; empty for one that is not bound."""
        if name in self.inputs:
            return self.inputs[name].bind
        return self.roles.get(name, ())

    def default(self, role: str) -> Any:
        """What the graph says where a job says nothing; None where it says nothing plain.

        That is so for a role that is not bound, and for one whose input is linked to another node.
        """
        slots = self.slots(role)
        value = self.graph[slots[0].node]["inputs"][slots[0].input] if slots else None
        return value if isinstance(value, bool | int | float | str) else None

    def param_default(self, name: str) -> Value | None:
        """What a parameter is where a job says nothing: its default, else what the graph says."""
        param = self.params[name]
        slot = param.bind[0]
        value = self.graph[slot.node]["inputs"][slot.input]
        plain = value if isinstance(value, bool | int | float | str) else None
        return plain if param.default is None else param.default

    def is_required(self, name: str) -> bool:
        """Whether a job must bring this input."""
        declared = self.inputs[name].required
        return self.default(name) not in self.files if declared is None else declared

    def reads_alpha(self, name: str) -> bool:
        """Whether an input picture's transparency matters: its loader gives it out as a mask.

        A loader that is not ComfyUI's own gets the picture as it came.
        """
        return any(
            self.graph[slot.node]["class_type"] != "LoadImage"
            or consumers(self.graph, Socket(slot.node, 1))
            for slot in self.inputs[name].bind
        )

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats that this workflow's outputs offer, in the order declared."""
        named = (output.format for output in self.outputs if output.format is not None)
        return tuple(dict.fromkeys(named))


def in_full(number: float) -> str:
    """A number as people write it: 16777215 rather than 1.67772e+07."""
    return str(int(number)) if float(number).is_integer() else f"{number:g}"


def _inputs_among_roles(raw: Mapping[str, Any]) -> dict[str, Any]:
    """`[roles] init_image = "10.image"` is the short form of a picture among the inputs."""
    roles, inputs = raw.get("roles"), raw.get("inputs", {})
    if not isinstance(roles, Mapping) or not isinstance(inputs, Mapping):
        return {}
    # A clip's start frame has always been cut to the clip's size, an init image kept as it is.
    short = {"init_image": {"kind": "image"}, "image": {"kind": "image", "size": "cover"}}
    moved = {name: {**short[name], "bind": roles[name]} for name in OWN_FIELDS if name in roles}
    return {
        "roles": {name: slots for name, slots in roles.items() if name not in moved},
        "inputs": {**moved, **inputs},
    }


def _chains(raw: Mapping[str, Any]) -> dict[str, Any]:
    """`[loras] model = ["1.0", "2.0"]`: one chain a model; the n-th clip belongs to the n-th."""
    loras = raw.get("loras")
    if not isinstance(loras, Mapping) or not isinstance(loras.get("model"), list):
        return {"loras": tuple(loras)} if isinstance(loras, list) else {}
    models, clips = loras["model"], loras.get("clip", [])
    clips = clips if isinstance(clips, list) else [clips]
    if len(clips) > len(models):
        raise ValueError(f"[loras] has {len(clips)} clip sockets for {len(models)} models")
    rest = {key: value for key, value in loras.items() if key not in {"model", "clip"}}
    clips += [None] * (len(models) - len(clips))
    pairs = zip(models, clips, strict=True)
    return {"loras": tuple({**rest, "model": model, "clip": clip} for model, clip in pairs)}
