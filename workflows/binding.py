"""Binding: a workflow and a job's values become one graph. Pure: no disk, no argument changed."""

import copy
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workflows.errors import InvalidParam, UnboundRole
from workflows.graph import Graph, Slot, Socket, consumers, needed
from workflows.template import CHARACTERS, OWN_FIELDS, LoraChain, Output, Value, Workflow


@dataclass(frozen=True, slots=True)
class LoraUse:
    """One LoRA of the chain: its file name below ComfyUI's `loras`, and its strength."""

    name: str
    strength: float


@dataclass(frozen=True, slots=True)
class Bound:
    """A graph ready to be queued, and the outputs that must be delivered from it."""

    graph: Graph
    outputs: tuple[Output, ...]


@dataclass(frozen=True, slots=True)
class Values:
    """What a job puts into a workflow.

    Args:
        prefix: `filename_prefix` of the outputs; one of its own per run, since ComfyUI answers an
            identical prompt from its cache without writing files.
        roles: role or input -> value; an input's value is the name of its placed file. None leaves
            what the graph says.
        params: values for the workflow's own parameters.
        loras: chained in this order; none adds no node.
        output_format: keeps the outputs of that format and those without one.
        low_memory: puts the workflow's replacements for scarce GPU memory in.
        files: file of the workflow -> its name where ComfyUI reads inputs.
    """

    prefix: str
    roles: Mapping[str, Value | None]
    params: Mapping[str, Value] = field(default_factory=dict)
    loras: Sequence[LoraUse] = ()
    output_format: str | None = None
    low_memory: bool = False
    files: Mapping[str, str] = field(default_factory=dict)


def require(workflow: Workflow, given: Collection[str], *, characters: bool) -> None:
    """See to it that a job brings what the workflow declares `required`.

    Args:
        workflow: the one that is to run.
        given: names of the roles and inputs that the job sets.
        characters: whether the job names a character.

    Raises:
        InvalidParam: naming the first field that is missing.
    """
    for name in workflow.required:
        if name == CHARACTERS and not characters:
            raise InvalidParam("character_id", f"is required by workflow {workflow.name!r}")
        if name != CHARACTERS and name not in given:
            raise InvalidParam(name, f"is required by workflow {workflow.name!r}")
    for name in workflow.inputs:
        if name not in given and workflow.is_required(name):
            raise InvalidParam(field_of(name), f"is required by workflow {workflow.name!r}")


def field_of(name: str) -> str:
    """The job's field of an input: `init_image` and `image` have their own."""
    return name if name in OWN_FIELDS else f"inputs.{name}"


def bind(workflow: Workflow, values: Values) -> Bound:
    """Put values, LoRAs and output names into a copy of the workflow's graph.

    Raises:
        UnboundRole: a value for a role that the workflow does not bind.
        InvalidParam: an unknown parameter, a value outside its limits, or a required one missing.
    """
    given = {name for name, value in values.roles.items() if value is not None}
    require(workflow, given, characters=bool(values.loras))
    return assemble(workflow, values)


def assemble(workflow: Workflow, values: Values) -> Bound:
    """`bind`, but what the workflow requires may be missing: the graph then says what it says."""
    graph: Graph = {node: copy.deepcopy(dict(spec)) for node, spec in workflow.graph.items()}
    given = {name: value for name, value in values.roles.items() if value is not None}
    for role, value in given.items():
        _set(graph, _role_slots(workflow, role, value), value)
    _check_budgets(workflow, given)
    for name, value in _params(workflow, values.params).items():
        _set(graph, workflow.params[name].bind, value)
    if values.low_memory:
        for node, replacement in workflow.out_of_memory.items():
            graph[node]["class_type"] = replacement.class_type
            graph[node]["inputs"] |= replacement.inputs
    _place_files(graph, workflow, values)
    outputs = _outputs(workflow, values.output_format)
    for output in outputs:
        if output.prefix in graph[output.node]["inputs"]:
            graph[output.node]["inputs"][output.prefix] = f"{values.prefix}-{output.node}"
    if values.loras:
        _chain_all(graph, workflow, values.loras)
    kept = needed(graph, [output.node for output in outputs])
    return Bound({node: graph[node] for node in graph if node in kept}, outputs)


def _role_slots(workflow: Workflow, role: str, value: Value) -> Sequence[Slot]:
    slots = workflow.slots(role)
    if not slots:
        raise UnboundRole(workflow.name, role, (*workflow.roles, *workflow.inputs))
    limits = workflow.limits.get(role)
    problem = limits.problem(value) if limits else None
    if problem:
        raise InvalidParam(role, f"{problem} for workflow {workflow.name!r}")
    return slots


