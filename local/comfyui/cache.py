"""Results of nodes, kept by what went into them: an identical prompt runs nothing twice."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from local.comfyui.catalogue import Catalogue
from local.comfyui.validation import Graph

_BUDGET_BYTES: Final = 256 * 2**20  # ComfyUI evicts under memory pressure; here it is a fixed sum


@dataclass(frozen=True)
class Result:
    """What a node gave: per output socket a list of values, and what it reports to history."""

    outputs: list[list[Any]]
    ui: dict[str, Any] | None = None


@dataclass
class ResultCache:
    """Results by signature; the longest unused go first when pictures need too much memory."""

    budget_bytes: int = _BUDGET_BYTES
    _results: OrderedDict[str, tuple[Result, int]] = field(default_factory=OrderedDict)
    _held_bytes: int = 0

    def get(self, signature: str) -> Result | None:
        """The kept result, if there is one."""
        if signature not in self._results:
            return None
        self._results.move_to_end(signature)
        return self._results[signature][0]

    def put(self, signature: str, result: Result) -> None:
        """Keep a result."""
        self._drop(signature)
        size = 1024 + sum(_size(value) for values in result.outputs for value in values)
        self._results[signature] = (result, size)
        self._held_bytes += size
        while self._held_bytes > self.budget_bytes and len(self._results) > 1:
            self._drop(next(iter(self._results)))

    def clear(self) -> None:
        """Forget everything, as `/free` with `free_memory` does."""
        self._results.clear()
        self._held_bytes = 0

    def _drop(self, signature: str) -> None:
        if signature in self._results:
            self._held_bytes -= self._results.pop(signature)[1]


def signatures(
    graph: Graph, catalogue: Catalogue, fingerprint: Callable[[str, dict[str, Any]], Any]
) -> dict[str, str]:
    """Each node's signature: its class, constants and file contents, and those of all before it.

    Args:
        graph: a valid graph.
        catalogue: says which classes are keyed by node id too.
        fingerprint: of what a node reads from disk, by class and inputs; None where it reads none.
    """
    known: dict[str, str] = {}

    def signature(node_id: str) -> str:
        if node_id not in known:
            node = graph[node_id]
            class_type, inputs = node["class_type"], node["inputs"]
            parts = [class_type, fingerprint(class_type, inputs)]
            if catalogue.keyed_by_node(class_type):
                parts.append(node_id)
            for name in sorted(inputs):
                value = inputs[name]
                linked = is_link(value) and value[0] in graph
                parts.append([name, [signature(value[0]), value[1]] if linked else value])
            body = json.dumps(parts, sort_keys=True, default=repr)
            known[node_id] = hashlib.sha256(body.encode()).hexdigest()
        return known[node_id]

    return {node_id: signature(node_id) for node_id in graph}


def is_link(value: object) -> bool:
    """Whether an input's value is another node's output, `[node_id, number]`."""
    return (
        isinstance(value, list)
        and len(value) == 2  # noqa: PLR2004 - a node id and an output's number
        and isinstance(value[0], str)
        and isinstance(value[1], int | float)
    )


def _size(value: Any) -> int:
    held: int = getattr(value, "nbytes", 0)
    return held
