"""Talking to a server as a client does, and making two conversations comparable.

What may differ between two runs is replaced by a word: ids, times, counters in file names, the text
of tracebacks, and the order of what ComfyUI keeps in sets.
"""

import contextlib
import copy
import json
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import websocket

from tests.conformance.servers import CHECKPOINTS, Server

TRANSCRIPTS = Path(__file__).with_name("transcripts")
_LISTED = ("checkpoints", "loras")  # models whose names are in refusals
_TIMEOUT_S = 300.0

Graph = dict[str, dict[str, Any]]
Message = dict[str, Any]


@dataclass
class Conversation:
    """A prompt, what was said of it until it was over, and its place in history."""

    status: int
    response: Any
    messages: list[Message] = field(default_factory=list)
    history: Any = None

    def of(self, kind: str) -> list[Message]:
        """The data of all messages of a type."""
        return [message["data"] for message in self.messages if message["type"] == kind]

    def types(self, *but: str) -> list[str]:
        """The types of all messages, in order, but those named."""
        return [message["type"] for message in self.messages if message["type"] not in but]

    @property
    def outputs(self) -> dict[str, Any]:
        """What history keeps of the outputs."""
        outputs: dict[str, Any] = self.history["outputs"]
        return outputs


class Socket:
    """A client's socket; every message it got is in `messages`."""

    def __init__(self, server: Server, client_id: str) -> None:
        url = f"ws://{server.address}/ws" + (f"?clientId={client_id}" if client_id else "")
        self.client_id = client_id
        self._socket = websocket.create_connection(url, timeout=_TIMEOUT_S)
        self.messages: list[Message] = []
        self.receive()

    def receive(self) -> Message:
        """The next message; previews are passed over.

        Raises:
            websocket.WebSocketException, OSError: the connection is gone.
        """
        while True:
            frame = self._socket.recv()
            if isinstance(frame, str):
                break
        if not frame:
            raise ConnectionError("the socket was closed")
        self.messages.append(json.loads(frame))
        return self.messages[-1]

    def wait_for(self, kind: str) -> Message:
        """The next message of a type."""
        while True:
            message = self.receive()
            if message["type"] == kind:
                return message

    def send(self, message: Message) -> None:
        self._socket.send(json.dumps(message))

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def connected(server: Server, client_id: str | None = None) -> Iterator[Socket]:
    """A socket that has had its greeting; with a new client id when none is given, none when ""."""
    socket = Socket(server, uuid.uuid4().hex if client_id is None else client_id)
    try:
        yield socket
    finally:
        socket.close()


def converse(
    server: Server, graph: Graph, *, act: Callable[[Message], None] | None = None, **body: Any
) -> Conversation:
    """Queue a graph and listen until it is over.

    Args:
        server: where.
        graph: what.
        act: called with each message as it comes.
        body: more of the request, such as `prompt_id`.
    """
    with connected(server) as socket:
        request = {"prompt": graph, "client_id": socket.client_id, **body}
        answer = server.post("/prompt", request)
        talk = Conversation(answer.status_code, answer.json(), socket.messages)
        if answer.ok:
            _listen(socket, act)
            prompt_id = talk.response["prompt_id"]
            talk.history = server.get(f"/history/{prompt_id}").json().get(prompt_id)
        return talk


def transcript(name: str) -> list[dict[str, Any]]:
    """What was recorded, one entry per exchange."""
    lines = (TRANSCRIPTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def recorded(name: str) -> tuple[Graph, Conversation]:
    """The graph of a transcript, and the conversation about it."""
    entries = transcript(name)
    request = entries[0]["request"]
    talk = Conversation(entries[0]["status"], entries[0]["response"])
    talk.messages = [entry["ws"] for entry in entries if "ws" in entry]
    for entry in entries:
        if entry.get("http", "").startswith("GET /history"):
            talk.history = entry["response"][1][talk.response["prompt_id"]]
    return copy.deepcopy(request["prompt"]), talk


def plain(value: Any, server: Server | None = None) -> Any:
    """A value with all that may differ between two runs replaced.

    Args:
        value: a message, body or entry of history.
        server: whose model files are in it; None for what was recorded.
    """
    names = {"<checkpoints>": list(CHECKPOINTS), "<loras>": []}
    if server is not None:
        names = {f"<{kind}>": server.get(f"/models/{kind}").json() for kind in _LISTED}
    return _plain(value, names)


def _plain(value: Any, names: dict[str, list[str]]) -> Any:
    if isinstance(value, dict):
        return {key: _plain_field(key, item, names) for key, item in value.items()}
    if isinstance(value, list | tuple):
        words = [word for word, listed in names.items() if listed and listed == value]
        return words or [_plain(item, names) for item in value]
    if not isinstance(value, str):
        return value
    for word, listed in names.items():
        value = value.replace(f"not in {listed}", f"not in {word}")
    value = re.sub(r"^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$|^[0-9a-f]{32}$", "<id>", value)
    return re.sub(r"_\d{5}_", "_<n>_", value)


def _plain_field(key: str, value: Any, names: dict[str, list[str]]) -> Any:
    if key in ("timestamp", "create_time", "number", "color"):
        return f"<{key}>"
    if key == "traceback":
        return ["<traceback>"] if value else []
    if key == "prompt" and isinstance(value, list):  # an entry of history: number, id, graph, …
        value = ["<number>", *value[1:]]
    if key == "input_config" and value and value[0] in names.values():
        word = next(word for word, listed in names.items() if listed == value[0])
        value = [[word], *value[1:]]
    if key in ("executed", "current_outputs", "dependent_outputs"):
        return sorted(value)
    if key == "errors":
        return sorted(_plain(value, names), key=lambda error: json.dumps(error, sort_keys=True))
    if key == "details" and isinstance(value, str):
        return sorted(_plain(line, names) for line in value.split("\n"))
    return _plain(value, names)


def _listen(socket: Socket, act: Callable[[Message], None] | None) -> None:
    while True:
        message = socket.receive()
        if act is not None:
            act(message)
        if message["type"] == "executing" and message["data"].get("node") is None:
            return
