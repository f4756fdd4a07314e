"""ComfyUI's "Export (API)" as data: `{node id: {"class_type", "inputs"}}`, and walks over it. Pure.

An input is a literal or a link `[node id, output index]`.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

Graph = dict[str, dict[str, Any]]
Nodes = Mapping[str, Mapping[str, Any]]


class Slot(NamedTuple):
    """One input of one node."""

    node: str
    input: str

    def __str__(self) -> str:
        return f"{self.node}.{self.input}"


class Socket(NamedTuple):
    """One output of one node, as a link names it."""

    node: str
    output: int

    def __str__(self) -> str:
        return f"{self.node}.{self.output}"


def link_of(value: object) -> Socket | None:
    """The link that an input's value is; None for a literal."""
    if isinstance(value, list) and len(value) == 2:  # noqa: PLR2004 - [node id, output index]
        node, output = value
        if isinstance(node, str) and isinstance(output, int):
            return Socket(node, output)
    return None


def links(inputs: Mapping[str, object]) -> dict[str, Socket]:
    """The inputs that are links rather than literals."""
    found = {name: link_of(value) for name, value in inputs.items()}
    return {name: link for name, link in found.items() if link is not None}


def needed(graph: Nodes, outputs: Iterable[str]) -> frozenset[str]:
    """The nodes that must run for these to run, themselves included."""
    kept: set[str] = set()
    waiting = list(outputs)
    while waiting:
        node = waiting.pop()
        if node in kept or node not in graph:
            continue
        kept.add(node)
        waiting += [link.node for link in links(graph[node]["inputs"]).values()]
    return frozenset(kept)


def consumers(graph: Nodes, socket: Socket) -> tuple[Slot, ...]:
    """The inputs that hang on a socket."""
    return tuple(
        Slot(node, name)
        for node, spec in graph.items()
        for name, link in links(spec["inputs"]).items()
        if link == socket
    )
