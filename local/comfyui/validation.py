"""What ComfyUI checks of a graph before it queues it, with the same error bodies.

Written from what the server answers, not from its code; the conformance suite compares the two.
"""

import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from local.comfyui.catalogue import Catalogue

Graph = dict[str, dict[str, Any]]
Report = dict[str, Any]

_LONGEST_LIST: Final = 20  # longer lists of choices are only counted in the error
_CONVERSIONS: Final[Mapping[str, type]] = {
    "INT": int,
    "FLOAT": float,
    "STRING": str,
    "BOOLEAN": bool,
}
_DYNAMIC: Final = "COMFY_DYNAMICCOMBO_V3"
# What converting a value or following a link may raise; ComfyUI reports these as answers.
_FAILURES: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


@dataclass(frozen=True)
class Verdict:
    """`error` is None when at least one output is good: those are run, the others are not."""

    error: Report | None
    outputs: list[str]
    node_errors: Report


@dataclass
class _Node:
    valid: bool
    reasons: list[Report] = field(default_factory=list)


def validate(graph: Graph, catalogue: Catalogue, custom: "CustomChecks") -> Verdict:
    """Check a graph; its constants are converted in place (`"64"` becomes 64 for an INT).

    Args:
        graph: node id -> class_type and inputs, as the client sent it.
        catalogue: the node specs.
        custom: checks of single nodes beyond their spec.
    """
    for node_id, node in graph.items():
        error = _class_error(node_id, node, catalogue)
        if error is not None:
            return Verdict(error, [], {})
    wanted = [node_id for node_id in graph if catalogue.is_output(graph[node_id]["class_type"])]
    if not wanted:
        return Verdict(_error("prompt_no_outputs", "Prompt has no outputs"), [], {})
    return _Validation(graph, catalogue, custom).verdict(wanted)


class CustomChecks:
    """Checks that a node class makes of its own inputs, by class; None means good."""

    def __init__(self, checks: Mapping[str, tuple[str, Any]]) -> None:
        self._checks = checks

    def input_of(self, class_type: str) -> str | None:
        """The input that a class checks itself; its range and choices are then not checked."""
        return self._checks[class_type][0] if class_type in self._checks else None

    def reason(self, class_type: str, value: object) -> str | None:
        """What is wrong with the value, in the node's words."""
        found: str | None = self._checks[class_type][1](value)
        return found


