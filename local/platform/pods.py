"""Worker pods: `handler.py` as a process under the SDK's own loop, started again when it ends."""

import asyncio
import contextlib
import logging
import os
import signal
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from local.platform import containers

log = logging.getLogger(__name__)

QUICK_EXIT_S: Final = 5.0
FIRST_BACKOFF_S: Final = 0.2
MAX_BACKOFF_S: Final = 10.0
LEFTOVER_GRACE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class PodOptions:
    """How a worker is run.

    Args:
        argv: the container's command.
        environment: a worker's whole environment, given its number; the platform adds its own.
        folder: the working directory.
        logs: where each pod's output goes, one file a pod; None leaves it on the terminal.
        stop_grace_s: from SIGTERM to SIGKILL; the platform's own figure is not documented.
        ping_interval_s: how often the SDK pings; whole seconds, 10 on the platform.
        ping_timeout_s: silence after which a worker counts as dead; not documented.
    """

    argv: tuple[str, ...]
    environment: Callable[[int], Mapping[str, str]] = lambda _number: os.environ
    folder: Path = field(default_factory=Path.cwd)
    logs: Path | None = None
    stop_grace_s: float = 30.0
    ping_interval_s: int = 10
    ping_timeout_s: float = 60.0


class Pod:
    """One worker: its process, its restarts, what it left behind.

    Args:
        number: from 1; the pod's id is made of it.
        options: how to run it.
        platform_environment: `RUNPOD_…` for a pod id.
        on_gone: told when the process has ended, before it is started again.
    """

    def __init__(
        self,
        number: int,
        options: PodOptions,
        *,
        platform_environment: Callable[[str], Mapping[str, str]],
        on_gone: Callable[[str], None],
    ) -> None:
        self.id = f"local-{number}"
        self.exits: list[int] = []
        self.left_behind: list[str] = []
        self.unhealthy: str | None = None
        self.started_at = time.monotonic()
        self._number = number
        self._options = options
        self._platform_environment = platform_environment
        self._on_gone = on_gone
        self._process: asyncio.subprocess.Process | None = None
        self._last_ping: float | None = None
        self._draining = False
        self._retired = False

    @property
    def pid(self) -> int | None:
        """The worker's process id; None between two lives."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if self._process is not None and running else None

    @property
    def accepts_jobs(self) -> bool:
        """Whether it is not being stopped."""
        return not self._draining and not self._retired

    @property
    def ready(self) -> bool:
        """Whether this life of it has pinged."""
        return self._last_ping is not None and self.pid is not None

    def seen(self, *, unhealthy: str | None = None) -> None:
        """It pinged."""
        self._last_ping, self.unhealthy = time.monotonic(), unhealthy

    async def run(self) -> None:
        """Keep the worker running until `retire`; leaves no process behind however it ends."""
        backoff = FIRST_BACKOFF_S
        while not self._retired:
            started = time.monotonic()
            mark = uuid.uuid4().hex
            try:
                await self._live(mark)
            finally:
                await self._bury(mark)
            quick = time.monotonic() - started < QUICK_EXIT_S
            backoff = min(backoff * 2, MAX_BACKOFF_S) if quick else FIRST_BACKOFF_S
            if not self._retired:
                await asyncio.sleep(backoff)

    async def _live(self, mark: str) -> None:
        self._draining, self._last_ping = False, None
        with contextlib.ExitStack() as stack:
            output = self._output(stack)
            self._process = await asyncio.create_subprocess_exec(
                *self._options.argv,
                cwd=self._options.folder,
                env=self._environment(mark),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        log.info("worker started", extra={"worker": self.id, "pid": self._process.pid})
        self.exits.append(await self._process.wait())
        log.info("worker ended", extra={"worker": self.id, "exit": self.exits[-1]})

    def _output(self, stack: contextlib.ExitStack) -> IO[bytes] | None:
        if self._options.logs is None:
            return None
        return stack.enter_context((self._options.logs / f"{self.id}.log").open("ab"))

    def _environment(self, mark: str) -> dict[str, str]:
        return {
            **self._options.environment(self._number),
            **self._platform_environment(self.id),
            "RUNPOD_PING_INTERVAL": str(self._options.ping_interval_s * 1000),
            containers.MARK: mark,
        }

    async def _bury(self, mark: str) -> None:
        """End the container, a moment after its first process, so that leftovers can be told.

        A fork of the worker itself is not counted: the SDK's ping process always outlives a crash.
        """
        self._on_gone(self.id)
        until = time.monotonic() + LEFTOVER_GRACE_S
        while containers.processes(mark) and time.monotonic() < until:
            await asyncio.sleep(0.05)
        left = [name for name in containers.end(mark) if name != " ".join(self._options.argv)]
        if left:
            log.warning("worker left processes", extra={"worker": self.id, "left": left})
        self.left_behind.extend(left)

    def kill(self) -> None:
        """SIGKILL to the worker's first process, as a crash or the OOM killer would."""
        self._signal(signal.SIGKILL)

    async def refresh(self) -> None:
        """Stop this life of it; `run` starts the next one."""
        if not self._draining:
            self._draining = True
            await self._stop()

    async def retire(self) -> None:
        """Stop it for good: SIGTERM, the grace, SIGKILL."""
        self._retired = True
        await self._stop()

    async def _stop(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), self._options.stop_grace_s)
        except TimeoutError:
            log.warning("worker outlived its grace", extra={"worker": self.id})
            self._signal(signal.SIGKILL)
            await process.wait()

    def kill_if_silent(self) -> None:
        """End a worker whose pings stopped."""
        last = self._last_ping
        if last is not None and time.monotonic() - last > self._options.ping_timeout_s:
            log.warning("worker stopped pinging", extra={"worker": self.id})
            self._last_ping = None
            self.kill()

    def _signal(self, number: signal.Signals) -> None:
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def report(self) -> dict[str, Any]:
        """Exit codes of past lives, age in seconds, and what they left behind."""
        return {
            "pid": self.pid,
            "up_s": round(time.monotonic() - self.started_at, 3),
            "exits": self.exits,
            "left_behind": self.left_behind,
            "unhealthy": self.unhealthy,
        }
