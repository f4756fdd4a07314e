"""The ComfyUI that a worker uses: its own child, or a server that somebody else started."""

import socket
from pathlib import Path
from typing import Protocol, Self
from urllib.parse import urlsplit

from worker.cancel import CancelToken, Deadline
from worker.comfyui.console import LoraLog
from worker.comfyui.http import ComfyUIHTTP
from worker.errors import EngineUnavailable

_POLL_S = 0.1
_CONNECT_TIMEOUT_S = 2.0


class Engine(Protocol):
    """Started, watched and restarted alike, whoever owns the process."""

    @property
    def url(self) -> str:
        """`http://host:port`; the same for as long as the engine exists."""

    @property
    def output_directory(self) -> Path | None:
        """Where its outputs lie on our disk; None when that is another machine's."""

    @property
    def input_directory(self) -> Path | None:
        """Where it looks for inputs; None likewise."""

    @property
    def alive(self) -> bool:
        """Whether its process is there; cheap, and says nothing about readiness."""

    @property
    def ready(self) -> bool:
        """Whether it has answered in this life, lives, and nobody found it unusable since."""

    @property
    def generation(self) -> int:
        """Counts its starts: what was queued in an earlier one is lost."""

    @property
    def lora_log(self) -> LoraLog:
        """What its console says of LoRAs that were not applied; empty where we cannot read it."""

    def start(self) -> None:
        """Begin to start it; returns at once."""

    def wait_ready(self, cancel: CancelToken | None = None) -> None:
        """Ready or raised (`EngineUnavailable`); returns at once when it is ready already."""

    def ensure_ready(self, cancel: CancelToken | None = None) -> None:
        """As `wait_ready`, but one that is dead, dies starting or hangs is started again."""

    def replace(self, generation: int) -> None:
        """Begin to end a life that is of no use, and to start another; returns at once.

        `ready` is False from now on, and `ensure_ready` waits for the new life. A generation that
        has been replaced already is left alone.
        """

    def restart(self, generation: int | None = None, cancel: CancelToken | None = None) -> None:
        """End it, start it again and wait until it is ready.

        Args:
            generation: the one that the caller found unusable; when another caller has
                restarted it since, only the wait is left. None restarts in any case.
            cancel: ends the wait.
        """

    def stop(self) -> None:
        """End it, if it is ours to end."""

    def __enter__(self) -> Self:
        """Start it, if that has not been done."""

    def __exit__(self, *exc: object) -> None:
        """Stop it."""


class ExternalComfyUI:
    """A server that somebody else runs (`COMFYUI_URL`): used, never started or stopped.

    Args:
        url: `http://host:port`.
        start_timeout_s: how long it may take to answer.
    """

    generation = 1
    output_directory = None
    input_directory = None

    def __init__(self, url: str, *, start_timeout_s: float = 60.0) -> None:
        self.url = url.rstrip("/")
        self._start_timeout_s = start_timeout_s
        self._ready = False
        self.lora_log = LoraLog()

    @property
    def alive(self) -> bool:
        """Whether somebody listens there."""
        return listens(self.url)

    def start(self) -> None:
        """Nothing to do: it runs, or it does not."""

    @property
    def ready(self) -> bool:
        """Whether it has answered and still listens."""
        return self._ready and self.alive

    def wait_ready(self, cancel: CancelToken | None = None) -> None:
        """Wait until it answers.

        Raises:
            EngineUnavailable: it does not, or what answers is not ComfyUI.
        """
        if self.ready:
            return
        self._ready = False
        token = cancel or CancelToken()
        deadline = Deadline(self._start_timeout_s)
        http = ComfyUIHTTP(self.url)
        try:
            while not self._answers(http, deadline):
                token.sleep(_POLL_S)
        finally:
            http.close()
        self._ready = True

    def ensure_ready(self, cancel: CancelToken | None = None) -> None:
        """The same as `wait_ready`: it is not ours to start."""
        self.wait_ready(cancel)

    def replace(self, generation: int) -> None:  # noqa: ARG002 - Engine's signature
        """Have the next `ensure_ready` wait until it answers: it is not ours to restart."""
        self._ready = False

    def restart(
        self,
        generation: int | None = None,  # noqa: ARG002 - Engine's signature
        cancel: CancelToken | None = None,  # noqa: ARG002 - Engine's signature
    ) -> None:
        """Always raises `EngineUnavailable`: it is not ours to restart."""
        raise EngineUnavailable("ComfyUI has to be restarted by whoever runs it (COMFYUI_URL).")

    def stop(self) -> None:
        """Nothing to do: it goes on for others."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _answers(self, http: ComfyUIHTTP, deadline: Deadline) -> bool:
        try:
            stats = http.system_stats()
        except EngineUnavailable:
            if deadline.passed:
                raise
            return False
        if "comfyui_version" not in stats.get("system", {}):
            raise EngineUnavailable("What answers at COMFYUI_URL is not ComfyUI.")
        return True


def listens(url: str) -> bool:
    """Whether somebody takes connections there: a tenth of a millisecond on this machine."""
    address = urlsplit(url)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), _CONNECT_TIMEOUT_S).close()
    except OSError:
        return False
    return True
