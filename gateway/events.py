"""A job as Server-Sent Events. Each event is the whole state, so any gateway can go on.

An event's id is a digest of what it says: a client that comes back with its Last-Event-ID is sent
nothing that it knows, and a client of a job that ended is told to stay away (204).
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any, Final

from fastapi import Response
from fastapi.responses import StreamingResponse

from errors import CodedError
from gateway.endpoint import PlatformJob, plain_words
from gateway.jobs import view
from gateway.services import Services
from lora_registry.job_records import JobRecord

POLL_S: Final = 1.0
_LOOKS_PER_S: Final = 50  # of all streams together: many share what one core can ask RunPod
LIFE_S: Final = 290.0  # RunPod's load balancer ends a request after 330 s; clients come back
_QUIET_S: Final = 15.0  # proxies close what is silent for long
_RETRY_MS: Final = 1000
_QUEUE_NOTE_S: Final = 10.0  # no words about workers for a job that was only just queued


def stream(record: JobRecord, parts: Services, last_id: str | None) -> Response:
    """The answer to `GET /jobs/{id}/events`."""
    if record.final and last_id == _event_id(record, _snapshot(record, None, None)):
        return Response(status_code=204)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    events = _counted(_events(record, parts, last_id), parts)
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


async def _counted(events: AsyncIterator[str], parts: Services) -> AsyncIterator[str]:
    parts.streams += 1
    try:
        async for event in events:
            yield event
    finally:
        parts.streams -= 1


async def _events(record: JobRecord, parts: Services, last_id: str | None) -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    opened = spoke = loop.time()
    yield f"retry: {_RETRY_MS}\n\n"
    job: PlatformJob | None = None
    while loop.time() - opened < LIFE_S:
        note = None
        try:
            record, job = await parts.jobs.look(record)
            queued = not record.final and (job is None or job.status == "IN_QUEUE")
            if queued and loop.time() - opened > _QUEUE_NOTE_S:
                note = plain_words(await parts.health.of(record))
        except CodedError as error:  # RunPod or the bucket: said, and looked at again
            note = str(error)
        document = _snapshot(record, job, note)
        event_id = _event_id(record, document)
        if event_id != last_id:
            last_id, spoke = event_id, loop.time()
            yield _event(event_id, record, {**view(record, job, parts.presign), "note": note})
        elif loop.time() - spoke > _QUIET_S:
            spoke = loop.time()
            yield ": still here\n\n"
        if record.final:
            return
        await asyncio.sleep(max(POLL_S, parts.streams / _LOOKS_PER_S))


def _snapshot(record: JobRecord, job: PlatformJob | None, note: str | None) -> dict[str, Any]:
    """What an event tells, without URLs: they are signed anew each time."""
    ended = record.finished_at.isoformat() if record.finished_at else None
    running = job is not None and job.status == "IN_PROGRESS"
    state = "running" if running and not record.final else record.state
    return {
        "state": state,
        "ended": ended,
        "note": note,
        "progress": job.progress if job and not record.final else None,
    }


def _event_id(record: JobRecord, snapshot: dict[str, Any]) -> str:
    text = json.dumps([record.id, snapshot], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _event(event_id: str, record: JobRecord, document: dict[str, Any]) -> str:
    name = record.state if record.final else "progress"
    data = json.dumps(document, separators=(",", ":"))
    return f"id: {event_id}\nevent: {name}\ndata: {data}\n\n"
