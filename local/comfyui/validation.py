"""What ComfyUI checks of a graph before it queues it, with the same error bodies.

Written from what the server answers; the conformance suite compares the two.
"""

import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from local.comfyui.catalogue import Catalogue
from local.comfyui.inputs import (
    FAILURES,
    Report,
    Spec,
    accepts,
    check_constant,
    expand,
    missing,
    problem,
)

Graph = dict[str, dict[str, Any]]
OwnChecks = Mapping[str, tuple[str, Callable[[Any], str | None]]]
"""Node class -> the input it checks itself, and the check: what is wrong with a value, or None."""


@dataclass(frozen=True)
class Verdict:
    """`error` is None when at least one output is good: those are run, the others are not."""

    error: Report | None
    outputs: list[str]
    node_errors: Report


def validate(
    graph: Graph,
    catalogue: Catalogue,
    own_checks: OwnChecks,
    targets: Collection[str] | None = None,
) -> Verdict:
    """Check a graph; its constants are converted in place (`"64"` becomes 64 for an INT).

    Args:
        graph: node id -> class_type and inputs, as the client sent it.
        catalogue: the node specs.
        own_checks: what single nodes check beyond their spec.
        targets: the only outputs wanted; None for all.

    Raises:
        AttributeError, TypeError: it is no graph at all; ComfyUI answers 500 then.
    """
    outputs = []
    for node_id, node in graph.items():
        if not isinstance(node.get("inputs", {}), dict):
            raise TypeError("the inputs of a node are an object")
        error = _class_error(node_id, node, catalogue)
        if error is not None:
            return Verdict(error, [], {})
        if catalogue.is_output(node["class_type"]) and (targets is None or node_id in targets):
            outputs.append(node_id)
    if not outputs:
        return Verdict(problem("prompt_no_outputs", "Prompt has no outputs"), [], {})
    return _Validation(graph, catalogue, own_checks).verdict(outputs)


@dataclass
class _Checked:
    """A node with what is wrong with itself; `valid` also counts the nodes before it."""

    valid: bool = True
    reasons: list[Report] = field(default_factory=list)


