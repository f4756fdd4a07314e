"""Progress of a job on its way to RunPod: latest wins, in order, none after the result.

The SDK's own `progress_update` starts a thread per call and posts to the result's address, so that
updates arrive out of order and after the result (measured with runpod 1.12.0). Here one thread per
job sends one update at a time, and `close` waits for the one that is under way.
"""

import logging
import threading
from collections.abc import Callable
from typing import Any, Self

from worker.comfyui.record import Graph, Step

log = logging.getLogger(__name__)

Send = Callable[[dict[str, Any]], None]
# Where each stage of a generation begins, in percent of the job.
QUEUED, LOADING, SAMPLING, DECODING, ENCODING, UPLOADING = 4.0, 5.0, 10.0, 85.0, 90.0, 95.0
INTERVAL_S = 0.5
CLOSE_TIMEOUT_S = 5.0


class Progress:
    """The progress of one job; use it as a context manager around the job.

    Args:
        send: delivers one update and returns when it has arrived; may raise OSError (which
            includes timeouts), which is logged: a lost update is no reason to fail a job.
        interval_s: least seconds between two updates.
        observe: told stage and percentage of every report, in the reporting thread.
    """

    def __init__(
        self,
        send: Send,
        *,
        interval_s: float = INTERVAL_S,
        observe: Callable[[str, float], None] = lambda _stage, _percent: None,
    ) -> None:
        self._send = send
        self._observe = observe
        self._interval_s = interval_s
        self._latest: dict[str, Any] | None = None
        self._percent = 0.0
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
        """Say where the job is: `percent` of the whole job, `step` of `steps` of this stage.

        The percentage that is sent never goes back, though a job be tried again.
        """
        self._observe(stage, percent)
        self._percent = max(self._percent, round(percent, 1))
        update: dict[str, Any] = {"stage": stage, "percent": self._percent}
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

    def __exit__(self, *exc: object) -> None:
        self.close()


class ProgressTracker:
    """Turns the steps of one graph into progress: loading, sampling, decoding, encoding.

    Several samplers (a start frame, then the video) share the sampling stage evenly.
    """

    def __init__(self, graph: Graph, progress: Progress) -> None:
        self._progress = progress
        self._samplers = [node for node, spec in graph.items() if "steps" in spec["inputs"]]
        self._begun: list[str] = []

    def on_step(self, step: Step) -> None:
        """Take note of a node's beginning, or of a sampling step."""
        sampled = len(self._begun) >= len(self._samplers)
        if step.steps and step.node in self._samplers:
            self._sampling(step)
        elif "Loader" in step.node_type and not self._begun:
            self._progress.report("loading", LOADING)
        elif step.node_type.startswith("VAEDecode") and sampled:
            self._progress.report("decoding", DECODING)
        elif step.node_type.startswith(("Save", "CreateVideo")) and sampled:
            self._progress.report("encoding", ENCODING)

    def _sampling(self, step: Step) -> None:
        if step.node not in self._begun:
            self._begun.append(step.node)
        before = self._begun.index(step.node)
        share = (before + step.step / step.steps) / len(self._samplers)
        percent = SAMPLING + (DECODING - SAMPLING) * share
        self._progress.report("sampling", percent, step=step.step, steps=step.steps)
