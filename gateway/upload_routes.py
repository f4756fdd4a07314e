"""Routes of uploads, workflows and health."""

import asyncio
import contextlib
import tempfile
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.datastructures import UploadFile as FormFile
from starlette.formparsers import MultiPartException

from errors import CodedError
from gateway.endpoint import plain_words
from gateway.problems import Invalid
from gateway.requests import Parts, json_body, parsed
from gateway.services import Services
from gateway.uploads import UploadRequest, key_of, new_upload_id, presigned, type_of

router = APIRouter()

_CHUNK = 1 << 20


@router.post("/uploads", status_code=201, tags=["uploads"])
async def create_upload(request: Request, parts: Parts) -> Response:
    """JSON: URLs to put files to, straight to the bucket. A form: the files themselves."""
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return JSONResponse(await _received(request, parts), 201)
    body = parsed(UploadRequest, await json_body(request))
    return JSONResponse(await asyncio.to_thread(presigned, body, parts.store), 201)


async def _received(request: Request, parts: Services) -> dict[str, Any]:
    upload_id = new_upload_id()
    files = []
    try:
        async with request.form(max_files=100, max_fields=20) as form:
            given = [part for _, part in form.multi_items() if isinstance(part, FormFile)]
            if not given:
                raise Invalid("files: is required.", field="files")
            for number, part in enumerate(given):
                kind = type_of(part.filename or "", part.content_type)
                key = key_of(upload_id, number, kind, part.size or 0, f"files.{number}")
                await _sent(part, key, kind, parts)
                files.append({"name": part.filename, "key": key, "bytes": part.size})
    except MultiPartException as error:
        raise Invalid("The form cannot be read.", field="body") from error
    return {"upload_id": upload_id, "files": files}


async def _sent(part: FormFile, key: str, kind: str, parts: Services) -> None:
    with contextlib.ExitStack() as held:
        path = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="upload-"))) / "file"
        with path.open("wb") as file:
            while chunk := await part.read(_CHUNK):
                file.write(chunk)
        await asyncio.to_thread(parts.store.upload, path, key, kind)


@router.get("/workflows", tags=["workflows"])
async def list_workflows(parts: Parts) -> dict[str, Any]:
    """The workflows that an endpoint of this release has, with what they may be given."""
    shown = {"name", "title", "description", "kind", "base_model", "limits", "params"}
    lines = [each.model_dump(mode="json", include=shown) for each in parts.workflows.values()]
    return {"workflows": lines}


@router.get("/health", tags=["health"])
async def health(parts: Parts) -> Response:
    """Whether bucket and endpoint can be used, with words for a person when not."""
    document: dict[str, Any] = {"status": "ok", "storage": "ok", "endpoint": None}
    try:
        await asyncio.to_thread(parts.store.check)
    except CodedError as error:
        document |= {"status": "degraded", "storage": str(error)}
    try:
        found = await parts.health.get(parts.settings.runpod_endpoint_id)
        document["endpoint"] = {**found, "note": plain_words(found)}
    except CodedError as error:
        document |= {"status": "degraded", "endpoint": {"note": str(error)}}
    return JSONResponse(document, 200 if document["status"] == "ok" else 503)


@router.get("/ping", include_in_schema=False)
async def ping() -> dict[str, str]:
    """Whether this process answers; RunPod's load balancer asks."""
    return {"status": "ok"}
