"""What ComfyUI says about a prompt, the same whether its socket or its history says it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
