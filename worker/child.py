"""Child processes that cannot hang us, cannot outlive us, and always say why they ended."""

import contextlib
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.util import register_after_fork
from pathlib import Path
from typing import IO, Self, cast

from worker.errors import WorkerError

log = logging.getLogger(__name__)

TAIL_BYTES = 8 * 1024
_CHUNK_BYTES = 64 * 1024
_LAST_OUTPUT_S = 2.0
_KILL_TIMEOUT_S = 10.0


class ChildStartFailed(WorkerError):
    """A program that could not be started: not there, or not executable."""


class ChildNotStopped(WorkerError):
    """A process that survives SIGKILL for now: it sits in the kernel, a driver as a rule."""


class _Guard:
    """Kills the child's process group when this process is gone, however it went.

    A shell of its own session reads from a pipe that only we hold: it ends quietly when told so,
    and kills the group when the pipe breaks, as SIGKILL to us does. `PR_SET_PDEATHSIG` would not
    do: it fires when the *thread* that forked ends, spares the child's children, and needs
    `preexec_fn`, which can deadlock in a process with threads.
    """

    _SCRIPT = 'read -r group || exit 0; read -r _ || kill -s KILL -- "-$group"'

    def __init__(self) -> None:
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", self._SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd="/",
            env={},
            start_new_session=True,
        )
        self._pipe = cast("IO[bytes]", self._shell.stdin)
        # The SDK forks a process for its pings, which outlives a SIGKILL to us with all our pipes.
        register_after_fork(self._pipe, lambda pipe: pipe.close())

    def watch(self, group: int) -> None:
        """From here on the group dies with us."""
        self._tell(f"{group}\n")

    def dismiss(self) -> None:
        """The group is gone already (or never was): nothing to kill."""
        self._tell("\n")
        self._pipe.close()
        self._shell.wait()

    def _tell(self, text: str) -> None:
        # A guard that somebody killed must not keep its child from being started or ended.
        with contextlib.suppress(BrokenPipeError):
            self._pipe.write(text.encode())


