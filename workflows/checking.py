"""A workflow held against the running ComfyUI's node specs (`/object_info`). Pure.

Never stricter than ComfyUI: a problem is only what it is certain to refuse. Where its decision
cannot be known from the specs (nodes that are not its own, types unknown here) the finding is
`unchecked`, and ComfyUI decides when a job comes.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from workflows.binding import Values, assemble, loader_class
from workflows.declarations import declaration_problems
from workflows.graph import Graph, Slot, link_of
from workflows.nodespecs import Declared, NodeSpec, NodeSpecs, declared, fits, is_core
from workflows.problem import Problem
from workflows.template import Value, Workflow
from workflows.wording import nearest

MODEL_SUFFIXES: Final = (
    *(".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".sft", ".onnx"),
)
_MEDIA_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".mp4", ".webm", ".wav", ".mp3")
# Core nodes that validate their own choices (`VALIDATE_INPUTS`); `/object_info` does not say so.
_OWN_CHOICES: Final = frozenset(
    {
        *(
            "LoadLatent",
            "Load3D",
            "Load3DAnimation",
            "CustomCombo",
            "SetUNETDevice",
            "SetCLIPDevice",
        ),
        *("SetVAEDevice", "SelectModelDevice", "SelectCLIPDevice", "SelectVAEDevice"),
    }
)
_NUMERIC: Final = frozenset({"INT", "FLOAT"})


def class_types(workflow: Workflow) -> frozenset[str]:
    """The node classes whose specs `check` needs."""
    named = {node["class_type"] for node in workflow.graph.values()}
    named |= {replacement.class_type for replacement in workflow.out_of_memory.values()}
    named |= {loader_class(chain) for chain in workflow.loras}
    return frozenset(named)


def check(workflow: Workflow, specs: NodeSpecs) -> tuple[Problem, ...]:
    """Everything of the workflow that this ComfyUI would refuse; empty when it can run."""
    return tuple(found for found in _findings(workflow, specs) if found.kind != "unchecked")


def unchecked(workflow: Workflow, specs: NodeSpecs) -> tuple[Problem, ...]:
    """What only ComfyUI itself can decide about the workflow."""
    return tuple(found for found in _findings(workflow, specs) if found.kind == "unchecked")


def _findings(workflow: Workflow, specs: NodeSpecs) -> tuple[Problem, ...]:
    found: dict[Problem, None] = {}  # keeps the order, and each finding once
    open_slots = _filled_by_jobs(workflow)
    for values in _jobs(workflow):
        sent = assemble(workflow, values)
        outputs = [output.node for output in sent.outputs]
        found |= dict.fromkeys(check_graph(sent.graph, specs, outputs, open_slots))
    found |= dict.fromkeys(declaration_problems(workflow, specs))
    for node, replacement in workflow.out_of_memory.items():
        if replacement.class_type not in specs:
            text = f"node class {replacement.class_type!r} is not installed; a second try after "
            found[Problem("unchecked", node, f"{text}running out of memory would fail")] = None
    return tuple(found)


def _jobs(workflow: Workflow) -> Iterator[Values]:
    """The plainest jobs that there are: for every format, with all inputs and with none."""
    brought: dict[str, Value | None] = dict.fromkeys(workflow.inputs, "check")
    for output_format in workflow.formats or (None,):
        for roles in (brought, {}) if brought else ({},):
            yield Values(prefix="check", roles=roles, output_format=output_format)


def _filled_by_jobs(workflow: Workflow) -> frozenset[Slot]:
    """Slots whose literal is never sent: an input's file, and what every job must give."""
    slots = {slot for name in workflow.inputs for slot in workflow.slots(name)}
    slots |= {slot for name in workflow.required for slot in workflow.slots(name)}
    slots |= {Slot(output.node, output.prefix) for output in workflow.outputs}
    own = {
        Slot(node, name)
        for node, spec in workflow.graph.items()
        for name, value in spec["inputs"].items()
        if isinstance(value, str) and value in workflow.files
    }
    return frozenset(slots | own)


