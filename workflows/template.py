"""A workflow as data: what `workflow.toml` may say, and the graph beside it.

`graph.json` is ComfyUI's "Export (API)": `{node id: {"class_type", "inputs"}}`, an input being a
literal or a link `[node id, output index]`. `workflow.toml` names roles and where they go, so that
no code ever knows a node number.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Value = bool | int | float | str
Graph = dict[str, dict[str, Any]]


class Slot(NamedTuple):
    """One input of one node."""

    node: str
    input: str


class Socket(NamedTuple):
    """One output of one node, as a link names it."""

    node: str
    output: int


def _slot(value: object) -> object:
    if isinstance(value, str):
        node, dot, name = value.partition(".")
        if not (node and dot and name):
            raise ValueError(f"{value!r} must look like '6.text'")
        return Slot(node, name)
    return value


def _slots(value: object) -> object:
    return tuple(_slot(item) for item in (value if isinstance(value, list) else [value]))


def _socket(value: object) -> object:
    if isinstance(value, str):
        node, _, index = value.rpartition(".")
        if not (node and index.isdecimal()):
            raise ValueError(f"{value!r} must look like '4.0'")
        return Socket(node, int(index))
    return value


Slots = Annotated[tuple[Slot, ...], BeforeValidator(_slots)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LoraSockets(_Part):
    """Where LoRAs are chained in: everything that hangs on these sockets hangs on the last LoRA."""

    model: Annotated[Socket, BeforeValidator(_socket)]
    clip: Annotated[Socket, BeforeValidator(_socket)] | None = None


class Output(_Part):
    """A node whose files are delivered, all of them.

    With a `format` the node runs only when the job asks for that format; without, always.
    """

    node: str
    kind: Literal["image", "video", "audio"]
    format: str | None = None
    prefix: str = "filename_prefix"


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
        low = "" if self.minimum is None else f" at least {self.minimum:g}"
        high = "" if self.maximum is None else f" at most {self.maximum:g}"
        if (self.minimum is not None and value < self.minimum) or (
            self.maximum is not None and value > self.maximum
        ):
            return "must be" + " and".join(part for part in (low, high) if part)
        if self.step is not None and (value - (self.minimum or 0)) % self.step:
            return f"must be a multiple of {self.step}" + (f" from {self.minimum:g}" if low else "")
        return None


class Budget(_Part):
    """A bound on a product of numbers, e.g. width x height x frames."""

    roles: Annotated[tuple[str, ...], Field(min_length=2)]
    maximum: float


class Param(Limits):
    """A parameter that only this workflow has; jobs set it in `params`."""

    type: Literal["int", "float", "bool", "string"]
    bind: Slots
    default: Value
    description: str = ""

    @model_validator(mode="after")
    def _default_fits(self) -> Self:
        if self.mismatch(self.default):
            raise ValueError(f"default {self.default!r} {self.mismatch(self.default)}")
        return self

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
    """One folder below `workflows/`, parsed and checked against itself."""

    name: str
    digest: str = Field(description="sha256 over graph and workflow.toml")
    graph: Mapping[str, Mapping[str, Any]] = Field(repr=False)
    kind: Literal["image", "video"]
    title: str
    description: str = ""
    base_model: str = Field(description="family of the LoRAs that fit, e.g. sdxl")
    models: tuple[str, ...] = ()
    roles: Mapping[str, Slots]
    limits: Mapping[str, Limits] = {}
    budgets: tuple[Budget, ...] = ()
    loras: LoraSockets | None = None
    outputs: Annotated[tuple[Output, ...], Field(min_length=1)]
    params: Mapping[str, Param] = {}
    out_of_memory: Mapping[str, Replacement] = Field(
        {}, description="node -> what replaces it when the first try ran out of GPU memory"
    )
    variants: Mapping[str, str] = Field(
        {}, description="role -> workflow that takes this one's place when a job brings it"
    )

    @model_validator(mode="after")
    def _slots_exist(self) -> Self:
        for slot in self._slots_named():
            node = self.graph.get(slot.node)
            if node is None:
                raise ValueError(f"node {slot.node!r} is not in graph.json")
            if slot.input not in node["inputs"]:
                raise ValueError(f"node {slot.node!r} has no input {slot.input!r}")
        return self

    @model_validator(mode="after")
    def _nodes_and_roles_exist(self) -> Self:
        sockets = (self.loras.model, self.loras.clip) if self.loras else ()
        named = [*self.out_of_memory, *(socket.node for socket in sockets if socket)]
        for node_id in named:
            if node_id not in self.graph:
                raise ValueError(f"node {node_id!r} is not in graph.json")
        for role in (role for budget in self.budgets for role in budget.roles):
            if role not in self.roles:
                raise ValueError(f"budget names {role!r}, which is no role")
        return self

    def _slots_named(self) -> list[Slot]:
        named = [slot for slots in self.roles.values() for slot in slots]
        named += [slot for param in self.params.values() for slot in param.bind]
        named += [Slot(output.node, output.prefix) for output in self.outputs]
        return named

    def default(self, role: str) -> Any:
        """What the graph says where a job says nothing; None for a role that is not bound."""
        slots = self.roles.get(role)
        return self.graph[slots[0].node]["inputs"][slots[0].input] if slots else None

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats that this workflow's outputs offer, in the order declared."""
        return tuple(output.format for output in self.outputs if output.format is not None)
