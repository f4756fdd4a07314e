"""`jobs/{id}.json`: what is known of a job, in the bucket, for as long as the bucket keeps it.

RunPod forgets a job after 30 minutes. Its record does not: the gateway writes that it was accepted,
the worker that it runs and how it ended. Whoever writes a final state first wins, and everybody
else reports that one, so a job that was sent twice has one outcome.

    jobs/{id}.json                       the record
    jobs/open/{id}                       empty markers: jobs that are not settled yet
    jobs/newest/{inverted time}-{id}     empty markers: jobs by creation time, newest first
"""

import logging
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import AwareDatetime, Field, ValidationError

from errors import ErrorCode
from lora_registry.character import Document
from lora_registry.conditions import Conditions
from lora_registry.errors import DocumentInvalid, RegistryError
from lora_registry.store import ObjectMissing, PreconditionFailed, Store

log = logging.getLogger(__name__)

State = Literal["accepted", "running", "completed", "failed", "cancelled"]
FINAL: Final = frozenset({"completed", "failed", "cancelled"})
FOLDER: Final = "jobs/"
OPEN: Final = "jobs/open/"
NEWEST: Final = "jobs/newest/"
_TRIES: Final = 20
_RECORD_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_LAST_MS: Final = 10**13 - 1  # 13 digits hold every time until the year 2286
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Delivery(Document):
    """One attempt to tell a webhook: the receiver's status, or why there was none."""

    at: AwareDatetime
    status: int | None = None
    problem: str | None = None


class Webhook(Document):
    """Whom to tell when the job ends; `next_at` is None once it is told, or given up."""

    url: str
    next_at: AwareDatetime | None = None
    delivered: bool = False
    deliveries: tuple[Delivery, ...] = ()


class JobRecord(Document):
    """A job from its acceptance to its end.

    `platform_ids` are RunPod's ids of everything that was submitted for it, in order; `run_by` is
    the one of them that a worker has claimed. `fingerprint` is the sha256 of what was asked.
    """

    id: str
    task: str
    state: State = "accepted"
    input: dict[str, Any] = Field(default_factory=dict)
    fingerprint: str = ""
    endpoint_id: str | None = None
    platform_ids: tuple[str, ...] = ()
    submitted_at: AwareDatetime | None = None
    run_by: str | None = None
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    webhook: Webhook | None = None
    revision: Annotated[int, Field(ge=0)] = 0
    created_at: AwareDatetime
    updated_at: AwareDatetime
    finished_at: AwareDatetime | None = None

    @property
    def final(self) -> bool:
        """Whether the job has ended, in whatever way."""
        return self.state in FINAL

    @property
    def outcome(self) -> dict[str, Any]:
        """What the job answered: its result, or its error."""
        return (self.result if self.state == "completed" else self.error) or {}

    def ended(self, answer: dict[str, Any], now: datetime) -> "JobRecord":
        """The record with its end; one that has ended already stays as it is."""
        if self.final:
            return self
        kept = {name: value for name, value in answer.items() if name != "refresh_worker"}
        failed = "error" in kept
        cancelled = kept.get("code") == "cancelled"
        webhook = self.webhook and self.webhook.model_copy(update={"next_at": now})
        return self.model_copy(
            update={
                "state": "cancelled" if cancelled else "failed" if failed else "completed",
                "error" if failed else "result": kept,
                "webhook": webhook,
                "finished_at": now,
            }
        )


class JobNotFound(RegistryError):
    """No record of that id."""

    code = ErrorCode.JOB_NOT_FOUND

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"There is no job {job_id[:64]!r}.", field="job_id", details={"job_id": job_id[:128]}
        )


class AlreadyRunning(RegistryError):
    """Another RunPod job makes this request already; its answer will be this one's, too."""

    code = ErrorCode.CONFLICT

    def __init__(self, job_id: str, run_by: str) -> None:
        super().__init__(
            f"Job {run_by} is making this request already; its answer stands in the record.",
            field="request_id",
            details={"request_id": job_id, "run_by": run_by},
        )


class RecordBusy(RegistryError):
    """Other writers changed the record at every attempt."""

    code = ErrorCode.CONFLICT

    def __init__(self, job_id: str) -> None:
        super().__init__(f"The record of job {job_id!r} is being changed by others; try again.")


Change = Callable[[JobRecord], JobRecord]


