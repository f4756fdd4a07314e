"""`progress_state`: after each change, the state of every node that has begun."""

from typing import Any

from local.comfyui.events import Events
from local.comfyui.prompts import Prompt


class Progress:
    """The nodes of one prompt that have begun, told to its client at each change."""

    def __init__(self, events: Events, prompt: Prompt) -> None:
        self._events = events
        self._prompt = prompt
        self._nodes: dict[str, dict[str, Any]] = {}

    def start(self, node_id: str) -> None:
        """A node begins."""
        self._change(node_id, 0.0, 1.0, "running")

    def update(self, node_id: str, value: float, maximum: float) -> None:
        """A node has come so far."""
        self._change(node_id, value, maximum, "running")

    def finish(self, node_id: str) -> None:
        """A node is done; one that never began was kept from an earlier prompt."""
        maximum = self._nodes.get(node_id, {}).get("max", 1)
        self._change(node_id, maximum, maximum, "finished")

    def _change(self, node_id: str, value: float, maximum: float, state: str) -> None:
        prompt_id = self._prompt.prompt_id
        self._nodes[node_id] = {
            "value": value,
            "max": maximum,
            "state": state,
            "node_id": node_id,
            "prompt_id": prompt_id,
            "display_node_id": node_id,
            "parent_node_id": None,
            "real_node_id": node_id,
        }
        data = {"prompt_id": prompt_id, "nodes": dict(self._nodes)}
        self._events.publish("progress_state", data, self._prompt.client_id)
