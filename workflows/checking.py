"""A template held against the running ComfyUI's node specs (`/object_info`). Pure.

A node spec is `{"input": {"required": {name: [type, options]}, "optional": …}, "output": [types],
"output_node": bool}`; a combo's type is the list of its choices, or `"COMBO"` with
`options["options"]` (ComfyUI 0.33.0).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from workflows.binding import links
from workflows.template import Workflow

NodeSpecs = Mapping[str, Mapping[str, Any]]
_FILE_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".sft", ".onnx")


@dataclass(frozen=True, slots=True)
class Problem:
    """One reason why a workflow cannot run here; `subject` is the missing node class or file."""

    kind: Literal["node_missing", "model_missing", "mismatch"]
    subject: str
    text: str


def class_types(workflow: Workflow) -> frozenset[str]:
    """The node classes whose specs `check` needs."""
    named = {node["class_type"] for node in workflow.graph.values()}
    named |= {replacement.class_type for replacement in workflow.out_of_memory.values()}
    if workflow.loras:
        named.add("LoraLoader" if workflow.loras.clip else "LoraLoaderModelOnly")
    return frozenset(named)


def check(workflow: Workflow, specs: NodeSpecs) -> tuple[Problem, ...]:
    """Everything of the template that this ComfyUI would refuse; empty when it can run."""
    problems: list[Problem] = []
    for name in sorted(class_types(workflow)):
        if name not in specs:
            problems.append(Problem("node_missing", name, f"node class {name!r} is not installed"))
    for node_id, node in workflow.graph.items():
        if node["class_type"] in specs:
            problems += _node_problems(workflow, node_id, node, specs)
    problems += [
        Problem("mismatch", output.node, f"node {output.node} ({kind}) is not an output node")
        for output in workflow.outputs
        if (kind := workflow.graph[output.node]["class_type"]) in specs
        and not specs[kind].get("output_node")
    ]
    return tuple(problems)


def _node_problems(
    workflow: Workflow, node_id: str, node: Mapping[str, Any], specs: NodeSpecs
) -> list[Problem]:
    inputs = _declared(specs[node["class_type"]])
    required = specs[node["class_type"]].get("input", {}).get("required", {})
    where = f"node {node_id} ({node['class_type']})"
    linked = links(node["inputs"])
    problems = [
        Problem("mismatch", node_id, f"{where} lacks the required input {name!r}")
        for name in required
        if name not in node["inputs"]
    ]
    set_by_jobs = {
        slot.input for slots in workflow.roles.values() for slot in slots if slot.node == node_id
    }
    for name, value in node["inputs"].items():
        if name not in inputs:
            continue  # ComfyUI ignores inputs that it does not know
        if name in linked:
            problems += _link_problem(workflow, where, name, inputs[name], specs)
        elif name not in set_by_jobs:
            problems += _literal_problem(where, name, value, inputs[name])
    return problems


def _declared(spec: Mapping[str, Any]) -> dict[str, Any]:
    given = spec.get("input", {})
    return {**given.get("required", {}), **given.get("optional", {})}


def _link_problem(
    workflow: Workflow, where: str, name: str, declared: Any, specs: NodeSpecs
) -> list[Problem]:
    node_id = where.split()[1]
    link = links(workflow.graph[node_id]["inputs"])[name]
    source = workflow.graph.get(link.node)
    if source is None:
        return [
            Problem("mismatch", node_id, f"{where}: {name} links to node {link.node!r}, not there")
        ]
    offered = specs.get(source["class_type"], {}).get("output")
    if offered is None:
        return []
    if link.output >= len(offered):
        return [
            Problem("mismatch", node_id, f"{where}: {name} links to an output that is not there")
        ]
    wanted, given = declared[0], offered[link.output]
    fits = isinstance(wanted, list) or "*" in (wanted, given) or given in str(wanted).split(",")
    if fits or isinstance(given, list):
        return []
    return [Problem("mismatch", node_id, f"{where}: {name} wants {wanted}, gets {given}")]


def _literal_problem(where: str, name: str, value: Any, declared: Any) -> list[Problem]:
    choices = combo_choices(declared)
    if choices is None or value in choices:
        return []
    if isinstance(value, str) and value.endswith(_FILE_SUFFIXES):
        return [
            Problem("model_missing", value, f"model file {value!r} is not there ({where}, {name})")
        ]
    return [Problem("mismatch", str(value), f"{where}: {name} has no choice {value!r}")]


def combo_choices(declared: Any) -> list[Any] | None:
    """The choices of an input's declaration, None when it is no combo."""
    if isinstance(declared[0], list):
        return declared[0]
    if declared[0] == "COMBO" and len(declared) > 1:
        options = declared[1].get("options")
        return options if isinstance(options, list) else None
    return None
