"""The order in which a graph's nodes run: what an output needs, visible results first."""

from collections.abc import Callable

from local.comfyui.cache import is_link
from local.comfyui.validation import Graph


class Schedule:
    """Nodes still to run. Nodes whose results are kept are left out, with all that only they need.

    Of the nodes that are ready, an output goes first, then one that feeds an output, then one that
    feeds a feeder; else the one found first. That is ComfyUI's order, so events come as from it.
    """

    def __init__(
        self,
        graph: Graph,
        outputs: list[str],
        *,
        is_output: Callable[[str], bool],
        is_cached: Callable[[str], bool],
    ) -> None:
        self._graph = graph
        self._is_cached = is_cached
        self._is_output_class = is_output
        self._needs: dict[str, set[str]] = {}
        self._feeds: dict[str, dict[str, None]] = {}
        for output in outputs:
            self._add(output)

    def __bool__(self) -> bool:
        return bool(self._needs)

    def next(self) -> str:
        """The node to run now."""
        ready = [node_id for node_id, needs in self._needs.items() if not needs]
        for wanted in (self._is_output, self._feeds_output, self._feeds_feeder):
            for node_id in ready:
                if wanted(node_id):
                    return node_id
        return ready[0]

    def done(self, node_id: str) -> None:
        """A node has its result: what it feeds may be ready now."""
        del self._needs[node_id]
        for fed in self._feeds.pop(node_id):
            self._needs[fed].discard(node_id)

    def _is_output(self, node_id: str) -> bool:
        return self._is_output_class(self._graph[node_id]["class_type"])

    def _feeds_output(self, node_id: str) -> bool:
        return any(self._is_output(fed) for fed in self._feeds[node_id])

    def _feeds_feeder(self, node_id: str) -> bool:
        return any(self._feeds_output(fed) for fed in self._feeds[node_id])

    def _add(self, output: str) -> None:
        found = [output]
        links: list[tuple[str, str]] = []
        while found:
            node_id = found.pop()
            if node_id in self._needs:
                continue
            self._needs[node_id] = set()
            self._feeds[node_id] = {}
            for value in self._graph[node_id]["inputs"].values():
                if is_link(value) and not self._is_cached(value[0]):
                    found.append(value[0])
                    links.append((value[0], node_id))
        for source, target in links:
            self._feeds[source][target] = None
            self._needs[target].add(source)
