"""ComfyUI's websocket: the events of one prompt, as they happen."""

import contextlib
import time

import websocket

from worker.comfyui.events import Event, parse_message

_CONNECT_TIMEOUT_S = 5.0


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
