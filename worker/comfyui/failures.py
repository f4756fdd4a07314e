"""What ComfyUI says of a failed node or a refused graph, as the error that the caller gets.

Pure. Shapes as ComfyUI 0.33 sends them. The body of a 400 may carry a traceback, and messages carry
paths of this machine: neither goes on.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from worker.comfyui.events import Failed
from worker.errors import (
    DiskFull,
    ExecutionFailed,
    ModelMissing,
    OutOfMemory,
    WorkerError,
    WorkflowRejected,
)

_NO_SPACE = ("[errno 28]", "no space left on device")
_NO_MEMORY = ("out of memory", "allocation on device")


def failure(event: Failed) -> WorkerError:
    """`OutOfMemory`, `DiskFull` or `ExecutionFailed`, with node, node type and message."""
    message = plain(event.message).rstrip(". ") or "no reason given"
    details = {
        "node": event.node,
        "node_type": event.node_type,
        "exception": plain(event.exception_type),
        "message": message,
    }
    where = f"Node {event.node} ({event.node_type})" if event.node else "The workflow"
    if _out_of_memory(event):
        return OutOfMemory(
            f"{where} ran out of GPU memory; ask for a smaller size or a lower count.",
            details=details,
        )
    if any(words in event.message.lower() for words in _NO_SPACE):
        return DiskFull(f"{where} found no room on the worker's disk.", details=details)
    return ExecutionFailed(f"{where} failed: {message}.", details=details)


def _out_of_memory(event: Failed) -> bool:
    # torch.OutOfMemoryError, torch.cuda.OutOfMemoryError; older drivers raise a RuntimeError.
    if event.exception_type.endswith("OutOfMemoryError"):
        return True
    return any(words in event.message.lower() for words in _NO_MEMORY)


MAX_CHARACTERS = 300

# A folder part: what stands before the file's name, unless it belongs to an address (`://host/a`).
_FOLDERS = re.compile(r"(?<![\w./~-])~?/(?=[\w.])(?:[\w.@+~-]+/)*")


def plain(text: object, limit: int = MAX_CHARACTERS) -> str:
    """`text` on one line, file names without their folders, at most `limit` characters."""
    # Cut first: what is never shown must cost nothing, however long it is.
    line = " ".join(str(text)[: 4 * limit].split())
    line = _FOLDERS.sub("", line)
    return line if len(line) <= limit else line[: limit - 1] + "…"


Graph = Mapping[str, Mapping[str, Any]]
Choices = Callable[[str, str], Sequence[object]]

_MAX_ERRORS = 20
_MAX_ALLOWED = 50
_SHOWN_ALLOWED = 8
_MODEL_SUFFIXES = (".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".gguf", ".onnx")
# With ComfyUI's own loaders; what they are asked for has a suffix as a rule, but need not.
_MODEL_INPUT = re.compile(
    r"(ckpt|lora|vae|unet|clip|control_net|style_model|gligen|model|hypernetwork"
    r"|photomaker_model|audio_encoder)_name\d?"
)


def refusal(body: object, graph: Graph, choices: Choices) -> WorkflowRejected | ModelMissing:
    """The error for a refused graph.

    Args:
        body: the parsed JSON of the answer, whatever it is.
        graph: the graph that was refused.
        choices: the values that an input of a node type allows (`/object_info`); asked where
            ComfyUI leaves a long list out.

    Returns:
        `ModelMissing` when the first thing at fault is a model file, else `WorkflowRejected`.
        Details: `node`, `node_type`, `input`, `reason`, `received`, `allowed` of the first
        fault, and the same of all of them (at most 20) in `errors`.
    """
    answer = _mapping(body)
    faults = _node_faults(answer.get("node_errors"), graph, choices) or [_graph_fault(answer)]
    first = faults[0]
    details = first | {"errors": faults[:_MAX_ERRORS]}
    if _is_model(first):
        return ModelMissing(_sentence(first), details=details)
    return WorkflowRejected(_sentence(first), details=details)


def _node_faults(node_errors: object, graph: Graph, choices: Choices) -> list[dict[str, Any]]:
    return [
        _fault(str(node), str(_mapping(about).get("class_type")), _mapping(error), graph, choices)
        for node, about in _mapping(node_errors).items()
        for error in _list(_mapping(about).get("errors"))
    ]


def _graph_fault(answer: Mapping[str, Any]) -> dict[str, Any]:
    """A fault of the graph as a whole, or of a node whose type is unknown."""
    error = answer.get("error")
    about: Mapping[str, Any] = error if isinstance(error, Mapping) else {"message": error}
    extra = _mapping(about.get("extra_info"))
    return {
        "node": extra.get("node_id"),
        "node_type": extra.get("class_type"),
        "input": None,
        "reason": str(about.get("type", "refused")),
        "received": None,
        "allowed": None,
        "message": plain(about.get("message") or "it gives no reason"),
    }


def _fault(
    node: str, node_type: str, error: Mapping[str, Any], graph: Graph, choices: Choices
) -> dict[str, Any]:
    extra = _mapping(error.get("extra_info"))
    reason = str(error.get("type"))
    name = extra.get("input_name")
    fault = {
        "node": node,
        "node_type": node_type,
        "input": name,
        "reason": reason,
        "received": _bounded(extra.get("received_value")),
        "allowed": _allowed(extra.get("input_config")),
        "message": plain(error.get("message", "")),
    }
    if reason == "value_not_in_list" and fault["allowed"] is None and name:
        fault["allowed"] = [plain(value, 200) for value in choices(node_type, name)[:_MAX_ALLOWED]]
    if reason == "exception_during_validation":
        fault |= _dangling_link(node, graph)
    elif reason == "custom_validation_failed":
        fault["message"] = plain(error.get("details", ""))
    return fault


def _dangling_link(node: str, graph: Graph) -> dict[str, Any]:
    """The node's first link to a node that the graph lacks: ComfyUI only says KeyError."""
    for name, value in graph.get(node, {}).get("inputs", {}).items():
        if isinstance(value, list) and value and str(value[0]) not in graph:
            return {
                "input": name,
                "received": _bounded(value),
                "message": f"it links to node {plain(value[0], 40)}, which the workflow lacks",
            }
    return {}