class ChildProcess:
    r"""One program in a process group of its own, its output always drained.

    The group ends as a whole: with `stop()`, when its leader ends by itself, and when this
    process is killed. Every method may be called from any thread.

    Args:
        argv: program and arguments; no shell in between.
        name: how logs and errors call it.
        cwd: its working directory; ours when None.
        env: its whole environment; ours when None.
        on_output: called in the draining thread with each raw chunk of stdout and stderr, in the
            order they came; a failure of it is logged and ends nothing.
        stop_timeout_s: how long SIGTERM may take before SIGKILL.
        stdin: keep a pipe to its standard input, for `write`; nothing to read there otherwise.
    """

    def __init__(  # noqa: PLR0913 - named options of one process, most left at their defaults
        self,
        argv: Sequence[str],
        *,
        name: str,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        on_output: Callable[[bytes], None] | None = None,
        stop_timeout_s: float = 10.0,
        stdin: bool = False,
    ) -> None:
        self.name = name
        self._argv = list(argv)
        self._cwd = cwd
        self._env = env
        self._on_output = on_output
        self._stop_timeout_s = stop_timeout_s
        self._stdin = stdin
        self._tail = b""
        self._lock = threading.Lock()  # over the popen, from its fork to its reaping
        self._popen: subprocess.Popen[bytes] | None = None
        self._returncode: int | None = None
        self._exited = threading.Event()
        self._reaped = threading.Event()

    def start(self) -> None:
        """Start the program; returns once it runs.

        Raises:
            ChildStartFailed: no such program, not executable, or no such working directory.
        """
        with self._lock:
            if self._popen is not None:
                raise RuntimeError(f"{self.name} was started already")
            try:
                guard = _Guard()
                try:
                    self._popen = self._spawn()
                except OSError:
                    guard.dismiss()
                    raise
            except OSError as error:
                raise self._start_failure(error) from error
            guard.watch(self._popen.pid)
        self._supervise(self._popen, guard)
        log.info("child started", extra={"child": self.name, "pid": self._popen.pid})

    @property
    def pid(self) -> int:
        """Process id, and the id of its group; raises before the start."""
        if self._popen is None:
            raise RuntimeError(f"{self.name} is not started")
        return self._popen.pid

    @property
    def alive(self) -> bool:
        """Whether it is started and has not ended."""
        return self._popen is not None and not self._exited.is_set()

    @property
    def returncode(self) -> int | None:
        """Exit status, minus the signal's number when one ended it, None before the end."""
        return self._returncode

    def wait(self, timeout_s: float | None = None) -> int | None:
        """The exit status, or None when it still runs after `timeout_s`.

        When this returns a status, `tail()` is complete and the group is gone.
        """
        self._reaped.wait(timeout_s)
        return self._returncode

    def tail(self) -> str:
        """The last 8 KiB of its output."""
        return self._tail.decode(errors="replace")

    def write(self, data: bytes) -> None:
        """Send it to the child's standard input; more than a pipe holds (64 KiB) waits for it.

        Raises:
            BrokenPipeError: it has ended, or reads no more.
        """
        if self._popen is None or self._popen.stdin is None:
            raise RuntimeError(f"{self.name} has no pipe to write to")
        try:
            self._popen.stdin.write(data)
        except ValueError as error:  # the reaper has closed the pipe
            raise BrokenPipeError(f"{self.name} has ended") from error

    def stop(self) -> None:
        """End the group: SIGTERM, wait, SIGKILL, reap; nothing to do when it has ended.

        Raises:
            ChildNotStopped: it was killed, and is still there after 10 s.
        """
        if self._popen is None:
            return
        self._signal_group(signal.SIGTERM)
        if self.wait(self._stop_timeout_s) is not None:
            return
        log.warning("child ignores SIGTERM", extra={"child": self.name, "pid": self.pid})
        self.kill()

    def kill(self) -> None:
        """End the group at once: SIGKILL, reap.

        Raises:
            ChildNotStopped: it is still there after 10 s.
        """
        if self._popen is None:
            return
        self._signal_group(signal.SIGKILL)
        if self.wait(_KILL_TIMEOUT_S) is None:
            raise ChildNotStopped(
                f"The process of {self.name} does not end, not even when killed.",
                details={"pid": self.pid},
            )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _spawn(self) -> subprocess.Popen[bytes]:
        popen = subprocess.Popen(
            self._argv,
            cwd=self._cwd,
            env=self._env,
            stdin=subprocess.PIPE if self._stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,
        )
        if popen.stdin is not None:
            # A forked process that holds the pipe would keep the child from seeing its end.
            register_after_fork(popen.stdin, lambda pipe: pipe.close())
        return popen

    def _start_failure(self, error: OSError) -> ChildStartFailed:
        reason = error.strerror or type(error).__name__
        facts = {"child": self.name, "reason": reason}
        return ChildStartFailed(f"{self.name} could not start: {reason}.", details=facts)

    def _supervise(self, popen: subprocess.Popen[bytes], guard: _Guard) -> None:
        drain = threading.Thread(
            target=self._drain, args=(popen,), name=f"{self.name}-output", daemon=True
        )
        reap = threading.Thread(
            target=self._reap, args=(popen, guard, drain), name=f"{self.name}-end", daemon=True
        )
        drain.start()
        reap.start()

    def _drain(self, popen: subprocess.Popen[bytes]) -> None:
        if popen.stdout is None:
            return
        with popen.stdout as stdout:
            while chunk := stdout.read(_CHUNK_BYTES):
                self._tail = (self._tail + chunk)[-TAIL_BYTES:]
                self._hand_on(chunk)

    def _hand_on(self, chunk: bytes) -> None:
        if self._on_output is None:
            return
        try:
            self._on_output(chunk)
        except Exception:  # whatever it is: a pipe that nobody drains would stop the child
            log.exception("output callback failed", extra={"child": self.name})

    def _reap(self, popen: subprocess.Popen[bytes], guard: _Guard, drain: threading.Thread) -> None:
        # WNOWAIT leaves the dead leader's id taken, so the group that is killed next is its own
        # and not that of a process which got the number since.
        with contextlib.suppress(ChildProcessError):  # reaped by somebody who waits for any child
            os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOWAIT)
        self._exited.set()
        self._signal_group(signal.SIGKILL)
        # Bounded: a grandchild that left the group may hold the pipe open for ever.
        drain.join(_LAST_OUTPUT_S)
        with self._lock:
            self._returncode = popen.wait()
        guard.dismiss()
        if popen.stdin is not None:
            popen.stdin.close()
        log.info("child ended", extra={"child": self.name, "returncode": self._returncode})
        self._reaped.set()

    def _signal_group(self, number: signal.Signals) -> None:
        with self._lock:
            if self._popen is None or self._returncode is not None:
                return
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._popen.pid, number)
