"""Jobs from their acceptance to their end, whatever crashes in between.

A submission is four steps: record, RunPod's `/run`, the id it gave into the record, the listing. A
gateway may die between any two. Whoever looks at the record later (a retry with the same
Idempotency-Key, a reader, the sweep of any gateway) takes the next step. RunPod may then get the
same request twice; the worker's claim on the record sees to it that one of them is made.
"""

import asyncio
import hashlib
import hmac
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from gateway.endpoint import Endpoint, PlatformJob
from gateway.inline import lifted
from gateway.problems import Conflict, EndpointUnavailable
from gateway.settings import GatewaySettings
from lora_registry.job_records import JobRecord, JobRecords, Webhook
from lora_registry.store import Store
from worker.contract import parse_job

log = logging.getLogger(__name__)
T = TypeVar("T")

_MAX_TIMEOUT_S: Final = 7 * 86_400  # RunPod's own limit of executionTimeout
_DEFAULT_TIMEOUT_S: Final = {"train": 14_400.0}
_SPARE_S: Final = 600.0  # fetching, uploads and a start of ComfyUI come on top of a job's own time
_ENDS: Final = {
    "CANCELLED": {"code": "cancelled", "error": "The job was cancelled."},
    "TIMED_OUT": {
        "code": "timeout",
        "error": "RunPod ended the job at its time limit; give it a longer timeout_s.",
    },
    None: {
        "code": "internal",
        "error": "RunPod knows this job no more, and it left no result; send it again.",
    },
    "COMPLETED": {"code": "internal", "error": "The job ended without a result; send it again."},
    "FAILED": {"code": "internal", "error": "The job failed without a reason; see RunPod's log."},
}


