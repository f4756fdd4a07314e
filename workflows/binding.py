"""Binding: a workflow and a job's values become one graph. Pure: no disk, no argument changed."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from workflows.errors import InvalidParam, UnboundRole
from workflows.template import Graph, LoraSockets, Output, Slot, Socket, Value, Workflow


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
        roles: role -> value; None leaves what the graph says.
        params: values for the workflow's own parameters.
        loras: chained in this order; none adds no node.
        output_format: keeps the outputs of that format and those without one.
        low_memory: puts the workflow's replacements for scarce GPU memory in.
    """

    prefix: str
    roles: Mapping[str, Value | None]
    params: Mapping[str, Value] = field(default_factory=dict)
    loras: Sequence[LoraUse] = ()
    output_format: str | None = None
    low_memory: bool = False


def bind(workflow: Workflow, values: Values) -> Bound:
    """Put values, LoRAs and output names into a copy of the workflow's graph.

    Raises:
        UnboundRole: a value for a role that the workflow does not bind.
        InvalidParam: an unknown parameter, or a value outside its limits.
    """
    graph: Graph = {node: copy.deepcopy(dict(spec)) for node, spec in workflow.graph.items()}
    for role, value in values.roles.items():
        if value is not None:
            _set(graph, _role_slots(workflow, role, value), value)
    _check_budgets(workflow, values.roles)
    for name, value in _params(workflow, values.params).items():
        _set(graph, workflow.params[name].bind, value)
    if values.low_memory:
        for node, replacement in workflow.out_of_memory.items():
            graph[node]["class_type"] = replacement.class_type
            graph[node]["inputs"] |= replacement.inputs
    outputs = _outputs(workflow, values.output_format)
    for output in outputs:
        graph[output.node]["inputs"][output.prefix] = f"{values.prefix}-{output.node}"
    if values.loras:
        _chain(graph, _sockets(workflow), values.loras)
    return Bound(_reachable(graph, outputs), outputs)


def _role_slots(workflow: Workflow, role: str, value: Value) -> Sequence[Slot]:
    if role not in workflow.roles:
        raise UnboundRole(workflow.name, role)
    limits = workflow.limits.get(role)
    problem = limits.problem(value) if limits else None
    if problem:
        raise InvalidParam(role, f"{problem} for workflow {workflow.name!r}")
    return workflow.roles[role]


def _check_budgets(workflow: Workflow, given: Mapping[str, Value | None]) -> None:
    for budget in workflow.budgets:
        chosen = [float(given.get(role) or workflow.default(role)) for role in budget.roles]
        if math.prod(chosen) > budget.maximum:
            sides = " x ".join(f"{number:g}" for number in chosen)
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
    return {name: given.get(name, param.default) for name, param in workflow.params.items()}


def _set(graph: Graph, slots: Sequence[Slot], value: Value) -> None:
    for slot in slots:
        graph[slot.node]["inputs"][slot.input] = value


def _outputs(workflow: Workflow, output_format: str | None) -> tuple[Output, ...]:
    formats = workflow.formats
    if formats and output_format not in formats:
        raise InvalidParam("format", f"must be one of {', '.join(formats)}")
    return tuple(
        output
        for output in workflow.outputs
        if output.format is None or output.format == output_format
    )


def _sockets(workflow: Workflow) -> LoraSockets:
    if workflow.loras is None:
        raise InvalidParam("characters", f"workflow {workflow.name!r} takes no characters")
    return workflow.loras


def _chain(graph: Graph, sockets: LoraSockets, loras: Sequence[LoraUse]) -> None:
    model, clip = sockets.model, sockets.clip
    added: Graph = {}
    for number, lora in enumerate(loras, start=1):
        node = _free_id(graph, f"lora_{number}")
        added[node] = _loader(lora, model, clip)
        model, clip = Socket(node, 0), Socket(node, 1) if clip else None
    _rewire(graph, sockets.model, model)
    if sockets.clip and clip:
        _rewire(graph, sockets.clip, clip)
    graph.update(added)


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


def _rewire(graph: Graph, old: Socket, new: Socket) -> None:
    for node in graph.values():
        for name, value in node["inputs"].items():
            if value == list(old):
                node["inputs"][name] = list(new)


def _reachable(graph: Graph, outputs: Sequence[Output]) -> Graph:
    kept: Graph = {}
    waiting = [output.node for output in outputs]
    while waiting:
        node = waiting.pop()
        if node in kept or node not in graph:
            continue
        kept[node] = graph[node]
        waiting += [link[0] for link in links(graph[node]["inputs"]).values()]
    return {node: kept[node] for node in graph if node in kept}


def links(inputs: Mapping[str, object]) -> dict[str, Socket]:
    """The inputs that are links rather than literals."""
    return {
        name: Socket(value[0], value[1])
        for name, value in inputs.items()
        if isinstance(value, list)
        and len(value) == 2  # noqa: PLR2004 - a link is [node id, output index]
        and isinstance(value[0], str)
        and isinstance(value[1], int)
    }
