"""What `workflow.toml` binds, against the types that the nodes declare. Pure."""

from collections.abc import Iterator
from typing import Any, Final

from workflows.binding import loader_class
from workflows.graph import Slot, Socket
from workflows.nodespecs import Declared, NodeSpecs, declared, fits
from workflows.problem import Problem
from workflows.template import TEXT_ROLES, Input, Workflow

_NOT_TEXT: Final = frozenset({"INT", "FLOAT", "BOOLEAN"})
# Types that only links carry: no value of a job can stand there.
_LINKED_ONLY: Final = frozenset(
    {
        *("MODEL", "CLIP", "VAE", "CONDITIONING", "LATENT", "IMAGE", "MASK", "CONTROL_NET"),
        *("SAMPLER", "SIGMAS", "GUIDER", "NOISE", "CLIP_VISION", "CLIP_VISION_OUTPUT", "AUDIO"),
        *("VIDEO", "UPSCALE_MODEL", "STYLE_MODEL"),
    }
)


def declaration_problems(workflow: Workflow, specs: NodeSpecs) -> Iterator[Problem]:
    """Sockets, roles, params and inputs that the node they name cannot have."""
    for chain in workflow.loras:
        loader = loader_class(chain)
        if loader not in specs:
            yield Problem("node_missing", loader, f"node class {loader!r} is not installed")
        yield from _socket(workflow, specs, chain.model, "MODEL")
        if chain.clip:
            yield from _socket(workflow, specs, chain.clip, "CLIP")
    bound = [(f"[roles]: {role}", role in TEXT_ROLES, to) for role, to in workflow.roles.items()]
    bound += [
        (f"[params.{name}]: bind", param.type == "string", param.bind)
        for name, param in workflow.params.items()
    ]
    for place, is_text, slots in bound:
        for slot in slots:
            yield from _value(workflow, specs, place, slot, is_text=is_text)
    for name, given in workflow.inputs.items():
        for slot in given.bind:
            yield from _file(workflow, specs, name, given, slot)


def _socket(workflow: Workflow, specs: NodeSpecs, socket: Socket, wanted: str) -> Iterator[Problem]:
    outputs = specs.get(workflow.graph[socket.node]["class_type"], {}).get("output")
    if outputs is None:
        return
    given: Any = outputs[socket.output] if socket.output < len(outputs) else "nothing"
    if not fits(given, wanted):
        shown = "a choice" if isinstance(given, list) else given
        told = f"[loras]: {socket} gives {shown}, and a {wanted} is wanted"
        yield Problem("mismatch", socket.node, told)


def _value(
    workflow: Workflow, specs: NodeSpecs, place: str, slot: Slot, *, is_text: bool
) -> Iterator[Problem]:
    wanted = _wanted(workflow, slot, specs)
    kind = wanted.type if wanted and isinstance(wanted.type, str) else ""
    if kind in _LINKED_ONLY or (is_text and kind in _NOT_TEXT):
        text = f"{place}: {slot} takes {kind}, and no such value"
        yield Problem("mismatch", slot.node, text)


def _file(
    workflow: Workflow, specs: NodeSpecs, name: str, given: Input, slot: Slot
) -> Iterator[Problem]:
    wanted = _wanted(workflow, slot, specs)
    kind = "image" if given.kind == "mask" else given.kind
    if wanted and kind != "file" and wanted.upload not in {None, "file", kind}:
        text = f"[inputs.{name}]: kind is {given.kind}; {slot} takes files of kind {wanted.upload}"
        yield Problem("mismatch", slot.node, text)


def _wanted(workflow: Workflow, slot: Slot, specs: NodeSpecs) -> Declared | None:
    node = workflow.graph[slot.node]
    return declared(specs.get(node["class_type"], {}), node["inputs"]).get(slot.input)
