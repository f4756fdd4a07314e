"""ComfyUI's endpoints over connections that stay open, and its websocket with a prompt's events."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import quote

import requests
import websocket
from requests.adapters import HTTPAdapter

from worker.comfyui.events import Event, OutputFile, parse_message
from worker.errors import EngineUnavailable, ExecutionFailed

_CONNECT_TIMEOUT_S = 3.0
_READ_TIMEOUT_S = 15.0
_QUICK_TIMEOUT = (2.0, 3.0)  # of what a cancel waits for; to connect, to answer
_UPLOAD_TIMEOUT_S = 60.0
_CHUNK_BYTES = 1024 * 1024
_CONNECTIONS = 16


class EngineUnreachable(EngineUnavailable):
    """Nobody listens at ComfyUI's address, or the connection broke before an answer."""


class EngineSilent(EngineUnavailable):
    """ComfyUI does not answer in time: it hangs, or is busy as it loads a model."""


class PromptRefused(Exception):
    """The body of a 400 answer to `POST /prompt`; only for this package."""

    def __init__(self, body: object) -> None:
        super().__init__("ComfyUI refused the graph")
        self.body = body


@dataclass(frozen=True, slots=True)
class Queue:
    """Ids of the prompts that ComfyUI runs, and of those that wait."""

    running: frozenset[str]
    pending: frozenset[str]


class ComfyUIHTTP:
    """One server's endpoints; may be used from any thread.

    Every method raises `EngineUnavailable` when there is no answer, or not the agreed one.

    Args:
        base_url: `http://host:port`, without a slash at its end.
    """

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._session = requests.Session()
        # A proxy of the environment must not come between us and our own child.
        self._session.trust_env = False
        adapter = HTTPAdapter(pool_maxsize=_CONNECTIONS)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def system_stats(self) -> Mapping[str, Any]:
        """Versions, arguments, devices and memory."""
        return self._mapping(self._ask("GET", "/system_stats"))

    def object_info(self, class_name: str) -> Mapping[str, Any]:
        """Specification of a node type under its name; empty when ComfyUI has none."""
        path = f"/object_info/{quote(class_name, safe='')}"
        return self._mapping(self._ask("GET", path))

    def history(self, prompt_id: str) -> Mapping[str, Any] | None:
        """What became of a prompt; None while it is not over, or when it is not known."""
        response = self._ask("GET", f"/history/{prompt_id}", timeout=_QUICK_TIMEOUT)
        entry = self._mapping(response).get(prompt_id)
        return entry if isinstance(entry, Mapping) else None

    def queue(self) -> Queue:
        """Who is running and who waits."""
        body = self._mapping(self._ask("GET", "/queue", timeout=_QUICK_TIMEOUT))
        ids = {
            part: frozenset(str(item[1]) for item in body.get(f"queue_{part}", ()))
            for part in ("running", "pending")
        }
        return Queue(ids["running"], ids["pending"])

    def submit(self, graph: Mapping[str, Any], prompt_id: str, client_id: str) -> object:
        """Queue a graph once; returns the `node_errors` of an accepted one, empty as a rule.

        Raises:
            PromptRefused: ComfyUI answered 400.
        """
        body = {"prompt": graph, "prompt_id": prompt_id, "client_id": client_id}
        try:
            response = self._once("POST", "/prompt", json=body)
        except EngineUnreachable:
            # An idle connection that the server just closed, or a lost answer: look, then repeat.
            if self.knows(prompt_id):
                return {}
            response = self._once("POST", "/prompt", json=body)
        if response.status_code == requests.codes.bad_request:
            raise PromptRefused(self._json(response))
        return self._mapping(self._checked(response)).get("node_errors")

    def knows(self, prompt_id: str) -> bool:
        """Whether the prompt runs, waits or is over."""
        queue = self.queue()
        return prompt_id in queue.running | queue.pending or self.history(prompt_id) is not None

    def dequeue(self, prompt_id: str) -> None:
        """Remove a waiting prompt; nothing happens when it does not wait."""
        self._ask("POST", "/queue", json={"delete": [prompt_id]}, timeout=_QUICK_TIMEOUT)

    def interrupt(self, prompt_id: str) -> None:
        """Ask for the end of a running prompt, between two nodes or steps."""
        self._ask("POST", "/interrupt", json={"prompt_id": prompt_id}, timeout=_QUICK_TIMEOUT)

    def free(self, *, unload_models: bool, free_memory: bool) -> None:
        """Have models and caches given up once the queue gets to it."""
        body = {"unload_models": unload_models, "free_memory": free_memory}
        self._ask("POST", "/free", json=body)

    def upload(self, data: IO[bytes], name: str) -> str:
        """Put a file into ComfyUI's input folder; returns the name that nodes know it by."""
        response = self._ask(
            "POST",
            "/upload/image",
            files={"image": (name, data)},
            data={"overwrite": "true"},
            timeout=(_CONNECT_TIMEOUT_S, _UPLOAD_TIMEOUT_S),
        )
        body = self._mapping(response)
        return "/".join(filter(None, (body.get("subfolder"), str(body.get("name")))))

    @contextmanager
    def view(self, file: OutputFile) -> Iterator[Iterator[bytes]]:
        """The bytes of an output, in pieces.

        Raises:
            ExecutionFailed: ComfyUI does not have the file.
        """
        query = {"filename": file.filename, "subfolder": file.subfolder, "type": file.folder_type}
        with self._once("GET", "/view", params=query, stream=True) as response:
            if response.status_code in {400, 403, 404}:
                raise missing_output(file)
            self._checked(response)
            yield _pieces(response)

    def _ask(self, method: str, path: str, **options: Any) -> requests.Response:
        """The answer to what may be asked twice."""
        try:
            return self._checked(self._once(method, path, **options))
        except EngineUnreachable:
            if "files" in options:  # half read already
                raise
            return self._checked(self._once(method, path, **options))

    def _once(self, method: str, path: str, **options: Any) -> requests.Response:
        options.setdefault("timeout", (_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S))
        try:
            return self._session.request(
                method, self._base_url + path, allow_redirects=False, **options
            )
        except requests.Timeout as error:
            raise EngineSilent("ComfyUI does not answer in time.") from error
        except requests.ConnectionError as error:
            raise EngineUnreachable("ComfyUI cannot be reached.") from error
        except requests.RequestException as error:
            raise EngineUnavailable("ComfyUI could not be asked.") from error

    @staticmethod
    def _checked(response: requests.Response) -> requests.Response:
        if response.status_code != requests.codes.ok:
            raise EngineUnavailable(
                f"ComfyUI answered with HTTP status {response.status_code}.",
                details={"status": response.status_code},
            )
        return response

    @staticmethod
    def _json(response: requests.Response) -> object:
        try:
            return response.json()
        except requests.JSONDecodeError as error:
            raise EngineUnavailable("ComfyUI's answer is not JSON.") from error

    def _mapping(self, response: requests.Response) -> Mapping[str, Any]:
        body = self._json(response)
        if not isinstance(body, Mapping):
            raise EngineUnavailable("ComfyUI's answer is not what it should be.")
        return body