class _Validation:
    def __init__(self, graph: Graph, catalogue: Catalogue, custom: CustomChecks) -> None:
        self._graph = graph
        self._catalogue = catalogue
        self._custom = custom
        self._seen: dict[str, _Node] = {}
        self._path: list[str] = []

    def verdict(self, outputs: list[str]) -> Verdict:
        good: list[str] = []
        node_errors: Report = {}
        messages: list[str] = []
        for output in outputs:
            result = self._output(output)
            if result.valid:
                good.append(output)
                continue
            messages += [f"{reason['message']}: {reason['details']}" for reason in result.reasons]
            self._collect(output, node_errors)
        if good:
            return Verdict(None, good, node_errors)
        error = _error(
            "prompt_outputs_failed_validation",
            "Prompt outputs failed validation",
            "\n".join(messages),
        )
        return Verdict(error, [], node_errors)

    def _collect(self, output: str, node_errors: Report) -> None:
        for node_id, result in self._seen.items():
            if result.valid or not result.reasons:
                continue
            entry = node_errors.setdefault(
                node_id,
                {
                    "errors": result.reasons,
                    "dependent_outputs": [],
                    "class_type": self._graph[node_id]["class_type"],
                },
            )
            entry["dependent_outputs"].append(output)

    def _output(self, node_id: str) -> _Node:
        try:
            return self._node(node_id)
        except _FAILURES as error:
            message = "Exception when validating node"
            reason = _error("exception_during_validation", message, str(error))
            reason["extra_info"] = _exception(error)
            self._seen[node_id] = _Node(valid=False, reasons=[reason])
            return self._seen[node_id]

    def _node(self, node_id: str) -> _Node:
        if node_id in self._seen:
            return self._seen[node_id]
        if node_id in self._path:
            return self._cycle(node_id)
        node = self._graph[node_id]
        inputs, class_type = node["inputs"], node["class_type"]
        specs = expand(self._catalogue.inputs(class_type), inputs)
        result = _Node(valid=True)
        for name, (required, kind, constraints) in specs.items():
            self._path.append(node_id)
            try:
                reason = self._input(inputs, name, (kind, constraints), class_type, result)
            finally:
                self._path.pop()
            if reason is not None and (required or name in inputs):
                result.reasons.append(reason)
        result.reasons += self._custom_reasons(class_type, inputs)
        known = self._seen.get(node_id)  # a cycle through this node has been reported already
        if known is not None:
            result.reasons[:0] = known.reasons
        result.valid = result.valid and not result.reasons
        self._seen[node_id] = result
        return result

    def _input(
        self, inputs: dict[str, Any], name: str, spec: tuple[Any, Any], class_type: str, node: _Node
    ) -> Report | None:
        if name not in inputs:
            shown = name.rsplit(".", maxsplit=1)[-1]
            reason = _error("required_input_missing", "Required input is missing", shown)
            return {**reason, "extra_info": {"input_name": name}}
        value = inputs[name]
        if isinstance(value, list):
            return self._link(name, value, spec, node)
        checked = self._custom.input_of(class_type) != name
        return _constant(inputs, name, spec, in_range=checked)

    def _link(
        self, name: str, link: list[Any], spec: tuple[Any, Any], node: _Node
    ) -> Report | None:
        info: Report = {"input_name": name, "input_config": spec}
        if len(link) != 2:  # noqa: PLR2004 - a node id and an output's number
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            reason = _error("bad_linked_input", message, name)
            return {**reason, "extra_info": {**info, "received_value": link}}
        received = self._catalogue.outputs(self._graph[link[0]]["class_type"])[link[1]]
        if not _accepts(spec[0], received):
            details = f"{name}, received_type({received}) mismatch input_type({spec[0]})"
            message = "Return type mismatch between linked nodes"
            reason = _error("return_type_mismatch", message, details)
            return {
                **reason,
                "extra_info": {**info, "received_type": received, "linked_node": link},
            }
        try:
            node.valid = self._node(link[0]).valid and node.valid
        except _FAILURES as error:
            node.valid = False
            message = "Exception when validating inner node"
            reason = _error("exception_during_inner_validation", message, str(error))
            shown = _exception(error)
            reason["extra_info"] = {
                **info,
                "exception_message": str(error),
                **shown,
                "linked_node": link,
            }
            self._seen[link[0]] = _Node(valid=False, reasons=[reason])
        return None

    def _custom_reasons(self, class_type: str, inputs: Mapping[str, Any]) -> list[Report]:
        name = self._custom.input_of(class_type)
        if name is None or name not in inputs or isinstance(inputs[name], list):
            return []
        problem = self._custom.reason(class_type, inputs[name])
        if problem is None:
            return []
        message = "Custom validation failed for node"
        reason = _error("custom_validation_failed", message, f"{name} - {problem}")
        return [{**reason, "extra_info": {"input_name": name}}]

    def _cycle(self, node_id: str) -> _Node:
        path = [*self._path[self._path.index(node_id) :], node_id]
        nodes = list(dict.fromkeys(path))
        shown = " -> ".join(f"{node} ({self._graph[node]['class_type']})" for node in path)
        for node in nodes:
            reason = _error("dependency_cycle", "Dependency cycle detected", shown)
            reason["extra_info"] = {"node_id": node, "cycle_nodes": nodes}
            self._seen[node] = _Node(valid=False, reasons=[reason])
        return self._seen[node_id]