def _check_budgets(workflow: Workflow, given: Mapping[str, Value | None]) -> None:
    for budget in workflow.budgets:
        chosen = [given.get(role) or workflow.default(role) for role in budget.roles]
        numbers = [float(value) for value in chosen if isinstance(value, int | float)]
        # A number that another node computes is nobody's to multiply before the graph runs.
        if len(numbers) == len(chosen) and math.prod(numbers) > budget.maximum:
            sides = " x ".join(f"{number:g}" for number in numbers)
            raise InvalidParam(
                budget.roles[-1],
                f"{' x '.join(budget.roles)} ({sides}) must be at most {budget.maximum:,.0f} for "
                f"workflow {workflow.name!r}",
            )


def _params(workflow: Workflow, given: Mapping[str, Value]) -> dict[str, Value]:
    for name, value in given.items():
        if name not in workflow.params:
            known = ", ".join(workflow.params) or "none"
            raise InvalidParam(
                f"params.{name}",
                f"is not a parameter of workflow {workflow.name!r} (it has: {known})",
            )
        problem = workflow.params[name].mismatch(value)
        if problem:
            raise InvalidParam(f"params.{name}", problem)
    chosen = {name: given.get(name, param.default) for name, param in workflow.params.items()}
    return {name: value for name, value in chosen.items() if value is not None}


def _set(graph: Graph, slots: Sequence[Slot], value: Any) -> None:
    for slot in slots:
        graph[slot.node]["inputs"][slot.input] = value


def _place_files(graph: Graph, workflow: Workflow, values: Values) -> None:
    """Name the workflow's own files as they were placed; take loaders of no file out."""
    for name, declared in workflow.inputs.items():
        own = workflow.default(name) in workflow.files
        if values.roles.get(name) is None and declared.required is False and not own:
            for node in {*(slot.node for slot in declared.bind), *declared.nodes}:
                _remove(graph, node)
    for spec in graph.values():
        for name, value in spec["inputs"].items():
            if isinstance(value, str) and value in values.files:
                spec["inputs"][name] = values.files[value]


def _remove(graph: Graph, node: str) -> None:
    del graph[node]
    for spec in graph.values():
        spec["inputs"] = {
            name: value
            for name, value in spec["inputs"].items()
            if not (isinstance(value, list) and value[:1] == [node])
        }


def _outputs(workflow: Workflow, output_format: str | None) -> tuple[Output, ...]:
    formats = workflow.formats
    if formats and output_format not in formats:
        raise InvalidParam("format", f"must be one of {', '.join(formats)}")
    return tuple(
        output
        for output in workflow.outputs
        if output.format is None or output.format == output_format
    )


def _chain_all(graph: Graph, workflow: Workflow, loras: Sequence[LoraUse]) -> None:
    if not workflow.loras:
        raise InvalidParam(CHARACTERS, f"workflow {workflow.name!r} takes no characters")
    for number, chain in enumerate(workflow.loras, start=1):
        _chain(graph, chain, loras, suffix="" if number == 1 else f"_{number}")


def _chain(graph: Graph, chain: LoraChain, loras: Sequence[LoraUse], suffix: str) -> None:
    model, clip = chain.model, chain.clip
    hanging = {socket: consumers(graph, socket) for socket in (chain.model, chain.clip) if socket}
    for number, lora in enumerate(loras, start=1):
        node = _free_id(graph, f"lora_{number}{suffix}")
        graph[node] = _loader(lora, model, clip)
        model, clip = Socket(node, 0), Socket(node, 1) if clip else None
    _set(graph, hanging[chain.model], list(model))
    if chain.clip and clip:
        _set(graph, hanging[chain.clip], list(clip))


def loader_class(chain: LoraChain) -> str:
    """The node class that puts a LoRA into a chain."""
    return "LoraLoader" if chain.clip else "LoraLoaderModelOnly"


def _loader(lora: LoraUse, model: Socket, clip: Socket | None) -> dict[str, object]:
    inputs: dict[str, object] = {
        "model": list(model),
        "lora_name": lora.name,
        "strength_model": lora.strength,
    }
    if clip is None:
        return {"class_type": "LoraLoaderModelOnly", "inputs": inputs}
    inputs |= {"clip": list(clip), "strength_clip": lora.strength}
    return {"class_type": "LoraLoader", "inputs": inputs}


def _free_id(graph: Graph, wanted: str) -> str:
    while wanted in graph:
        wanted += "_"
    return wanted
