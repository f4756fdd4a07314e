"""What ComfyUI says about a prompt, and what is known of the prompt from it.

An event is the same whether the socket or the history says it, and `PromptRecord` takes either.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Started:
    """The prompt left the queue; `at_ms` is the server's clock, None when it did not say."""

    at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Cached:
    """These nodes are not run again: their results are known."""

    nodes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Executing:
    """A node began."""

    node: str


@dataclass(frozen=True, slots=True)
class Stepped:
    """A node came `step` of `steps` far."""

    node: str
    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class Executed:
    """A node ended and reports outputs; `node` is the graph's node, `unique` what really ran."""

    unique: str
    node: str
    output: object


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The prompt ran to its end."""

    at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """A node raised; its words as they are, not fit for a customer."""

    node: str
    node_type: str
    exception_type: str
    message: str

    @property
    def ends_prompt(self) -> bool:
        """Whether the prompt is over; a blocked branch leaves the others running."""
        return self.exception_type != "ExecutionBlocked"


@dataclass(frozen=True, slots=True)
class Interrupted:
    """Somebody asked for the end of the prompt."""

    node: str
    node_type: str


Ending = Succeeded | Failed | Interrupted
Event = Started | Cached | Executing | Stepped | Executed | Ending


def parse_message(text: str, prompt_id: str) -> Event | None:
    """The event in a text frame; None when it is of no use, or about another prompt."""
    try:
        message = json.loads(text)
    except ValueError:
        return None
    if not isinstance(message, dict) or not isinstance(message.get("data"), dict):
        return None
    if message["data"].get("prompt_id") != prompt_id:
        return None
    return _event(str(message.get("type")), message["data"])


def parse_history(entry: Mapping[str, Any]) -> Iterator[Event]:
    """The events of a prompt that is over, its outputs before its ending."""
    status = entry.get("status") or {}
    events = [_event(str(kind), data) for kind, data in status.get("messages", ())]
    for event in events:
        if isinstance(event, Started | Cached):
            yield event
    meta = entry.get("meta") or {}
    for unique, output in (entry.get("outputs") or {}).items():
        yield Executed(unique, str((meta.get(unique) or {}).get("display_node", unique)), output)
    endings = [event for event in events if isinstance(event, Ending)]
    # Any failure decides: a blocked branch fails the job though the prompt ran to its end.
    failed = [event for event in endings if isinstance(event, Failed)]
    yield (failed or endings or [_silent_ending(status)])[-1]


def _silent_ending(status: Mapping[str, Any]) -> Ending:
    if status.get("completed"):
        return Succeeded()
    return Failed("", "", "", "ComfyUI does not say why")


def _event(kind: str, data: Mapping[str, Any]) -> Event | None:
    match kind:
        case "execution_start":
            return Started(_timestamp(data))
        case "execution_cached":
            return Cached(frozenset(map(str, data.get("nodes") or ())))
        case "executing" if data.get("node") is not None:
            return Executing(_display(data))
        case "progress" if data.get("node") is not None:
            return Stepped(str(data["node"]), int(data.get("value", 0)), int(data.get("max", 0)))
        case "executed":
            return Executed(str(data.get("node")), _display(data), data.get("output"))
        case _:
            return _ending(kind, data)


def _ending(kind: str, data: Mapping[str, Any]) -> Ending | None:
    node, node_type = str(data.get("node_id", "")), str(data.get("node_type", ""))
    match kind:
        case "execution_success":
            return Succeeded(_timestamp(data))
        case "execution_error":
            error, message = data.get("exception_type"), data.get("exception_message")
            return Failed(node, node_type, str(error or ""), str(message or ""))
        case "execution_interrupted":
            return Interrupted(node, node_type)
        case _:
            return None


def _display(data: Mapping[str, Any]) -> str:
    return str(data.get("display_node") or data.get("node"))


def _timestamp(data: Mapping[str, Any]) -> int | None:
    value = data.get("timestamp")
    return value if isinstance(value, int) else None


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One file as its node reports it.

    Attributes:
        node: id of the graph's node that wrote it.
        kind: the key it was reported under: `images` for SaveImage, SaveVideo and SaveWEBM, `gifs`
            for VideoHelperSuite, `audio`, `3d` and others.
        filename: name without folders.
        subfolder: folders below ComfyUI's folder of that type; empty for none.
        folder_type: "output", "temp" or "input".
        animated: whether the node says that it moves, though it is among the `images`.
    """

    node: str
    kind: str
    filename: str
    subfolder: str = ""
    folder_type: str = "output"
    animated: bool = False


def parse_outputs(node: str, output: object) -> tuple[OutputFile, ...]:
    """The files in what a node reports (`executed.output`, or its part of a history entry)."""
    if not isinstance(output, Mapping):
        return ()
    animated = output.get("animated")
    moves = isinstance(animated, list) and any(animated)
    return tuple(
        OutputFile(
            node=node,
            kind=kind,
            filename=item["filename"],
            subfolder=item.get("subfolder") or "",
            folder_type=item.get("type") or "output",
            animated=moves and kind == "images",
        )
        for kind, items in output.items()
        for item in _items(items)
        if isinstance(item.get("filename"), str) and item["filename"]
    )


def _items(value: object) -> list[Mapping[str, str]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


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
