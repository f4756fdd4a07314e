"""What a branch is handed: the resources of this worker, and the job it runs in.

A job's progress goes to RunPod by a thread of ours, one update at a time, the latest wins: the
SDK's own `progress_update` starts a thread per call, so updates arrive out of order and after the
result (measured with runpod 1.12.0).
"""

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from families.library import Families
from families.recognition import Recogniser
from lora_registry.cache import LoraCache
from lora_registry.identity import Identities
from lora_registry.job_records import JobRecords
from lora_registry.registry import Registry
from worker.availability import Availability
from worker.cancel import CancelToken
from worker.comfyui.client import ComfyUIClient
from worker.comfyui.engine import Engine
from worker.comfyui.events import Graph, Step
from worker.likeness.scorer import Scorer
from worker.pictures import Pictures
from worker.settings import Settings
from worker.sources import SourceReader
from worker.storage import ObjectStore
from workflows.library import Library

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
        loss: float | None = None,
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
        if loss is not None and math.isfinite(loss):  # NaN is no JSON
            update["loss"] = round(loss, 5)
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


def _samples(spec: Mapping[str, Any]) -> bool:
    """Whether a node samples. Some have their steps from a scheduler, which itself never steps."""
    if "latent_image" in spec["inputs"]:
        return True
    return "steps" in spec["inputs"] and "Scheduler" not in spec["class_type"]


class ProgressTracker:
    """Turns the steps of one graph into progress: loading, sampling, decoding, encoding.

    Several samplers (a start frame, then the video) share the sampling stage evenly.

    Args:
        graph: whose steps they are.
        progress: of the job.
        number: of graphs of the job that ran before it.
        most: how many there are at most, all of one length.
    """

    def __init__(self, graph: Graph, progress: Progress, number: int = 0, most: int = 1) -> None:
        self._progress = progress
        self._number = number
        self._most = most
        self._samplers = [node for node, spec in graph.items() if _samples(spec)]
        self._begun: list[str] = []

    def on_step(self, step: Step) -> None:
        """Take note of a node's beginning, or of a sampling step."""
        sampled = len(self._begun) >= len(self._samplers)
        if step.steps and step.node in self._samplers:
            self._sampling(step)
        elif "Loader" in step.node_type and not self._begun:
            self._report("loading", LOADING)
        elif step.node_type.startswith("VAEDecode") and sampled:
            self._report("decoding", DECODING)
        elif step.node_type.startswith(("Save", "CreateVideo")) and sampled:
            self._report("encoding", ENCODING)

    def _sampling(self, step: Step) -> None:
        if step.node not in self._begun:
            self._begun.append(step.node)
        before = self._begun.index(step.node)
        share = (before + step.step / step.steps) / len(self._samplers)
        percent = SAMPLING + (DECODING - SAMPLING) * share
        self._report("sampling", percent, step=step.step, steps=step.steps)

    def _report(self, stage: str, percent: float, **steps: int) -> None:
        """A percentage of this graph as one of all of them."""
        share = (percent - QUEUED) / (UPLOADING - QUEUED)
        whole = QUEUED + (UPLOADING - QUEUED) * (self._number + share) / self._most
        self._progress.report(stage, whole, **steps)


@dataclass(frozen=True, slots=True)
class Resources:
    """Every resource of the worker; `worker.service` owns them, branches only use them.

    `pool` runs transfers; a task of the pool never waits for another task of the pool.
    """

    settings: Settings
    store: ObjectStore
    sources: SourceReader
    pictures: Pictures
    scorer: Scorer
    registry: Registry
    identities: Identities
    records: JobRecords
    loras: LoraCache
    workflows: Library
    families: Families
    recogniser: Recogniser
    engine: Engine
    comfyui: ComfyUIClient
    availability: Availability
    pool: Executor


class Timings:
    """Milliseconds per phase of one job; a phase entered twice adds up."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._phases: dict[str, float] = {}

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure what happens inside."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.add(name, (time.monotonic() - begun) * 1000)

    @property
    def busy_s(self) -> float:
        """Seconds since the job began, but for those behind another one or lost with ComfyUI."""
        others_ms = self._phases.get("queued", 0.0) + self._phases.get("lost", 0.0)
        return time.monotonic() - self._started - others_ms / 1000

    def add(self, name: str, milliseconds: float) -> None:
        """Count time that was measured elsewhere."""
        self._phases[name] = self._phases.get(name, 0.0) + milliseconds

    def milliseconds(self) -> dict[str, float]:
        """Every phase so far, and `total` since the job began."""
        total = (time.monotonic() - self._started) * 1000
        return {name: round(value, 1) for name, value in {**self._phases, "total": total}.items()}


@dataclass(frozen=True, slots=True)
class JobContext:
    """One job in flight. `folder` is temporary and removed when the job ends, however it ends."""

    job_id: str
    cancel: CancelToken
    progress: Progress
    folder: Path
    timings: Timings = field(default_factory=Timings)
    started_at: float = field(default_factory=time.time)