def check_graph(
    graph: Graph,
    specs: NodeSpecs,
    outputs: Collection[str],
    open_slots: Collection[Slot] = (),
) -> tuple[Problem, ...]:
    """What ComfyUI would say of a graph as it stands.

    Args:
        graph: all that would be sent.
        specs: of every node class in it that is installed.
        outputs: the nodes that must be output nodes.
        open_slots: inputs whose values are not settled yet.
    """
    found: list[Problem] = []
    for name in sorted({spec["class_type"] for spec in graph.values()} - set(specs)):
        found.append(Problem("node_missing", name, f"node class {name!r} is not installed"))
    for node in outputs:
        kind = graph[node]["class_type"]
        if kind in specs and not specs[kind].get("output_node"):
            found.append(Problem("mismatch", node, f"node {node} ({kind}) is not an output node"))
    validated = _validated(graph, specs, outputs)
    for node in validated:
        found += _Node(node, graph, specs, frozenset(open_slots)).problems()
    ahead = {node: _feeding(graph[node], specs) for node in validated}
    found += [
        Problem("mismatch", node, f"node {node} is fed by itself, through {', '.join(ahead[node])}")
        for node in _in_a_circle(ahead)
    ]
    return tuple(found)


def _validated(graph: Graph, specs: NodeSpecs, outputs: Collection[str]) -> list[str]:
    """The nodes that ComfyUI looks at: from the outputs along the inputs that nodes declare."""
    seen: dict[str, None] = {}
    waiting = list(outputs)
    waiting += [node for node, spec in graph.items() if _spec(spec, specs).get("output_node")]
    while waiting:
        node = waiting.pop(0)
        spec = _spec(graph.get(node, {}), specs)
        if node in seen or node not in graph or not spec:
            continue
        seen[node] = None
        waiting += _feeding(graph[node], specs)
    return [node for node in graph if node in seen]


def _feeding(node: Mapping[str, Any], specs: NodeSpecs) -> list[str]:
    """The nodes that a node's declared inputs hang on; ComfyUI follows no other."""
    known = declared(_spec(node, specs), node["inputs"])
    given = {link_of(value) for name, value in node["inputs"].items() if name in known}
    return sorted({link.node for link in given if link})


def _spec(node: Mapping[str, Any], specs: NodeSpecs) -> NodeSpec:
    return specs.get(node.get("class_type", ""), {})