class JobRecords:
    """The records of one bucket; safe to share between threads, and between any number of writers.

    On a store that enforces no write conditions the last writer wins: a job may then be made twice
    in a race of two submissions, as without records.
    """

    def __init__(self, store: Store, *, clock: Callable[[], datetime] | None = None) -> None:
        self._store = store
        self._conditions = Conditions(store)
        self._clock = clock or (lambda: datetime.now(UTC))

    def get(self, job_id: str) -> JobRecord:
        """The record as it is now; one request. Raises JobNotFound, StoreError."""
        return self._read(job_id)[0]

    def create(self, record: JobRecord) -> tuple[JobRecord, bool]:
        """Write a record that is not there; the one that counts, and whether it is new.

        The open marker goes first: a crash in between leaves a marker without a record, which a
        sweep removes, never a record that nobody looks after.
        """
        self._store.put(f"{OPEN}{record.id}", b"")
        try:
            self._conditions.create(_key(record.id), record.to_json())
        except PreconditionFailed:
            found = self.get(record.id)  # another's, or our own behind a lost reply
            return found, found == record
        return record, True

    def list_newest(self, record: JobRecord) -> None:
        """Put the record into the listing; again is no harm."""
        self._store.put(_newest_key(record), b"")

    def change(self, job_id: str, change: Change) -> JobRecord:
        """Apply a change to the record as it is, again when another writer came first.

        Raises:
            JobNotFound, RecordBusy, StoreError, and what `change` raises.
        """
        for _ in range(_TRIES):
            record, etag = self._read(job_id)
            if (written := self._replace(record, change(record), etag)) is not None:
                return written
        raise RecordBusy(job_id)

    def claim(self, job_id: str, platform_id: str, task: str) -> JobRecord:
        """Say that this RunPod job makes the request; two requests to the store.

        Returns:
            The record: final when the request was answered before, else running by this job.

        Raises:
            AlreadyRunning: another RunPod job has claimed it.
        """
        now = self._clock()
        new = JobRecord(id=job_id, task=task, created_at=now, updated_at=now)

        def claimed(record: JobRecord) -> JobRecord:
            if record.final or record.run_by == platform_id:
                return record
            if record.run_by is not None:
                raise AlreadyRunning(job_id, record.run_by)
            return record.model_copy(update={"state": "running", "run_by": platform_id})

        try:
            return self.change(job_id, claimed)
        except JobNotFound:  # sent to RunPod directly, without a gateway
            self.create(new)
            return self.change(job_id, claimed)

    def finish(self, job_id: str, answer: dict[str, Any]) -> JobRecord:
        """Write how the job ended, unless that stands there already; the record that counts."""
        return self.change(job_id, lambda record: record.ended(answer, self._clock()))

    def forget(self, record: JobRecord) -> None:
        """Remove a record and its markers for good, the record last: it tells where they are."""
        self.settle(record.id)
        self._store.delete(_newest_key(record))
        self._store.delete(_key(record.id))

    def settle(self, job_id: str) -> None:
        """Nothing is left to do for this job: its open marker goes."""
        self._store.delete(f"{OPEN}{job_id}")

    def open_ids(self) -> Iterator[tuple[str, float]]:
        """Jobs that are not settled, each with the epoch seconds of its acceptance."""
        for info in self._store.list(OPEN):
            yield info.key.removeprefix(OPEN), info.modified

    def ids(self) -> Iterator[str]:
        """Every job that has a record, listed or not."""
        for info in self._store.list(FOLDER):
            if info.key.endswith(".json") and not info.key.startswith((OPEN, NEWEST)):
                yield info.key.removeprefix(FOLDER).removesuffix(".json")

    def newest_ids(self, *, after: str = "", limit: int = 50) -> Iterator[tuple[str, str]]:
        """(place, id) of jobs, newest first, behind a place of an earlier page."""
        start = f"{NEWEST}{after}" if after else ""
        for info in self._store.list(NEWEST, start_after=start, page_size=limit):
            place = info.key.removeprefix(NEWEST)
            yield place, place.partition("-")[2]

    def _read(self, job_id: str) -> tuple[JobRecord, str]:
        try:
            found = self._store.get(_key(job_id))
        except ObjectMissing:
            raise JobNotFound(job_id) from None
        try:
            return JobRecord.model_validate_json(found.body), found.etag
        except ValidationError as error:
            raise DocumentInvalid(found.key, "it is damaged") from error

    def _replace(self, old: JobRecord, new: JobRecord, etag: str) -> JobRecord | None:
        """The record as written; None when another writer came first."""
        if new == old:
            return old
        update = {"revision": old.revision + 1, "updated_at": self._clock()}
        written = new.model_copy(update=update)
        try:
            self._conditions.replace(_key(old.id), written.to_json(), etag)
        except PreconditionFailed:
            # Perhaps our own write behind a lost reply: then the change, replayed, changes nothing.
            return None
        return written


def checked_record_id(job_id: str) -> str:
    """The id if it is one. Raises JobNotFound: what cannot be an id names no job."""
    if not _RECORD_ID.fullmatch(job_id):
        raise JobNotFound(job_id)
    return job_id


def _key(job_id: str) -> str:
    return f"{FOLDER}{checked_record_id(job_id)}.json"


def _newest_key(record: JobRecord) -> str:
    inverted = _LAST_MS - (record.created_at - _EPOCH) // timedelta(milliseconds=1)
    return f"{NEWEST}{inverted:013d}-{record.id}"
