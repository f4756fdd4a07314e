"""What is known about one prompt, gathered from its events, whoever tells them."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from worker.comfyui.events import (
    Cached,
    Ending,
    Event,
    Executed,
    Executing,
    Failed,
    Interrupted,
    Started,
    Stepped,
    Succeeded,
)
from worker.comfyui.outputs import OutputFile, parse_outputs

Graph = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Step:
    """How far a node came.

    Attributes:
        node: id of the node in the graph.
        node_type: its class; empty for a node that another one made while running.
        step: sampling steps done; 0 when the node has just begun.
        steps: sampling steps in all; 0 while the node has named none.
    """

    node: str
    node_type: str
    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class Execution:
    """A prompt that ran to its end.

    Attributes:
        prompt_id: its id in ComfyUI's history.
        files: the files that each node reported.
        queued_ms: from its submission to its start.
        executed_ms: from its start to its end, by ComfyUI's clock.
        cached: whether every reporting node was answered from ComfyUI's cache, which writes no
            file again: one that was deleted since is gone.
    """

    prompt_id: str
    files: Mapping[str, tuple[OutputFile, ...]]
    queued_ms: float
    executed_ms: float
    cached: bool


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who is told what happens, in the thread that waits for the prompt."""

    on_step: Callable[[Step], None]
    on_files: Callable[[str, tuple[OutputFile, ...]], None]
    on_start: Callable[[], None] | None = None


@dataclass(slots=True)
class PromptRecord:
    """Events in, state out; telling the same event twice changes nothing."""

    graph: Graph
    listeners: Listeners
    submitted_at: float = field(default_factory=time.monotonic)
    started_at: float | None = None
    ended_at: float = 0.0
    ending: Ending | None = None
    files: dict[str, tuple[OutputFile, ...]] = field(default_factory=dict)
    _start_ms: int | None = None
    _cached: frozenset[str] = frozenset()
    _reported: set[str] = field(default_factory=set)

    def apply(self, event: Event) -> None:
        """Take note of an event and tell the listeners."""
        match event:
            case Started():
                self._start(event.at_ms)
            case Cached():
                self._cached = event.nodes
            case Executing(node):
                self._step(node, 0, 0)
            case Stepped(node, step, steps):
                self._step(node, step, steps)
            case Executed():
                self._report(event)
            case Succeeded() | Failed() | Interrupted():
                self._end(event)

    @property
    def complete(self) -> bool:
        """Whether every node has reported that nobody else's input depends on.

        A few of those report nothing even when all is well (SaveLoRA): history decides then.
        """
        linked = {
            str(value[0])
            for node in self.graph.values()
            for value in node.get("inputs", {}).values()
            if isinstance(value, list) and value
        }
        return self.graph.keys() - linked <= self._reported

    def execution(self, prompt_id: str) -> Execution:
        """The prompt as a whole, once it has succeeded."""
        total_ms = (self.ended_at - self.submitted_at) * 1000
        start, end = self._start_ms, getattr(self.ending, "at_ms", None)
        if start is not None and end is not None:
            executed_ms = min(total_ms, max(0.0, end - start))
        else:
            executed_ms = (self.ended_at - (self.started_at or self.submitted_at)) * 1000
        return Execution(
            prompt_id=prompt_id,
            files=dict(self.files),
            queued_ms=total_ms - executed_ms,
            executed_ms=executed_ms,
            cached=bool(self._reported) and self._reported <= self._cached,
        )

    def _start(self, at_ms: int | None) -> None:
        self._start_ms = self._start_ms or at_ms
        if self.started_at is None:
            self.started_at = time.monotonic()
            if self.listeners.on_start is not None:
                self.listeners.on_start()

    def _step(self, node: str, step: int, steps: int) -> None:
        node_type = str(self.graph.get(node, {}).get("class_type", ""))
        self.listeners.on_step(Step(node, node_type, step, steps))

    def _report(self, event: Executed) -> None:
        if event.unique in self._reported:
            return
        self._reported.add(event.unique)
        if files := parse_outputs(event.node, event.output):
            self.files[event.node] = self.files.get(event.node, ()) + files
            self.listeners.on_files(event.node, files)

    def _end(self, event: Ending) -> None:
        if self.ending is None or isinstance(self.ending, Succeeded):
            # A blocked branch is followed by a success that must not hide it.
            self.ending = event
            self.ended_at = self.ended_at or time.monotonic()
