"""What the GPU still has to do for the jobs in hand, and so when the next one should be asked for.

A worker that asks too late leaves its GPU idle between two jobs; one that asks too early holds a
job that another worker, idle by now, could have begun. The right moment is when the work in hand
lasts just as long as preparing the next job does.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from worker.cancel import CancelToken

PICKUP_S: Final = 0.15  # from asking to a job's begin: the SDK looks into its queue every 0.1 s
MIN_LEAD_S, MAX_LEAD_S = 0.2, 0.9  # a job is held by a busy worker for less than a second
_FIRST_PREPARATION_S: Final = 0.2
_NEWEST_COUNTS: Final = 0.3  # of moving averages
_UNSTARTED_S: Final = 5.0  # a job that was fetched and has not begun by then never will
_SAMPLING_FROM, _SAMPLING_TO = 10.0, 85.0  # percent; see `worker.resources`
_WAIT_S: Final = 0.05
# What decides how long a picture or a clip takes. The prompt does not.
_SHAPE: Final = ("task", "workflow", "width", "height", "steps", "count", "frames", "init_image")
_NO_GPU: Final = frozenset({"characters", "health"})


@dataclass(slots=True)
class JobInHand:
    """One job between its arrival and its result, as far as the GPU is concerned.

    Attributes:
        shape: equal for jobs that take the GPU equally long.
        sharable: whether another job may be asked for while this one has the GPU.
    """

    shape: str
    sharable: bool
    needs_gpu: bool
    fetched_at: float
    begun_at: float | None = None
    queued_at: float | None = None
    sampled_at: float | None = None
    percent: float = 0.0
    done: bool = False


class GpuSchedule:
    """The jobs in hand; may be used from any thread.

    Args:
        limit: most jobs in hand at a time, whatever they need.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._jobs: dict[str, JobInHand] = {}
        self._seconds: dict[str, float] = {}  # GPU time by shape
        self._preparation_s = _FIRST_PREPARATION_S
        self._free_at = 0.0

    def admit(self, job_id: str, raw: object) -> JobInHand:
        """Count a job from the moment it is here; a second call for it changes nothing."""
        given: Mapping[str, Any] = raw if isinstance(raw, dict) else {}
        task = str(given.get("task"))
        with self._lock:
            if job_id not in self._jobs:
                shape = repr([str(given.get(name))[:64] for name in _SHAPE])
                needs_gpu = task not in _NO_GPU
                self._jobs[job_id] = JobInHand(shape, task != "train", needs_gpu, time.monotonic())
            return self._jobs[job_id]

    def begin(self, job_id: str, raw: object) -> JobInHand:
        """The job runs from now on."""
        job = self.admit(job_id, raw)
        job.begun_at = time.monotonic()
        return job

    def end(self, job_id: str) -> None:
        """The job's result is there."""
        with self._lock:
            if self._jobs.pop(job_id, None) is not None and not self._jobs:
                self._free_at = time.monotonic()

    def observer(self, job: JobInHand) -> Callable[[str, float], None]:
        """Takes the stages and percentages of a job's progress."""

        def observe(stage: str, percent: float) -> None:
            now = time.monotonic()
            with self._lock:
                if stage == "queued":
                    self._queued(job, now)
                elif stage == "sampling":
                    job.percent, job.sampled_at = percent, now
                elif stage == "uploading" and not job.done:
                    self._done(job, now)

        return observe

    @property
    def lead_s(self) -> float:
        """How long before the GPU is idle the next job should be asked for."""
        return min(MAX_LEAD_S, max(MIN_LEAD_S, self._preparation_s + PICKUP_S))

    def wants_another(self) -> bool:
        """Whether the next job should be asked for now."""
        now = time.monotonic()
        with self._lock:
            jobs = [job for job in self._jobs.values() if not _lost(job, now)]
            if len(jobs) >= self.limit or not all(job.sharable for job in jobs):
                return False
            return sum(self._remaining_s(job, now) for job in jobs) < self.lead_s

    def wait_for_gpu(self, job: JobInHand, cancel: CancelToken) -> None:
        """Return when no earlier job needs the GPU any more. Raises Cancelled.

        For a training, which takes the GPU's memory from ComfyUI.
        """
        while self._others_need_it(job):
            cancel.sleep(_WAIT_S)

    def _others_need_it(self, own: JobInHand) -> bool:
        now = time.monotonic()
        with self._lock:
            return any(
                job.needs_gpu and not job.done and not _lost(job, now)
                for job in self._jobs.values()
                if job is not own and job.fetched_at <= own.fetched_at
            )

    def _queued(self, job: JobInHand, now: float) -> None:
        if job.queued_at is None and job.begun_at is not None:
            self._preparation_s = _averaged(self._preparation_s, now - job.begun_at)
        job.queued_at, job.done, job.percent = now, False, 0.0

    def _done(self, job: JobInHand, now: float) -> None:
        job.done = True
        if job.queued_at is not None:
            # One prompt at a time: this one's began when the one before it had ended.
            seconds = now - max(job.queued_at, self._free_at)
            self._seconds[job.shape] = _averaged(self._seconds.get(job.shape, seconds), seconds)
        self._free_at = now

    def _remaining_s(self, job: JobInHand, now: float) -> float:
        if job.done or not job.needs_gpu:
            return 0.0
        known = self._seconds.get(job.shape)
        if job.queued_at is None:
            return float("inf") if known is None else known
        started = max(job.queued_at, self._free_at)
        if job.sampled_at is not None and job.percent > _SAMPLING_FROM:
            # From the step rate: right for any job, also for the first of its shape.
            rate = (job.percent - _SAMPLING_FROM) / max(job.sampled_at - started, 0.001)
            by_rate = (_SAMPLING_TO - job.percent) / rate - (now - job.sampled_at)
            return max(0.0, by_rate if known is None else max(by_rate, known - (now - started)))
        return float("inf") if known is None else max(0.0, known - (now - started))


def _lost(job: JobInHand, now: float) -> bool:
    return job.begun_at is None and now - job.fetched_at > _UNSTARTED_S


def _averaged(before: float, newest: float) -> float:
    return before + _NEWEST_COUNTS * (newest - before)
