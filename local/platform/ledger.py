"""What the platform would bill, kept as it happens: queue, execution and busy time."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from local.platform.jobs import Job


@dataclass(slots=True)
class WorkerAccount:
    """One worker's time, in seconds of the endpoint's clock; busy is with a job or more in hand."""

    first_seen: float
    jobs: int = 0
    in_hand: int = 0
    busy_s: float = 0.0
    _busy_since: float = 0.0

    def take(self, now: float) -> None:
        """A job went to this worker."""
        if self.in_hand == 0:
            self._busy_since = now
        self.in_hand += 1
        self.jobs += 1

    def give(self, now: float) -> None:
        """A job of this worker ended, or was taken away."""
        self.in_hand -= 1
        if self.in_hand == 0:
            self.busy_s += now - self._busy_since

    def report(self, now: float) -> dict[str, Any]:
        """Seconds seen and busy, and the share of the two."""
        busy = self.busy_s + (now - self._busy_since if self.in_hand else 0.0)
        seen = now - self.first_seen
        return {
            "jobs": self.jobs,
            "seen_s": round(seen, 3),
            "busy_s": round(busy, 3),
            "utilisation": round(busy / seen, 4) if seen else 0.0,
        }


@dataclass(slots=True)
class Ledger:
    """Sums over every job that ever ended, however long ago its result was dropped."""

    states: Counter[str] = field(default_factory=Counter)
    queue_s: list[float] = field(default_factory=list)
    execution_s: list[float] = field(default_factory=list)
    retries: int = 0
    ignored_results: int = 0
    workers: dict[str, WorkerAccount] = field(default_factory=dict)

    def account(self, worker_id: str, now: float) -> WorkerAccount:
        """The account of a worker, opened when it is first seen."""
        return self.workers.setdefault(worker_id, WorkerAccount(first_seen=now))

    def ended(self, job: Job, now: float) -> None:
        """Book a job that reached a final state."""
        self.states[job.state.value] += 1
        if job.taken_at is not None:
            self.queue_s.append(job.queue_time(now))
            self.execution_s.append(job.execution_time(now))

    def report(self, now: float) -> dict[str, Any]:
        """The whole of it as JSON values."""
        return {
            "jobs": dict(self.states),
            "queue_s": spread(self.queue_s),
            "execution_s": spread(self.execution_s),
            "retries": self.retries,
            "ignored_results": self.ignored_results,
            "workers": {name: account.report(now) for name, account in self.workers.items()},
        }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Count, sum, median, 95th percentile (nearest rank) and maximum."""
    ordered = sorted(values)
    if not ordered:
        return {"count": 0}
    last = len(ordered) - 1
    return {
        "count": len(ordered),
        "sum": round(sum(ordered), 3),
        "p50": round(ordered[round(last * 0.5)], 4),
        "p95": round(ordered[round(last * 0.95)], 4),
        "max": round(ordered[-1], 4),
    }
