"""The endpoint: its queue, its jobs and the verbs of both sides; no socket, process or sleep."""

import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from local.platform.broadcast import Broadcast
from local.platform.jobs import RETRYABLE, Job, JobState, Submission
from local.platform.ledger import Ledger


@dataclass(frozen=True, slots=True)
class EndpointOptions:
    """How long results stay (RunPod's documented figures), and how often a lost job is retried.

    That RunPod queues the job of a dead worker again is documented; how often is not.
    """

    keep_s: float = 1800.0
    keep_sync_s: float = 60.0
    max_retries: int = 3


class JobUnknown(LookupError):
    """No such job, or its result was dropped after the time that results are kept."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job {job_id} does not exist or its result has expired")


class NotRetryable(ValueError):
    """`/retry` works on FAILED and TIMED_OUT jobs only."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"job {job.id} is {job.state}; only FAILED or TIMED_OUT can be retried")


class Endpoint:
    """Every job of one endpoint; single-threaded, driven by the event loop that serves it.

    Args:
        options: how long results stay and how often a lost job is tried again.
        clock: seconds; monotonic.
        on_final: told of each job that reaches a final state (webhooks).
    """

    def __init__(
        self,
        options: EndpointOptions,
        *,
        clock: Callable[[], float] = time.monotonic,
        on_final: Callable[[Job], None] = lambda _job: None,
    ) -> None:
        self.options = options
        self.changed = Broadcast()
        self.ledger = Ledger()
        self._clock = clock
        self._on_final = on_final
        self._jobs: dict[str, Job] = {}
        self._queue: deque[Job] = deque()
        self._stops: defaultdict[str, set[str]] = defaultdict(set)

    @property
    def now(self) -> float:
        """The endpoint's clock."""
        return self._clock()

    # -- the customer's side ---------------------------------------------------------------------

    def submit(self, submission: Submission) -> Job:
        """Accept a job; its id looks like the platform's (`…-u1`, `sync-…-u1`)."""
        prefix = "sync-" if submission.synchronous else ""
        job = Job(f"{prefix}{uuid.uuid4()}-u1", submission, queued_at=self.now)
        self._jobs[job.id] = job
        self._enqueue(job)
        return job

    def job(self, job_id: str) -> Job:
        """Find a job. Raises JobUnknown."""
        try:
            return self._jobs[job_id]
        except KeyError:
            raise JobUnknown(job_id) from None

    def status(self, job_id: str) -> dict[str, Any]:
        """What `/status` answers. Raises JobUnknown."""
        return self.job(job_id).status(self.now)

    def read_stream(self, job_id: str) -> dict[str, Any]:
        """The chunks that came since the last reading. Raises JobUnknown."""
        job = self.job(job_id)
        chunks, job.chunks = job.chunks, []
        return {"status": job.state.value, "stream": [{"output": chunk} for chunk in chunks]}

    def cancel(self, job_id: str) -> Job:
        """End a job, telling the worker that has it; one that has ended stays as it is."""
        job = self.job(job_id)
        if not job.final:
            self._abandon(job, JobState.CANCELLED, None)
        return job

    def retry(self, job_id: str) -> Job:
        """Queue a failed job again under the same id. Raises JobUnknown, NotRetryable."""
        job = self.job(job_id)
        if job.state not in RETRYABLE:
            raise NotRetryable(job)
        job.queued_at = self.now
        job.output = job.error = job.finished_at = None
        job.chunks.clear()
        job.retries += 1
        self.ledger.retries += 1
        self._enqueue(job)
        return job

    def purge(self) -> int:
        """Cancel what is queued; what runs goes on. Answers how many were removed."""
        waiting = list(self._queue)
        for job in waiting:
            self._abandon(job, JobState.CANCELLED, None)
        return len(waiting)

    def count(self, state: JobState) -> int:
        """How many jobs that we still know are in this state."""
        return sum(job.state is state for job in self._jobs.values())

    # -- the worker's side -----------------------------------------------------------------------

    def take(self, worker_id: str, limit: int) -> list[Job]:
        """Hand the oldest queued jobs to a worker, `limit` at most."""
        account = self.ledger.account(worker_id, self.now)
        taken = [self._queue.popleft() for _ in range(min(limit, len(self._queue)))]
        for job in taken:
            job.state, job.worker_id, job.taken_at = JobState.IN_PROGRESS, worker_id, self.now
            account.take(self.now)
        return taken

    def give_back(self, job: Job) -> None:
        """Put a job back that never reached the worker: first in line, not a retry."""
        self._leave_worker(job)
        self._enqueue(job, first=True)

    def report(self, worker_id: str, job_id: str, result: dict[str, Any]) -> bool:
        """Take a result or a progress update from a worker; answers whether it counted.

        Ignored, and counted as such, is what comes from a worker that does not have the job (any
        more), or after the end: the SDK posts progress from threads that a result overtakes.
        """
        job = self._jobs.get(job_id)
        if job is None or job.final or job.worker_id != worker_id:
            self.ledger.ignored_results += result.get("status") != "IN_PROGRESS"
            return False
        job.output = result.get("output")
        if result.get("status") == "IN_PROGRESS":
            return True
        job.error = result.get("error")
        self._finish(job, JobState.FAILED if "error" in result else JobState.COMPLETED)
        return True

    def stream(self, worker_id: str, job_id: str, chunk: Any) -> None:
        """Keep one streamed chunk until the customer reads it."""
        job = self._jobs.get(job_id)
        if job is not None and not job.final and job.worker_id == worker_id:
            job.chunks.append(chunk)
            self.changed.announce()

    def take_stops(self, worker_id: str) -> list[str]:
        """The ids of jobs that this worker should stop, each told once."""
        return sorted(self._stops.pop(worker_id, ()))

    def still_running(self, worker_id: str, job_ids: Collection[str]) -> None:
        """Tell a worker again to stop what its ping lists although it has ended here.

        A stop signal that arrives before the SDK has made the job a task is lost there
        (`JobScaler.stop_job`), so one signal is not enough.
        """
        ended = {
            job_id
            for job_id in job_ids
            if (job := self._jobs.get(job_id)) is not None
            and job.worker_id == worker_id
            and job.state in {JobState.CANCELLED, JobState.TIMED_OUT}
        }
        if ended:
            self._stops[worker_id] |= ended
            self.changed.announce()

    def in_hand(self, worker_id: str) -> list[Job]:
        """The jobs that a worker has now."""
        return [
            job
            for job in self._jobs.values()
            if job.state is JobState.IN_PROGRESS and job.worker_id == worker_id
        ]

    def worker_gone(self, worker_id: str) -> None:
        """A worker died: its jobs go back to the queue, or fail when they were retried enough."""
        self._stops.pop(worker_id, None)
        for job in reversed(self.in_hand(worker_id)):
            if job.retries >= self.options.max_retries:
                job.error = f"job timed out after {job.retries} retries"
                self._finish(job, JobState.FAILED)
                continue
            job.retries += 1
            self.ledger.retries += 1
            self.give_back(job)

    # -- the clock -------------------------------------------------------------------------------

    def tick(self) -> None:
        """Time out what is overdue and drop results that were kept long enough."""
        for job in list(self._jobs.values()):
            if not job.final and job.overdue(self.now):
                self._abandon(job, JobState.TIMED_OUT, "job timed out")
            elif job.finished_at is not None and self.now - job.finished_at > self._keep_s(job):
                del self._jobs[job.id]

    def _keep_s(self, job: Job) -> float:
        options = self.options
        return options.keep_sync_s if job.submission.synchronous else options.keep_s

    def _enqueue(self, job: Job, *, first: bool = False) -> None:
        job.state, job.worker_id, job.taken_at, job.output = JobState.IN_QUEUE, None, None, None
        if first:
            self._queue.appendleft(job)
        else:
            self._queue.append(job)
        self.changed.announce()

    def _abandon(self, job: Job, state: JobState, error: str | None) -> None:
        if job.state is JobState.IN_QUEUE:
            self._queue.remove(job)
        elif job.worker_id is not None:
            self._stops[job.worker_id].add(job.id)
        job.error, job.output = error, None
        self._finish(job, state)

    def _finish(self, job: Job, state: JobState) -> None:
        self._leave_worker(job)
        job.state, job.finished_at = state, self.now
        self.ledger.ended(job, self.now)
        self._on_final(job)
        self.changed.announce()

    def _leave_worker(self, job: Job) -> None:
        if job.state is JobState.IN_PROGRESS and job.worker_id is not None:
            self.ledger.account(job.worker_id, self.now).give(self.now)
