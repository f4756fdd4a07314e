"""What is said of one prompt while it runs, to whom, and what history keeps of it."""

from typing import Any

from local.comfyui.events import Events, timestamp_ms
from local.comfyui.prompts import Prompt

Data = dict[str, Any]


class PromptEvents:
    """Messages about one prompt, in ComfyUI's words and order.

    Most go to the client that queued the prompt, if it gave its id. Without an id, progress goes to
    everybody and the rest to nobody: that is how ComfyUI has it.
    """

    def __init__(self, events: Events, prompt: Prompt) -> None:
        self.kept: list[tuple[str, Data]] = []
        """The messages that history keeps, in order."""
        self._events = events
        self._client_id = prompt.client_id
        self._prompt_id = prompt.prompt_id
        self._nodes: dict[str, Data] = {}

    def started(self) -> None:
        """The prompt begins."""
        self._keep("execution_start", {"prompt_id": self._prompt_id})

    def cached(self, node_ids: list[str]) -> None:
        """These nodes need not run."""
        self._keep("execution_cached", {"nodes": node_ids, "prompt_id": self._prompt_id})

    def succeeded(self) -> None:
        """All outputs are there; history follows a little later."""
        self._keep("execution_success", {"prompt_id": self._prompt_id})

    def failed(self, place: Data, error: Data) -> None:
        """A node raised something."""
        self._keep("execution_error", {"prompt_id": self._prompt_id, **place, **error})

    def interrupted(self, place: Data) -> None:
        """The prompt was stopped; everybody is told."""
        data = {"prompt_id": self._prompt_id, **place}
        self._keep("execution_interrupted", data, everybody=True)

    def node_started(self, node_id: str) -> None:
        """A node begins; a client that comes back now is told of it first."""
        self._progress(node_id, 0.0, 1.0, "running")
        self._events.running(self._client_id, node_id)
        self._tell("executing", {"node": node_id, "display_node": node_id})

    def node_progressed(self, node_id: str, step: int, steps: int) -> None:
        """A node has done so many of its steps."""
        self._progress(node_id, step, steps, "running")
        data = {"value": step, "max": steps, "prompt_id": self._prompt_id, "node": node_id}
        self._events.publish("progress", data, self._client_id)

    def node_reported(self, node_id: str, output: Data | None) -> None:
        """A node's files are there, whole."""
        self._tell("executed", {"node": node_id, "display_node": node_id, "output": output})

    def node_finished(self, node_id: str) -> None:
        """A node is done, or was before."""
        maximum = self._nodes.get(node_id, {}).get("max", 1)
        self._progress(node_id, maximum, maximum, "finished")

    def ended(self) -> None:
        """No node runs any more."""
        self._events.running(None, None)

    def drop_client(self) -> None:
        """Cut the client's socket."""
        if self._client_id is not None:
            self._events.drop(self._client_id)

    def _progress(self, node_id: str, value: float, maximum: float, state: str) -> None:
        """Say how far every node that has begun has come."""
        self._nodes[node_id] = {
            "value": value,
            "max": maximum,
            "state": state,
            "node_id": node_id,
            "prompt_id": self._prompt_id,
            "display_node_id": node_id,
            "parent_node_id": None,
            "real_node_id": node_id,
        }
        data = {"prompt_id": self._prompt_id, "nodes": dict(self._nodes)}
        self._events.publish("progress_state", data, self._client_id)

    def _tell(self, kind: str, data: Data) -> None:
        if self._client_id is not None:
            self._events.publish(kind, {**data, "prompt_id": self._prompt_id}, self._client_id)

    def _keep(self, kind: str, data: Data, *, everybody: bool = False) -> None:
        stamped = {**data, "timestamp": timestamp_ms()}
        self.kept.append((kind, stamped))
        if everybody or self._client_id is not None:
            self._events.publish(kind, stamped, self._client_id)
