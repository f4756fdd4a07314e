"""ComfyUI as a supervised child process: started, watched, restarted, ended."""

import logging
import re
import secrets
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from worker.cancel import CancelToken
from worker.child import ChildNotStopped, ChildProcess, ChildStartFailed
from worker.comfyui.console import LoraLog, OutputLog
from worker.comfyui.engine import listens
from worker.comfyui.failures import plain
from worker.comfyui.http import ComfyUIHTTP
from worker.comfyui.options import ComfyUIOptions
from worker.errors import EngineUnavailable
from worker.logs import LineSplitter

__all__ = ["ComfyUIOptions", "ComfyUIProcess"]

log = logging.getLogger(__name__)

_POLL_S = 0.05
_LAST_LINES = 12
_LAST_WORDS_S = 5.0  # its output is read to the end within this
_STARTS = 3  # tries of `ensure_ready`
_MAX_BACKOFF_S = 30.0
_REASON = re.compile(r"^[\w.]*(Error|Exception|Interrupt)\b.*\S|\berror: \S")


class WrongEngine(EngineUnavailable):
    """What answers is not the ComfyUI that was started, or not the version that is expected."""


class ComfyUIProcess:
    """ComfyUI as our child; every method may be called from any thread.

    Args:
        options: how it is started.
    """

    def __init__(self, options: ComfyUIOptions) -> None:
        self._options = options
        self._port = options.port or _free_port(options.host)
        # Names the model folders' file, which the server repeats in /system_stats: that is how
        # our child is told from a stranger at the same port.
        folder = options.temp_directory
        self._model_folders = folder / f"model-folders-{secrets.token_hex(8)}.json"
        self._lock = threading.Lock()  # over starting and stopping
        self._child: ChildProcess | None = None
        self._generation = 0
        self._ready_generation = 0
        self._unusable_generation = 0
        self._started_at = 0.0
        self._failed_starts = 0
        self._stopping = threading.Event()
        self.lora_log = LoraLog()

    @property
    def url(self) -> str:
        """`http://host:port`, the same for every start."""
        return f"http://{self._options.host}:{self._port}"

    @property
    def output_directory(self) -> Path:
        """Where it writes outputs."""
        return self._options.output_directory

    @property
    def input_directory(self) -> Path:
        """Where it looks for inputs."""
        return self._options.input_directory

    @property
    def alive(self) -> bool:
        """Whether the process is there; it may not be ready yet."""
        return self._child is not None and self._child.alive

    @property
    def ready(self) -> bool:
        """Whether it has answered in this life, lives, and nobody found it unusable since."""
        current = self._generation
        return self.alive and self._unusable_generation != current == self._ready_generation

    @property
    def generation(self) -> int:
        """Counts the starts."""
        return self._generation

    @property
    def pid(self) -> int | None:
        """Id of the process and its group; None before the start."""
        return None if self._child is None else self._child.pid

    def start(self) -> None:
        """Spawn it and return at once; nothing to do when it is started already.

        Raises:
            EngineUnavailable: the program cannot be started.
        """
        with self._lock:
            if self._child is None:
                self._spawn()

    def wait_ready(self, cancel: CancelToken | None = None) -> None:
        """Wait until it answers; returns at once when it has answered before and lives.

        Raises:
            EngineUnavailable: it is not started, ended (`details`: exit code, last lines), took
                too long, has another version, or a stranger answers at its port.
            Cancelled: by the token.
        """
        http = ComfyUIHTTP(self.url)
        try:
            while not self._is_ready(http):
                if cancel is not None:
                    cancel.check()
                if time.monotonic() - self._started_at > self._options.start_timeout_s:
                    raise self._failure("did not become ready in time")
        finally:
            http.close()

    def ensure_ready(self, cancel: CancelToken | None = None) -> None:
        """Wait until it is ready; start it again when it is dead, dies while starting, or hangs.

        Raises:
            EngineUnavailable: three starts in a row failed, or `stop` was called.
        """
        if self.ready:
            return None
        for _ in range(_STARTS - 1):
            seen = self._generation
            try:
                if self._unusable_generation == seen:
                    self._renew(seen, cancel)
                return self.wait_ready(cancel)
            except EngineUnavailable:
                if self.alive or self._stopping.is_set():
                    raise
                self._renew(seen, cancel)
        return self.wait_ready(cancel)

    def replace(self, generation: int) -> None:
        """Begin to kill a life that is of no use, and to start another; returns at once."""
        if generation != self._generation or self._stopping.is_set():
            return
        self._unusable_generation = generation

        def renew() -> None:
            try:
                self._renew(generation, None)
            except EngineUnavailable as error:  # whoever needs it next tries again, and is told
                log.warning("ComfyUI was not replaced", extra={"reason": str(error)})

        threading.Thread(target=renew, name="replace ComfyUI", daemon=True).start()

    def restart(self, generation: int | None = None, cancel: CancelToken | None = None) -> None:
        """End it, start it again after a pause that grows with failed starts, and wait for it.

        Args:
            generation: the one that the caller found unusable; when another caller has
                restarted it since, only the wait is left. None restarts in any case.
            cancel: ends the wait.
        """
        self._renew(self._generation if generation is None else generation, cancel)
        self.wait_ready(cancel)

    def stop(self) -> None:
        """End it for good, with all that it started; nothing to do when it has ended."""
        self._stopping.set()
        with self._lock:
            if self._child is not None:
                self._child.stop()
            self._model_folders.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _renew(self, generation: int, cancel: CancelToken | None) -> None:
        with self._lock:
            if self._generation != generation:
                return
            self._end()
            pause_s = self._backoff_s()
            log.warning("restarting ComfyUI", extra={"generation": generation, "pause_s": pause_s})
            self._pause(pause_s, cancel)
            self._spawn()

    def _end(self) -> None:
        """Kill what is dead or hung: there is nothing that SIGTERM could have it save."""
        try:
            if self._child is not None:
                self._child.kill()
        except ChildNotStopped as error:
            raise EngineUnavailable(str(error), details=error.details) from error

    def _pause(self, seconds: float, cancel: CancelToken | None) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self._stopping.wait(_POLL_S):
            if cancel is not None:
                cancel.check()

    def _backoff_s(self) -> float:
        """0 after a life that became ready, else 0, 1, 2, 4 … 30 s as failed starts add up."""
        was_ready = self._ready_generation == self._generation
        self._failed_starts = 0 if was_ready else self._failed_starts + 1
        if self._failed_starts <= 1:
            return 0.0
        return float(min(_MAX_BACKOFF_S, 2.0 ** (self._failed_starts - 2)))

    def _spawn(self) -> None:
        if self._stopping.is_set():
            raise EngineUnavailable("ComfyUI was stopped with its worker.")
        options = self._options
        options.make_folders()
        self._model_folders.write_text(options.model_folders_yaml(), encoding="utf-8")
        child = ChildProcess(
            options.argv(self._port, self._model_folders),
            name="ComfyUI",
            cwd=options.directory,
            env=options.environment,
            on_output=OutputLog(self.lora_log),
            stop_timeout_s=options.stop_timeout_s,
        )
        try:
            child.start()
        except ChildStartFailed as error:
            raise EngineUnavailable(str(error), details=error.details) from error
        self._child = child
        self._generation += 1
        self._started_at = time.monotonic()

    def _is_ready(self, http: ComfyUIHTTP) -> bool:
        """One look, and a pause that ends early when the process does."""
        child, generation = self._child, self._generation
        if child is None:
            raise EngineUnavailable("ComfyUI is not started.")
        if not child.alive:
            child.wait(_LAST_WORDS_S)
            if generation == self._generation:
                raise self._failure("ended")
        try:
            if self._ready_generation == generation and listens(self.url):
                return True
            self._check(http.system_stats())
        except WrongEngine:
            raise
        except EngineUnavailable:
            child.wait(_POLL_S)
            return False
        self._ready_generation = generation
        ready_s = round(time.monotonic() - self._started_at, 2)
        log.info("ComfyUI is ready", extra={"generation": generation, "ready_s": ready_s})
        return True

    def _check(self, stats: Mapping[str, Any]) -> None:
        system = stats.get("system", {})
        if str(self._model_folders) not in system.get("argv", ()):
            raise WrongEngine(
                "Another server answers at the port that ComfyUI was given.",
                details={"port": self._port},
            )
        version, expected = system.get("comfyui_version"), self._options.expected_version
        if expected is not None and version != expected:
            raise WrongEngine(
                f"ComfyUI {version} is installed where {expected} is expected.",
                details={"version": version, "expected": expected},
            )

    def _failure(self, what: str) -> EngineUnavailable:
        child = self._child
        code = None if child is None else child.returncode
        lines = LineSplitter().feed(f"{child.tail()}\n".encode()) if child is not None else []
        sentence = f"ComfyUI {what}" + (f" with exit code {code}" if code is not None else "")
        # Without a GPU or with an old driver this is all that tells: it must not only be in a log.
        reason = next((line for line in reversed(lines) if _REASON.search(line)), None)
        return EngineUnavailable(
            f"{sentence}: {plain(reason)}" if reason else f"{sentence}.",
            details={"exit_code": code, "output": [plain(line) for line in lines[-_LAST_LINES:]]},
        )


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        port = probe.getsockname()[1]
    return int(port)