@dataclass(frozen=True, slots=True)
class _Node:
    """One node of a graph under examination."""

    node: str
    graph: Graph
    specs: NodeSpecs
    open_slots: frozenset[Slot]

    @property
    def kind(self) -> str:
        return str(self.graph[self.node]["class_type"])

    @property
    def where(self) -> str:
        return f"node {self.node} ({self.kind})"

    def problems(self) -> Iterator[Problem]:
        given = self.graph[self.node]["inputs"]
        known = declared(self.specs[self.kind], given)
        for name, wanted in known.items():
            if name not in given:
                if wanted.required:
                    yield self._mismatch(f"{self.where} lacks the required input {name!r}")
            elif isinstance(given[name], list):
                yield from self._link(name, given[name], wanted)
            elif not wanted.understood:
                yield self._unchecked(f"{self.where}: {name} is of type {wanted.type}")
            elif Slot(self.node, name) not in self.open_slots:
                yield from self._literal(name, given[name], wanted)
        # An input that the node does not declare is ignored by ComfyUI.

    def _link(self, name: str, value: list[Any], wanted: Declared) -> Iterator[Problem]:
        link = link_of(value)
        if link is None:
            yield self._mismatch(f"{self.where}: {name} is a list, and not a link to a node")
            return
        if link.node not in self.graph:
            yield self._mismatch(f"{self.where}: {name} links to node {link.node!r}, not there")
            return
        offered = _spec(self.graph[link.node], self.specs).get("output")
        if offered is None:
            return
        if link.output >= len(offered):
            yield self._mismatch(f"{self.where}: {name} links to an output that is not there")
        elif not fits(offered[link.output], wanted.type):
            text = f"{self.where}: {name} wants {_short(wanted.type)}, "
            yield self._doubt(f"{text}gets {_short(offered[link.output])}", wanted)

    def _literal(self, name: str, value: Any, wanted: Declared) -> Iterator[Problem]:
        if isinstance(value, dict) and "__value__" in value:
            value = value["__value__"]
        problem = _not_a(wanted, value) or _out_of_range(wanted, value)
        if problem:
            yield self._doubt(f"{self.where}: {name} is {value!r}; {problem}", wanted)
            return
        choices = wanted.choices
        chosen = value if isinstance(value, list) and wanted.options.get("multiselect") else [value]
        if choices is not None:
            for gone in (item for item in chosen if item not in choices):
                yield self._no_choice(name, gone, wanted, choices)

    def _no_choice(
        self, name: str, value: Any, wanted: Declared, choices: Collection[Any]
    ) -> Problem:
        text = str(value)
        if wanted.upload:
            advice = "put it into the workflow's files/, or let jobs bring it by [inputs.NAME]"
            told = f"{self.where}: {name}: there is no file {text!r}; {advice}"
            # ComfyUI also takes paths and "name [output]", which no list shows.
            plain = "/" not in text and "[" not in text and text.lower().endswith(_MEDIA_SUFFIXES)
            return self._doubt(told, wanted) if plain else self._unchecked(told)
        if text.endswith(MODEL_SUFFIXES):
            told = f"model file {text!r} is not there ({self.where}, {name})"
            return Problem("model_missing", text, told)
        hint = nearest(text, [str(choice) for choice in choices])[:300]
        told = f"{self.where}: {name} has no choice {value!r}{hint}"
        if self.kind in _OWN_CHOICES or not is_core(self.specs[self.kind]):
            return self._unchecked(told)
        return Problem("mismatch", text, told)

    def _doubt(self, text: str, wanted: Declared) -> Problem:
        """A problem where the rules are surely ComfyUI's; a node of others may have its own."""
        sure = wanted.understood and is_core(self.specs[self.kind])
        return self._mismatch(text) if sure else self._unchecked(text)

    def _mismatch(self, text: str) -> Problem:
        return Problem("mismatch", self.node, text)

    def _unchecked(self, text: str) -> Problem:
        return Problem("unchecked", self.node, text)


def _is_numeric(wanted: Declared) -> bool:
    return isinstance(wanted.type, str) and wanted.type in _NUMERIC


def _not_a(wanted: Declared, value: Any) -> str | None:
    """ComfyUI converts before it looks: "20" is a number, "much" is none."""
    if not _is_numeric(wanted):
        return None
    try:
        int(value) if wanted.type == "INT" else float(value)
    except (TypeError, ValueError, OverflowError):
        return f"{wanted.type} is wanted"
    return None


def _out_of_range(wanted: Declared, value: Any) -> str | None:
    if not _is_numeric(wanted):
        return None
    number = int(value) if wanted.type == "INT" else float(value)
    low, high = wanted.options.get("min"), wanted.options.get("max")
    if (low is not None and number < low) or (high is not None and number > high):
        return f"allowed is {low} to {high}"
    return None


def _short(kind: Any) -> str:
    return "a choice" if isinstance(kind, list) else str(kind)


def _in_a_circle(ahead: Mapping[str, Collection[str]]) -> list[str]:
    """The first node that depends on itself, if any."""
    left = set(ahead)
    while free := {node for node in left if not left.intersection(ahead[node])}:
        left -= free
    return [node for node in ahead if node in left][:1]
