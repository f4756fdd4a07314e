"""Queue and history of prompts: one line by number, one running at a time, the last 10 000 kept."""

import copy
import heapq
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from local.comfyui.events import Events

_KEPT: Final = 10_000


@dataclass(order=True)
class Prompt:
    """A graph that waits, runs, or ran."""

    number: float
    prompt_id: str
    graph: dict[str, Any] = field(compare=False)
    extra_data: dict[str, Any] = field(compare=False)
    outputs: list[str] = field(compare=False)

    @property
    def client_id(self) -> str | None:
        """Who is told of its progress."""
        client_id: str | None = self.extra_data.get("client_id")
        return client_id

    def entry(self) -> list[Any]:
        """As `/queue` and `/history` show it."""
        return [self.number, self.prompt_id, self.graph, self.extra_data, self.outputs]


class Prompts:
    """What waits, what runs and what is over; every change is told to all clients."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._changed = threading.Condition(threading.RLock())
        self._waiting: list[Prompt] = []
        self._running: Prompt | None = None
        self._running_entry: list[Any] = []
        self._history: dict[str, dict[str, Any]] = {}
        self._interrupted = threading.Event()

    def put(self, prompt: Prompt) -> None:
        """Queue a prompt: lower numbers first, then in order of arrival."""
        with self._changed:
            heapq.heappush(self._waiting, prompt)
            self._announce()
            self._changed.notify_all()

    def take(self, timeout_s: float) -> Prompt | None:
        """The next prompt, which is then the running one; None when none came in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting, timeout_s):
                return None
            self._running = heapq.heappop(self._waiting)
            # Running a graph writes into it; what is shown is the graph as it was sent.
            self._running_entry = copy.deepcopy(self._running.entry())
            self._interrupted.clear()
            self._announce()
            return self._running

    def done(self, result: dict[str, Any], *, keep: bool = True) -> None:
        """File the running prompt under history; `keep=False` forgets it."""
        with self._changed:
            entry, self._running = self._running_entry, None
            if len(self._history) > _KEPT:
                del self._history[next(iter(self._history))]
            if keep:
                self._history[entry[1]] = {"prompt": entry, **result}
            self._announce()

    def interrupt(self, prompt_id: str | None = None) -> bool:
        """Stop what runs, or only if it is this prompt; takes effect between nodes and steps."""
        with self._changed:
            running = self._running.prompt_id if self._running is not None else None
            if prompt_id is not None and running != prompt_id:
                return False
            self._interrupted.set()
            return running is not None

    def interruption(self) -> bool:
        """Whether the running prompt is to stop; reading it takes the request away."""
        if not self._interrupted.is_set():
            return False
        self._interrupted.clear()
        return True

    def cancel(self, prompt_id: str) -> bool:
        """Stop a prompt or take it out of the queue; False when it is neither there nor running."""
        with self._changed:
            return self.interrupt(prompt_id) or self.remove(prompt_id)

    def remove(self, prompt_id: str) -> bool:
        """Take a waiting prompt out of the queue."""
        return self._filter(lambda prompt: prompt.prompt_id != prompt_id)

    def clear(self) -> None:
        """Empty the queue; the running prompt goes on."""
        self._filter(lambda _: False)
        self._announce()

    def remaining(self) -> int:
        """How many prompts wait or run."""
        with self._changed:
            return len(self._waiting) + (self._running is not None)

    def status(self) -> dict[str, Any]:
        """What `GET /prompt` and the `status` message say."""
        return {"exec_info": {"queue_remaining": self.remaining()}}

    def queue(self) -> dict[str, Any]:
        """What `GET /queue` says."""
        with self._changed:
            return {
                "queue_running": [self._running_entry] if self._running is not None else [],
                "queue_pending": [prompt.entry() for prompt in self._waiting],
            }

    def history(
        self, prompt_id: str | None = None, *, max_items: int | None = None, offset: int = -1
    ) -> dict[str, Any]:
        """All of the history or a part of it, oldest first; or one prompt's."""
        with self._changed:
            if prompt_id is not None:
                found = self._history.get(prompt_id)
                return {prompt_id: found} if found is not None else {}
            names = list(self._history)
            if offset < 0:
                offset = max(0, len(names) - max_items) if max_items is not None else 0
            end = None if max_items is None else offset + max_items
            return {name: self._history[name] for name in names[offset:end]}

    def forget(self, prompt_id: str | None = None) -> None:
        """Drop one prompt from history, or all of them."""
        with self._changed:
            if prompt_id is None:
                self._history.clear()
            else:
                self._history.pop(prompt_id, None)

    def _filter(self, keep: Callable[[Prompt], bool]) -> bool:
        with self._changed:
            kept = [prompt for prompt in self._waiting if keep(prompt)]
            if len(kept) == len(self._waiting):
                return False
            heapq.heapify(kept)
            self._waiting = kept
            self._announce()
            return True

    def _announce(self) -> None:
        self._events.publish("status", {"status": self.status()})