class _Validation:
    def __init__(self, graph: Graph, catalogue: Catalogue, own_checks: OwnChecks) -> None:
        self._graph = graph
        self._catalogue = catalogue
        self._own_checks = own_checks
        self._checked: dict[str, _Checked] = {}
        self._path: list[str] = []

    def verdict(self, outputs: list[str]) -> Verdict:
        good: list[str] = []
        node_errors: Report = {}
        messages: list[str] = []
        for output in outputs:
            checked = self._output(output)
            if checked.valid:
                good.append(output)
                continue
            messages += [f"{reason['message']}: {reason['details']}" for reason in checked.reasons]
            self._collect(output, node_errors)
        if good:
            return Verdict(None, good, node_errors)
        kind, message = "prompt_outputs_failed_validation", "Prompt outputs failed validation"
        return Verdict(problem(kind, message, "\n".join(messages)), [], node_errors)

    def _collect(self, output: str, node_errors: Report) -> None:
        for node_id, checked in self._checked.items():
            if checked.valid or not checked.reasons:
                continue
            entry = node_errors.setdefault(
                node_id,
                {
                    "errors": checked.reasons,
                    "dependent_outputs": [],
                    "class_type": self._graph[node_id]["class_type"],
                },
            )
            entry["dependent_outputs"].append(output)

    def _output(self, node_id: str) -> _Checked:
        try:
            return self._node(node_id)
        except FAILURES as error:
            message = "Exception when validating node"
            info = _exception(error)
            reason = problem("exception_during_validation", message, str(error), **info)
            return self._fail(node_id, reason)

    def _node(self, node_id: str) -> _Checked:
        if node_id in self._checked:
            return self._checked[node_id]
        if node_id in self._path:
            return self._cycle(node_id)
        self._path.append(node_id)
        try:
            checked = self._inputs(self._graph[node_id])
        finally:
            self._path.pop()
        cycle = self._checked.get(node_id)  # found on the way, through this very node
        if cycle is not None:
            checked.reasons[:0] = cycle.reasons
        checked.valid = checked.valid and not checked.reasons
        self._checked[node_id] = checked
        return checked

    def _inputs(self, node: Mapping[str, Any]) -> _Checked:
        checked = _Checked()
        inputs, class_type = node["inputs"], node["class_type"]
        own_input, own_check = self._own_checks.get(class_type, (None, None))
        for name, (required, spec) in expand(self._catalogue.inputs(class_type), inputs).items():
            if name not in inputs:
                reason = missing(name) if required else None
            elif isinstance(inputs[name], list):
                reason = self._link(name, inputs[name], spec, checked)
            else:
                reason = check_constant(inputs, name, spec, in_range=name != own_input)
            if reason is not None:
                checked.reasons.append(reason)
        if own_input is not None and own_check is not None:
            checked.reasons += _own_problem(class_type, own_input, own_check, inputs)
        return checked

    def _link(self, name: str, link: list[Any], spec: Spec, checked: _Checked) -> Report | None:
        info: Report = {"input_name": name, "input_config": spec}
        if len(link) != 2:  # noqa: PLR2004 - a node id and an output's number
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            return problem("bad_linked_input", message, name, **info, received_value=link)
        received = self._catalogue.outputs(self._graph[link[0]]["class_type"])[link[1]]
        if not accepts(spec[0], received):
            message = "Return type mismatch between linked nodes"
            details = f"{name}, received_type({received}) mismatch input_type({spec[0]})"
            info |= {"received_type": received, "linked_node": link}
            return problem("return_type_mismatch", message, details, **info)
        try:
            before = self._node(link[0])
        except FAILURES as error:
            message = "Exception when validating inner node"
            info |= {"exception_message": str(error), **_exception(error), "linked_node": link}
            reason = problem("exception_during_inner_validation", message, str(error), **info)
            before = self._fail(link[0], reason)
        checked.valid = checked.valid and before.valid
        return None

    def _cycle(self, node_id: str) -> _Checked:
        path = [*self._path[self._path.index(node_id) :], node_id]
        nodes = list(dict.fromkeys(path))
        shown = " -> ".join(f"{node} ({self._graph[node]['class_type']})" for node in path)
        for node in nodes:
            info = {"node_id": node, "cycle_nodes": nodes}
            self._fail(
                node, problem("dependency_cycle", "Dependency cycle detected", shown, **info)
            )
        return self._checked[node_id]

    def _fail(self, node_id: str, reason: Report) -> _Checked:
        self._checked[node_id] = _Checked(valid=False, reasons=[reason])
        return self._checked[node_id]


def _own_problem(
    class_type: str, name: str, check: Callable[[Any], str | None], inputs: Mapping[str, Any]
) -> list[Report]:
    if name not in inputs:
        raise TypeError(
            f"{class_type}.VALIDATE_INPUTS() missing 1 required positional argument: {name!r}"
        )
    found = None if isinstance(inputs[name], list) else check(inputs[name])
    if found is None:
        return []
    message = "Custom validation failed for node"
    return [problem("custom_validation_failed", message, f"{name} - {found}", input_name=name)]


def _class_error(node_id: str, node: Mapping[str, Any], catalogue: Catalogue) -> Report | None:
    class_type = node.get("class_type")
    if "class_type" in node and class_type in catalogue:
        return None
    title = node.get("_meta", {}).get("title", class_type)
    message = f"Node '{title}' not found. The custom node may not be installed."
    if "class_type" not in node:
        message = (
            f"Node '{title or f'ID #{node_id}'}' has no class_type. "
            "The workflow may be corrupted or a custom node is missing."
        )
    info = {"node_id": node_id, "class_type": class_type, "node_title": title}
    return problem("missing_node_type", message, f"Node ID '#{node_id}'", **info)


def _exception(error: Exception) -> Report:
    """How ComfyUI describes an exception."""
    return {
        "exception_type": type(error).__qualname__,
        "traceback": traceback.format_tb(error.__traceback__),
    }
