"""Routes of jobs: making pictures, clips and characters, and following what was asked for."""

import asyncio
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from gateway.events import stream
from gateway.jobs import Order, view
from gateway.openapi import takes
from gateway.problems import Invalid
from gateway.requests import Parts, job_id_for, json_body, wait_s
from gateway.services import Services
from lora_registry.job_records import JobRecord, checked_record_id

router = APIRouter(tags=["jobs"])

_POLL_S: Final = 0.25
_MAX_PAGE: Final = 100
JSON_LIMIT: Final = 10_000_000


@router.post("/generate-image", status_code=202, openapi_extra=takes("ImageJob"))
async def generate_image(request: Request, parts: Parts) -> Response:
    """Make pictures. 202 with the job, or 200 with its end within `Prefer: wait=N`."""
    return await accepted(request, parts, {**await json_body(request), "task": "image"})


@router.post("/generate-video", status_code=202, openapi_extra=takes("VideoJob"))
async def generate_video(request: Request, parts: Parts) -> Response:
    """Make a clip."""
    return await accepted(request, parts, {**await json_body(request), "task": "video"})


@router.post("/characters", status_code=202, openapi_extra=takes("TrainJob", "CharactersJob"))
async def create_character(request: Request, parts: Parts) -> Response:
    """Train a character from photos; with `source`, register a LoRA file instead.

    With `references`, 1 to 5 photos, the character is there at once, without a training.
    """
    body = await json_body(request)
    kind = {"task": "train"}
    if "source" in body:
        kind = {"task": "characters", "action": "register"}
    elif "references" in body:
        kind = {"task": "characters", "action": "create"}
    return await accepted(request, parts, {**body, **kind})


@router.post("/workflows/{name}", status_code=202)
async def run_workflow(name: str, request: Request, parts: Parts) -> Response:
    """Run a workflow with the inputs and params that it declares."""
    body = {**await json_body(request), "workflow": name}
    kind = parts.workflows[name].kind  # raises WorkflowNotFound
    task = kind if kind in {"image", "video"} else "workflow"
    return await accepted(request, parts, {**body, "task": task})


@router.get("/jobs")
async def list_jobs(parts: Parts, limit: int = 50, cursor: str = "") -> dict[str, Any]:
    """Jobs, newest first; `cursor` is null at the end."""
    size = min(max(1, limit), _MAX_PAGE)

    def page() -> list[tuple[str, JobRecord]]:
        records = parts.jobs.records
        found = []
        for place, job_id in records.newest_ids(after=_place(cursor), limit=size):
            found.append((place, records.get(job_id)))
            if len(found) == size:
                break
        return found

    found = await asyncio.to_thread(page)
    return {
        "jobs": [view(record, None, parts.presign) for _, record in found],
        "cursor": found[-1][0] if len(found) == size else None,
    }


def _place(cursor: str) -> str:
    if cursor and not (cursor.isascii() and cursor.replace("-", "").replace("_", "").isalnum()):
        raise Invalid("cursor is not one that a listing gave.", field="cursor")
    return cursor


@router.get("/jobs/{job_id}")
async def get_job(job_id: str, parts: Parts) -> Response:
    """A job as it stands; readable for as long as the bucket keeps its record."""
    record, job = await parts.jobs.look(await parts.jobs.get(checked_record_id(job_id)))
    return JSONResponse(view(record, job, parts.presign))


@router.get("/jobs/{job_id}/events")
async def job_events(job_id: str, request: Request, parts: Parts) -> Response:
    """The job as Server-Sent Events until it ends; goes on behind `Last-Event-ID`."""
    record = await parts.jobs.get(checked_record_id(job_id))
    return stream(record, parts, request.headers.get("last-event-id"))


@router.post("/jobs/{job_id}/cancel")
async def cancel_job(job_id: str, parts: Parts) -> Response:
    """End a job; one that has ended stays as it is."""
    record = await parts.jobs.cancel(checked_record_id(job_id))
    return JSONResponse(view(record, None, parts.presign))


@router.post("/hooks/runpod/{job_id}/{token}", include_in_schema=False)
async def runpod_hook(job_id: str, token: str, parts: Parts) -> dict[str, str]:
    """RunPod says that a job ended: look, whatever it says."""
    if parts.jobs.matches(checked_record_id(job_id), token):
        await parts.sweep.visit(job_id)
    return {"status": "ok"}


async def accepted(request: Request, parts: Services, job_input: dict[str, Any]) -> Response:
    """Submit a job and answer as the caller prefers."""
    webhook = job_input.pop("webhook", None)
    if webhook is not None:
        if not isinstance(webhook, str):
            raise Invalid("webhook: must be a text of 1 to 8192 characters.", field="webhook")
        parts.webhooks.check(webhook)
    if job_input.pop("request_id", None) is not None:
        raise Invalid("request_id: send an Idempotency-Key header instead.", field="request_id")
    order = Order(job_id_for(request), job_input, webhook)
    record = await parts.jobs.submit(order)
    record = await _waited(parts, record, wait_s(request))
    document = view(record, None, parts.presign)
    headers = {"Location": f"/jobs/{record.id}"}
    return JSONResponse(document, 200 if record.final else 202, headers=headers)


async def _waited(parts: Services, record: JobRecord, seconds: int) -> JobRecord:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not record.final and loop.time() < deadline:
        await asyncio.sleep(min(_POLL_S, max(0.0, deadline - loop.time())))
        record, _ = await parts.jobs.look(record)
    return record
