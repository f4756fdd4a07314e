"""Progress of a job on its way to RunPod: latest wins, in order, none after the result.

The SDK's own `progress_update` starts a thread per call and posts to the result's address, so that
updates arrive out of order and after the result (measured with runpod 1.12.0). Here one thread per
job sends one update at a time, and `close` waits for the one that is under way.
"""

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

log = logging.getLogger(__name__)

Send = Callable[[dict[str, Any]], None]
INTERVAL_S = 0.5
CLOSE_TIMEOUT_S = 5.0


class Progress:
    """The progress of one job; use it as a context manager around the job.

    Args:
        send: delivers one update and returns when it has arrived; may raise OSError (which
            includes timeouts), which is logged: a lost update is no reason to fail a job.
        interval_s: least seconds between two updates.
    """

    def __init__(self, send: Send, *, interval_s: float = INTERVAL_S) -> None:
        self._send = send
        self._interval_s = interval_s
        self._latest: dict[str, Any] | None = None
        self._changed = threading.Event()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def report(
        self,
        stage: str,
        percent: float,
        *,
        step: int | None = None,
        steps: int | None = None,
        eta_s: float | None = None,
    ) -> None:
        """Say where the job is: `percent` of the whole job, `step` of `steps` of this stage."""
        update: dict[str, Any] = {"stage": stage, "percent": round(percent, 1)}
        if step is not None and steps is not None:
            update |= {"step": step, "steps": steps}
        if eta_s is not None:
            update["eta_s"] = round(eta_s)
        with self._lock:
            if self._closing.is_set():
                return
            self._latest = update
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
                self._thread.start()
        self._changed.set()

    def close(self) -> None:
        """Send nothing more; returns when the update under way has arrived or timed out."""
        with self._lock:
            self._closing.set()
            thread = self._thread
        self._changed.set()
        if thread is not None:
            thread.join(CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        while True:
            self._changed.wait()
            if self._closing.is_set():
                return
            self._changed.clear()
            with self._lock:
                update, self._latest = self._latest, None
            if update is not None:
                self._deliver(update)
            self._closing.wait(self._interval_s)

    def _deliver(self, update: dict[str, Any]) -> None:
        try:
            self._send(update)
        except OSError as error:
            log.warning("progress not delivered", extra={"reason": str(error)})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
