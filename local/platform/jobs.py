"""One job as the platform sees it: its states, its clock times, and what `/status` says of it."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final


class JobState(StrEnum):
    """The states of RunPod's "Job states" page that its API really answers with."""

    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"


FINAL: Final = frozenset(
    {JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED, JobState.TIMED_OUT}
)
RETRYABLE: Final = frozenset({JobState.FAILED, JobState.TIMED_OUT})


@dataclass(frozen=True, slots=True)
class Policy:
    """How long a job may run and live, in seconds; `ttl_s` includes the time in the queue."""

    execution_timeout_s: float = 600.0
    ttl_s: float = 86_400.0


@dataclass(frozen=True, slots=True)
class Submission:
    """What a customer posted to `/run` or `/runsync`, checked."""

    input: Any
    policy: Policy = field(default_factory=Policy)
    webhook: str | None = None
    s3_config: Any = None
    synchronous: bool = False


@dataclass(slots=True)
class Job:
    """A job's life; times are seconds of the endpoint's clock. Only `Endpoint` changes one."""

    id: str
    submission: Submission
    queued_at: float
    state: JobState = JobState.IN_QUEUE
    worker_id: str | None = None
    taken_at: float | None = None
    finished_at: float | None = None
    output: Any = None
    error: Any = None
    chunks: list[Any] = field(default_factory=list)
    retries: int = 0

    @property
    def final(self) -> bool:
        """Whether the job has ended, in whatever way."""
        return self.state in FINAL

    def queue_time(self, now: float) -> float:
        """Seconds from submission (or retry) until a worker took it."""
        return (self.taken_at or self.finished_at or now) - self.queued_at

    def execution_time(self, now: float) -> float:
        """Seconds from the taking until the end; 0 for a job that no worker ever took."""
        return 0.0 if self.taken_at is None else (self.finished_at or now) - self.taken_at

    def overdue(self, now: float) -> bool:
        """Whether the job outlived its ttl, or ran longer than its executionTimeout."""
        policy = self.submission.policy
        running = self.state is JobState.IN_PROGRESS
        return now - self.queued_at > policy.ttl_s or (
            running and self.execution_time(now) > policy.execution_timeout_s
        )

    def for_worker(self) -> dict[str, Any]:
        """The job as job-take hands it out."""
        document: dict[str, Any] = {"id": self.id, "input": self.submission.input}
        if self.submission.webhook is not None:
            document["webhook"] = self.submission.webhook
        if self.submission.s3_config is not None:
            document["s3Config"] = self.submission.s3_config
        return document

    def status(self, now: float) -> dict[str, Any]:
        """What `/status`, `/runsync` and the webhook say; times in whole milliseconds."""
        document: dict[str, Any] = {"id": self.id, "status": self.state.value}
        if self.taken_at is not None:
            document["delayTime"] = round(self.queue_time(now) * 1000)
        if self.taken_at is not None and self.final:
            document["executionTime"] = round(self.execution_time(now) * 1000)
        facts = {
            "workerId": self.worker_id,
            "output": self.output,
            "error": self.error,
            "retries": self.retries or None,
        }
        return document | {name: value for name, value in facts.items() if value is not None}