def _pieces(response: requests.Response) -> Iterator[bytes]:
    try:
        yield from response.iter_content(_CHUNK_BYTES)
    except requests.RequestException as error:
        raise EngineUnreachable("ComfyUI broke off in the middle of a file.") from error


_CONNECT_TIMEOUT_S = 5.0


def missing_output(file: OutputFile) -> ExecutionFailed:
    """The error for a file that was reported and cannot be read."""
    return ExecutionFailed(
        f"Node {file.node} reported an output file that is not there.",
        details={"node": file.node, "filename": file.filename},
    )


class StreamLost(Exception):
    """The socket is gone; what happened since has to be asked for. Only for this package."""


class EventStream:
    """One socket with one client id; opened again under the same id, events come again.

    Args:
        base_url: `http://host:port`.
        client_id: whose prompts' events come.
        prompt_id: the one prompt that is listened for.
    """

    def __init__(self, base_url: str, client_id: str, prompt_id: str) -> None:
        self._url = f"ws{base_url.rstrip('/').removeprefix('http')}/ws?clientId={client_id}"
        self._prompt_id = prompt_id
        self._socket: websocket.WebSocket | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a socket that is not known to be lost."""
        return self._socket is not None

    def open(self) -> None:
        """Connect.

        Raises:
            StreamLost: nobody answers.
        """
        self.close()
        try:
            self._socket = websocket.create_connection(
                self._url,
                timeout=_CONNECT_TIMEOUT_S,
                # The library takes the environment's proxy unless it is told of another one, and
                # that it is for no host.
                http_proxy_host="none",
                http_no_proxy=["*"],
            )
        except (OSError, websocket.WebSocketException) as error:
            raise StreamLost from error

    def next(self, timeout_s: float) -> Event | None:
        """The next event of the prompt, or None when there is none in time.

        Raises:
            StreamLost: the connection ended.
        """
        end = time.monotonic() + timeout_s
        while (remaining := end - time.monotonic()) > 0:
            text = self._receive(remaining)
            event = parse_message(text, self._prompt_id) if text else None
            if event is not None:
                return event
        return None

    def close(self) -> None:
        """Drop the connection; nothing to do when there is none."""
        if self._socket is not None:
            with contextlib.suppress(OSError, websocket.WebSocketException):
                # No closing handshake: the server's answer is not worth a wait.
                self._socket.shutdown()  # type: ignore[no-untyped-call] # the library's gap
            self._socket = None

    def _receive(self, timeout_s: float) -> str | None:
        """A text frame's content; None for other frames and when none comes in time."""
        if self._socket is None:
            raise StreamLost
        try:
            self._socket.settimeout(timeout_s)
            opcode, data = self._socket.recv_data()
        except websocket.WebSocketTimeoutException:
            return None
        except (OSError, websocket.WebSocketException) as error:
            self.close()
            raise StreamLost from error
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            self.close()
            raise StreamLost
        return data.decode(errors="replace") if opcode == websocket.ABNF.OPCODE_TEXT else None