def _allowed(config: object) -> Any:
    """List of values, or `{"min", "max"}`, or None when the specification does not say."""
    if not isinstance(config, list) or not config:
        return None
    kind, *rest = config
    options = rest[0] if rest and isinstance(rest[0], Mapping) else {}
    values = kind if isinstance(kind, list) else options.get("options")
    if isinstance(values, list):
        return [plain(value, 200) for value in values[:_MAX_ALLOWED]]
    return {end: options[end] for end in ("min", "max") if end in options} or None


def _bounded(value: object) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    return plain(value)


def _is_model(fault: Mapping[str, Any]) -> bool:
    if fault["reason"] != "value_not_in_list":
        return False
    received = str(fault["received"]).lower()
    named = _MODEL_INPUT.fullmatch(str(fault["input"]))
    return named is not None or received.endswith(_MODEL_SUFFIXES)


def _sentence(fault: Mapping[str, Any]) -> str:
    node, name = f"node {fault['node']} ({fault['node_type']})", fault["input"]
    received, allowed = fault["received"], fault["allowed"]
    match fault["reason"]:
        case "missing_node_type":
            return (
                f"ComfyUI has no node type {fault['node_type']}, which node {fault['node']} of the"
                " workflow needs; install it or choose another workflow."
            )
        case "value_not_in_list" if _is_model(fault):
            return f"ComfyUI has no model file {received!r} for {name} of {node}."
        case "value_not_in_list":
            return f"{name} of {node} is {received!r}; allowed are {_listed(allowed)}."
        case "value_smaller_than_min" | "value_bigger_than_max" if isinstance(allowed, Mapping):
            span = f"{allowed.get('min', 'any')} to {allowed.get('max', 'any')}"
            return f"{name} of {node} is {received!r}; allowed is {span}."
        case "required_input_missing":
            return f"{node[0].upper()}{node[1:]} lacks its input {name}."
        case _:
            where = f" at {node}" if fault["node"] else ""
            what = f", input {name}" if name else ""
            return f"ComfyUI refused the workflow{where}{what}: {fault['message'].rstrip('. ')}."


def _listed(allowed: object) -> str:
    values = _list(allowed)
    shown = ", ".join(map(str, values[:_SHOWN_ALLOWED])) or "none"
    return shown + (f" and {len(values) - _SHOWN_ALLOWED} more" if values[_SHOWN_ALLOWED:] else "")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