def expand(
    specs: Mapping[str, Mapping[str, list[Any]]], inputs: Mapping[str, Any], prefix: str = ""
) -> dict[str, tuple[bool, Any, dict[str, Any]]]:
    """Every input that counts: name -> (required, type, constraints).

    A dynamic choice brings the inputs of the option that is chosen, as `choice.input`.
    """
    found: dict[str, tuple[bool, Any, dict[str, Any]]] = {}
    for category, named in specs.items():
        for plain, spec in named.items():
            name = f"{prefix}{plain}"
            constraints = spec[1] if len(spec) > 1 else {}
            if spec[0] == _DYNAMIC:
                chosen = [o for o in constraints["options"] if o["key"] == inputs.get(name)]
                if not chosen:
                    continue
                found.update(expand(chosen[0]["inputs"], inputs, f"{name}."))
            found[name] = (category == "required", spec[0], constraints)
    return found


def _constant(
    inputs: dict[str, Any], name: str, spec: tuple[Any, Any], *, in_range: bool
) -> Report | None:
    value = inputs[name]
    if isinstance(value, dict) and "__value__" in value:
        value = inputs[name] = value["__value__"]
    kind, constraints = spec
    info: Report = {"input_name": name, "input_config": spec, "received_value": value}
    try:
        if isinstance(kind, str) and kind in _CONVERSIONS:
            value = inputs[name] = info["received_value"] = _CONVERSIONS[kind](value)
    except _FAILURES as error:
        message = f"Failed to convert an input value to a {kind} value"
        reason = _error("invalid_input_type", message, f"{name}, {value}, {error}")
        return {**reason, "extra_info": {**info, "exception_message": str(error)}}
    if not in_range:
        return None
    return _range_error(name, value, constraints, info) or _choice_error(name, value, spec, info)


def _range_error(
    name: str, value: Any, constraints: Mapping[str, Any], info: Report
) -> Report | None:
    if "min" in constraints and value < constraints["min"]:
        message = f"Value {value} smaller than min of {constraints['min']}"
        return {**_error("value_smaller_than_min", message, name), "extra_info": info}
    if "max" in constraints and value > constraints["max"]:
        message = f"Value {value} bigger than max of {constraints['max']}"
        return {**_error("value_bigger_than_max", message, name), "extra_info": info}
    return None


def _choice_error(name: str, value: Any, spec: tuple[Any, Any], info: Report) -> Report | None:
    kind, constraints = spec
    if not isinstance(kind, list) and kind != "COMBO":
        return None
    choices = kind if isinstance(kind, list) else constraints.get("options", [])
    if value in choices:
        return None
    shown = str(choices)
    if len(choices) > _LONGEST_LIST:
        shown = f"(list of length {len(choices)})"
        info = {**info, "input_config": None}
    reason = _error("value_not_in_list", "Value not in list", f"{name}: {value!r} not in {shown}")
    return {**reason, "extra_info": info}


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
    error = _error("missing_node_type", message, f"Node ID '#{node_id}'")
    info = {"node_id": node_id, "class_type": class_type, "node_title": title}
    return {**error, "extra_info": info}


def _accepts(wanted: Any, received: Any) -> bool:
    if wanted == received or "*" in (wanted, received) or wanted == "COMFY_MATCHTYPE_V3":
        return True
    if isinstance(received, list):
        return bool(wanted == "COMBO")
    if not isinstance(wanted, str):
        return False
    types = {kind.strip() for kind in wanted.split(",")}
    return bool(types & {kind.strip() for kind in received.split(",")})


def _error(kind: str, message: str, details: str = "") -> Report:
    return {"type": kind, "message": message, "details": details, "extra_info": {}}


def _exception(error: Exception) -> Report:
    """How ComfyUI describes an exception."""
    return {
        "exception_type": type(error).__qualname__,
        "traceback": traceback.format_tb(error.__traceback__),
    }