@dataclass(frozen=True, slots=True)
class Order:
    """What a caller asks for: a job's input, who asks under which key, and whom to tell."""

    id: str
    input: Mapping[str, Any]
    webhook: str | None = None

    @property
    def fingerprint(self) -> str:
        """The sha256 of what is asked."""
        asked = json.dumps([self.input, self.webhook], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(asked.encode("utf-8", "surrogatepass")).hexdigest()


class Jobs:
    """The jobs of one deployment; belongs to the event loop, shared with any number of gateways."""

    def __init__(
        self, settings: GatewaySettings, store: Store, records: JobRecords, endpoint: Endpoint
    ) -> None:
        self._settings = settings
        self._store = store
        self.records = records
        self._endpoint = endpoint
        self._resubmit_after = timedelta(seconds=settings.resubmit_after_s)
        self._key = settings.runpod_api_key.get_secret_value().encode()

    async def submit(self, order: Order) -> JobRecord:
        """Accept a job, or find that it was accepted before.

        Raises:
            InvalidInput: not a job; nothing was written.
            Conflict: its Idempotency-Key was used for another one.
            EndpointUnavailable: RunPod refuses it; sent again, it is tried again.
            StoreError: try again, with the same Idempotency-Key.
        """
        job = parse_job(dict(order.input))
        small = await asyncio.to_thread(lifted, order.input, order.id, self._store)
        now = datetime.now(UTC)
        new = JobRecord(
            id=order.id,
            task=job.task,
            input=small,
            fingerprint=order.fingerprint,
            endpoint_id=self._settings.endpoint_of(job.task),
            submitted_at=now,
            webhook=Webhook(url=order.webhook) if order.webhook else None,
            created_at=now,
            updated_at=now,
        )
        record, created = await asyncio.to_thread(self.records.create, new)
        if record.fingerprint != order.fingerprint:
            raise Conflict(
                "This Idempotency-Key was used for another request; choose a new one.",
                field="Idempotency-Key",
                details={"job_id": record.id},
            )
        await asyncio.to_thread(self.records.list_newest, record)
        return await self._send(record) if created else await self.resume(record)

    async def resume(self, record: JobRecord) -> JobRecord:
        """Take the step that a submission did not come to: send it, once it is surely nobody's."""
        now = datetime.now(UTC)
        refused = was_refused(record)
        due = record.submitted_at is None or now - record.submitted_at > self._resubmit_after
        if not refused and (record.final or record.run_by or record.platform_ids or not due):
            return record

        def mine(current: JobRecord) -> JobRecord:
            if current.submitted_at != record.submitted_at:
                return current  # somebody else took the step meanwhile
            if current.final and not was_refused(current):
                return current
            webhook = current.webhook and current.webhook.model_copy(update={"next_at": None})
            opened = {
                "webhook": webhook,
                "state": "accepted",
                "error": None,
                "finished_at": None,
                "submitted_at": now,
            }
            return current.model_copy(update=opened)

        changed = await asyncio.to_thread(self.records.change, record.id, mine)
        return await self._send(changed) if changed.submitted_at == now else changed

    async def _send(self, record: JobRecord) -> JobRecord:
        fields: dict[str, Any] = {"policy": _policy(record)}
        if self._settings.public_url:
            base = self._settings.public_url.rstrip("/")
            fields["webhook"] = f"{base}/hooks/runpod/{record.id}/{self.token(record.id)}"
        job_input = {**record.input, "request_id": record.id}
        try:
            job = await self._endpoint.run(record.endpoint_id or "", job_input, **fields)
        except EndpointUnavailable as error:
            if error.sent:  # RunPod may have it: the sweep looks after the record
                log.warning("submission unanswered", extra={"job_id": record.id})
                return record
            words = {"error": str(error), "code": error.code.value, "retryable": True}
            await asyncio.to_thread(self.records.finish, record.id, words)
            raise

        def known(current: JobRecord) -> JobRecord:
            if job.id in current.platform_ids:
                return current
            ids = (*current.platform_ids, job.id)
            return current.model_copy(update={"platform_ids": ids})

        return await asyncio.to_thread(self.records.change, record.id, known)

    async def get(self, job_id: str) -> JobRecord:
        """The record as it is now. Raises JobNotFound, StoreError."""
        return await asyncio.to_thread(self.records.get, job_id)

    async def look(self, record: JobRecord) -> tuple[JobRecord, PlatformJob | None]:
        """What became of a job since its record was read: one request to RunPod while it runs.

        Raises:
            EndpointUnavailable, StoreError.
        """
        if record.final:
            return record, None
        tracked = _tracked(record)
        if tracked is None:
            current = await self.get(record.id)
            return await self.resume(current), None
        job = await self._endpoint.status(record.endpoint_id or "", tracked)
        if not job.ended:
            return record, job
        # A worker writes the record before it answers, so what stands there now counts first.
        current = await self.get(record.id)
        if current.final or _tracked(current) != tracked:
            return current, None
        answer = job.answer() or {**_ENDS.get(job.status, _ENDS[None]), "retryable": False}
        log.info("job ended at RunPod", extra={"job_id": record.id, "platform": job.status})
        return await asyncio.to_thread(self.records.finish, record.id, answer), None

    async def cancel(self, job_id: str) -> JobRecord:
        """End a job; one that has ended stays as it is. Raises JobNotFound, EndpointUnavailable."""
        record = await self.get(job_id)
        if record.final:
            return record
        cancelled = {**_ENDS["CANCELLED"], "retryable": False}
        record = await asyncio.to_thread(self.records.finish, job_id, cancelled)
        ids = {*record.platform_ids, *([record.run_by] if record.run_by else [])}
        for platform_id in ids:
            await self._endpoint.cancel(record.endpoint_id or "", platform_id)
        return record

    def token(self, job_id: str) -> str:
        """What RunPod's webhook must bring to be heard."""
        return hmac.new(self._key, job_id.encode(), hashlib.sha256).hexdigest()[:32]

    def matches(self, job_id: str, token: str) -> bool:
        """Whether a token is the job's, in constant time."""
        return hmac.compare_digest(self.token(job_id).encode(), token.encode())


def job_id_of(caller: str, idempotency_key: str) -> str:
    """The id of the one job that a caller's Idempotency-Key stands for."""
    digest = hashlib.sha256(f"{caller}\0{idempotency_key}".encode("utf-8", "surrogatepass"))
    return f"job-{digest.hexdigest()[:32]}"


def was_refused(record: JobRecord) -> bool:
    """Whether RunPod would not take the job: its caller knows, and may send it again."""
    code = (record.error or {}).get("code")
    return code == "endpoint_unavailable" and not record.platform_ids


def _tracked(record: JobRecord) -> str | None:
    return record.run_by or (record.platform_ids[-1] if record.platform_ids else None)


def _policy(record: JobRecord) -> dict[str, int]:
    default = _DEFAULT_TIMEOUT_S.get(record.task, 600.0)
    own = record.input.get("timeout_s") or default
    return {"executionTimeout": int(min(own + _SPARE_S, _MAX_TIMEOUT_S) * 1000)}


Presign = Callable[[str], tuple[str, str | None]]
"""A fresh URL of an object and when it expires."""


def fresh(value: Any, presign: Presign) -> Any:
    """A result with every URL beside a key signed anew."""
    if isinstance(value, list):
        return [fresh(each, presign) for each in value]
    if not isinstance(value, dict):
        return value
    renewed = {name: fresh(each, presign) for name, each in value.items()}
    if isinstance(value.get("key"), str) and isinstance(value.get("url"), str):
        renewed["url"], expires_at = presign(value["key"])
        if "expires_at" in value and expires_at is not None:
            renewed["expires_at"] = expires_at
    return renewed


def view(record: JobRecord, job: PlatformJob | None, presign: Presign) -> dict[str, Any]:
    """A job as callers see it."""
    state = "queued" if record.state == "accepted" else record.state
    if job is not None and not record.final:
        state = "running" if job.status == "IN_PROGRESS" else state
    document = {
        "id": record.id,
        "task": record.task,
        "state": state,
        "progress": job.progress if job else None,
        "result": fresh(record.result, presign) if record.result else None,
        "error": record.error,
        "input": record.input,
        "created_at": _iso(record.created_at),
        "finished_at": _iso(record.finished_at),
        "webhook": record.webhook.model_dump(mode="json") if record.webhook else None,
    }
    return {name: value for name, value in document.items() if value is not None}


def _iso(at: datetime | None) -> str | None:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if at else None
