"""Results of nodes, kept by what went into them: an identical prompt runs nothing twice."""

import hashlib
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from local.comfyui.catalogue import Catalogue
from local.comfyui.validation import Graph


@dataclass(frozen=True)
class Result:
    """What a node gave: per output socket a list of values, and what it reports to history."""

    outputs: list[list[Any]]
    ui: dict[str, Any] | None = None


class ResultCache:
    """Results by signature, as long as prompts go on using them.

    ComfyUI by default lets go of all that the running prompt does not use while less memory is free
    than the machine has (128 GB at most): on most machines always. So here always.
    """

    def __init__(self) -> None:
        self._results: dict[str, Result] = {}

    def get(self, signature: str) -> Result | None:
        """The kept result, if there is one."""
        return self._results.get(signature)

    def put(self, signature: str, result: Result) -> None:
        """Keep a result."""
        self._results[signature] = result

    def release(self, used: Collection[str]) -> None:
        """Let go of what the running prompt does not use."""
        for signature in self._results.keys() - used:
            del self._results[signature]

    def clear(self) -> None:
        """Forget everything, as `/free` with `free_memory` does."""
        self._results.clear()


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
