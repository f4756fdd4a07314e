"""Whether a `workflow.toml` fits the graph beside it, without asking ComfyUI. Pure.

Each fault is half a sentence with the table and the key: whoever wrote the file reads it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from workflows.graph import Slot, Socket, consumers, needed
from workflows.template import CHARACTERS, ROLES, Workflow
from workflows.wording import nearest

_FOLDER: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")  # what a job's `workflow` may say
# Saving classes that leave no file to deliver.
_LEAVES_NOTHING: Final = frozenset({"PreviewImage", "SaveImageWebsocket"})


def faults(workflow: Workflow) -> tuple[str, ...]:
    """Everything that `workflow.toml` says and that cannot be; empty when all of it can."""
    checks = (
        *(_names, _required, _outputs, _slots, _sockets, _sizes, _files, _params),
        _replacements,
    )
    return tuple(fault for check in checks for fault in check(workflow))


def _names(workflow: Workflow) -> Iterator[str]:
    if not _FOLDER.fullmatch(workflow.name):
        yield (
            "the folder's name must be of small letters, digits, '_' and '-', 64 at most; "
            "no job could say this one"
        )
    for role in workflow.roles:
        if role not in ROLES:
            hint = nearest(role, ROLES)
            yield _at("roles", role, f"is no field of a job{hint}; files go into [inputs.{role}]")
    for role in workflow.limits:
        if role not in workflow.roles:
            yield _at("limits", role, f"is no role of this workflow{nearest(role, workflow.roles)}")
    for number, budget in enumerate(workflow.budgets, start=1):
        for role in set(budget.roles) - set(workflow.roles):
            hint = nearest(role, workflow.roles)
            yield f"workflow.toml, [[budgets]] number {number}: {role} is no role{hint}"


def _required(workflow: Workflow) -> Iterator[str]:
    settable = (*workflow.roles, *workflow.inputs)
    for name in workflow.required:
        if name not in {*settable, CHARACTERS}:
            hint = nearest(name, (*settable, CHARACTERS))
            yield f"workflow.toml: required names {name!r}, which is no role or input{hint}"
    if CHARACTERS in workflow.required and not workflow.loras:
        yield "workflow.toml: required names characters, and there is no [loras]"
    if workflow.loras and not workflow.base_model:
        yield "workflow.toml: base_model is missing; [loras] needs to know whose LoRAs fit"


def _outputs(workflow: Workflow) -> Iterator[str]:
    names = [output.name for output in workflow.outputs if output.name]
    for number, output in enumerate(workflow.outputs, start=1):
        where = f"workflow.toml, [[outputs]] number {number}"
        node = workflow.graph.get(output.node)
        if node is None:
            yield f"{where}: {_no_node(workflow, output.node)}"
        elif node["class_type"] in _LEAVES_NOTHING:
            yield (
                f"{where}: node {output.node} ({node['class_type']}) keeps no file; put a "
                "SaveImage in its place"
            )
        elif output.prefix not in node["inputs"] and "prefix" in output.model_fields_set:
            yield f"{where}: {_no_input(workflow, Slot(output.node, output.prefix))}"
        if output.name and names.count(output.name) > 1:
            yield f"{where}: the name {output.name!r} is taken by another output"


def _slots(workflow: Workflow) -> Iterator[str]:
    reached = needed(workflow.graph, [output.node for output in workflow.outputs])
    for table, key, slots in _bound(workflow):
        # One of several may belong to an output that was taken out; all of them would be silent.
        if not any(slot.node in reached or slot.node not in workflow.graph for slot in slots):
            yield _at(table, key, f"{slots[0]} is on a node that leads to no output")
        for slot in slots:
            if slot.node not in workflow.graph:
                yield _at(table, key, _no_node(workflow, slot.node))
            elif slot.input not in workflow.graph[slot.node]["inputs"]:
                yield _at(table, key, _no_input(workflow, slot))


def _bound(workflow: Workflow) -> Iterator[tuple[str, str, Sequence[Slot]]]:
    for role, slots in workflow.roles.items():
        yield "roles", role, slots
    for name, declared in workflow.inputs.items():
        yield f"inputs.{name}", "bind", declared.bind
    for name, param in workflow.params.items():
        yield f"params.{name}", "bind", param.bind


def _sockets(workflow: Workflow) -> Iterator[str]:
    reached = needed(workflow.graph, [output.node for output in workflow.outputs])
    for chain in workflow.loras:
        for key, socket in (("model", chain.model), ("clip", chain.clip)):
            if socket is None:
                continue
            if socket.node not in workflow.graph:
                yield _at("loras", key, _no_node(workflow, socket.node))
            elif not any(slot.node in reached for slot in consumers(workflow.graph, socket)):
                yield _at(
                    "loras",
                    key,
                    f"nothing that leads to an output hangs on {socket}, so no character would "
                    f"have any effect{_near_sockets(workflow, socket)}",
                )


def _near_sockets(workflow: Workflow, socket: Socket) -> str:
    """The outputs of the same node that are used, for who mistook the number."""
    used = sorted(
        output for output in range(16) if consumers(workflow.graph, Socket(socket.node, output))
    )
    named = ", ".join(f"{socket.node}.{output}" for output in used)
    return f"; used of that node: {named}" if named else ""


def _sizes(workflow: Workflow) -> Iterator[str]:
    for name, declared in workflow.inputs.items():
        where = f"inputs.{name}"
        pictures = declared.kind in {"image", "mask"}
        if not pictures and (declared.size != "as_is" or declared.follows):
            yield _at(where, "size", f"is for pictures and masks; this is of kind {declared.kind}")
        if declared.follows == name or (
            declared.follows and declared.follows not in workflow.inputs
        ):
            hint = nearest(declared.follows, [other for other in workflow.inputs if other != name])
            yield _at(
                where, "follows", f"names {declared.follows!r}, which is no other input{hint}"
            )
    for brought in workflow.variants:
        if brought not in {"prompt", *ROLES} and not re.fullmatch(r"\w{1,64}", brought):
            yield _at("variants", brought, "is neither a field of a job nor the name of an input")


def _files(workflow: Workflow) -> Iterator[str]:
    for name, declared in workflow.inputs.items():
        for node in set(declared.nodes) - workflow.graph.keys():
            yield _at(f"inputs.{name}", "nodes", _no_node(workflow, node))
        if declared.nodes and declared.required is not False:
            yield _at(f"inputs.{name}", "nodes", "is for an input with required = false")
    for name in workflow.references:
        if name not in workflow.inputs or workflow.inputs[name].kind != "image":
            hint = nearest(name, workflow.inputs)
            yield f"workflow.toml: references names {name!r}, which is no picture input{hint}"


def _params(workflow: Workflow) -> Iterator[str]:
    for name, param in workflow.params.items():
        problem = None if param.default is None else param.mismatch(param.default)
        if problem:
            yield _at(f"params.{name}", "default", f"is {param.default!r}; it {problem}")
        if param.triggers and param.type != "string":
            yield _at(f"params.{name}", "triggers", f"is for texts; this is of type {param.type}")


def _replacements(workflow: Workflow) -> Iterator[str]:
    for node in workflow.out_of_memory:
        if node not in workflow.graph:
            yield f"workflow.toml, [out_of_memory]: {_no_node(workflow, node)}"


def _at(table: str, key: str, fault: str) -> str:
    return f"workflow.toml, [{table}]: {key}: {fault}"


def _no_node(workflow: Workflow, node: str) -> str:
    return f"node {node!r} is not in graph.json{_listed(node, workflow.graph)}"


def _no_input(workflow: Workflow, slot: Slot) -> str:
    node: Mapping[str, Any] = workflow.graph[slot.node]
    hint = nearest(slot.input, node["inputs"])
    return f"node {slot.node!r} ({node['class_type']}) has no input {slot.input!r}{hint}"


def _listed(node: str, graph: Mapping[str, Mapping[str, Any]]) -> str:
    """The nodes there are, when they are few enough to help."""
    return f" (it has {', '.join(graph)})" if len(graph) <= 16 and node else ""  # noqa: PLR2004
