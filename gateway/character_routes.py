"""Routes of characters: what the bucket answers without a GPU."""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from gateway.job_routes import accepted
from gateway.outputs import MAX_LIMIT, outputs_page
from gateway.requests import Parts, job_id_for, json_body, parsed
from gateway.services import Services
from lora_registry import layout
from lora_registry.character import CharacterRecord, CharacterVersion
from lora_registry.errors import VersionNotFound
from worker.contract_fields import ShortText, VersionId

router = APIRouter(tags=["characters"])


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Rename(_Body):
    """What of a character can be changed."""

    name: ShortText


class Activate(_Body):
    """Which version to make the active one."""

    version: VersionId


@router.get("/characters")
async def list_characters(
    parts: Parts,
    order: Literal["id", "newest"] = "newest",
    status: Literal["active", "deleted"] | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> dict[str, Any]:
    """One page of characters; `cursor` is null at the end."""

    def page() -> dict[str, Any]:
        found = parts.registry.list(order=order, status=status, limit=limit, cursor=cursor)
        lines = [_summary(parts, head) for head in found.characters]
        return {"characters": lines, "cursor": found.cursor}

    return await asyncio.to_thread(page)


@router.get("/characters/{character_id}")
async def get_character(character_id: str, parts: Parts) -> dict[str, Any]:
    """A character and every version, oldest first; a deleted one, too, with its status."""

    def read() -> dict[str, Any]:
        head = parts.registry.get(character_id, tombstone=True)
        versions = parts.registry.versions(character_id)
        return {
            "character": {**head.model_dump(mode="json"), **_preview(parts, head)},
            "versions": [_version(parts, version) for version in versions],
        }

    return await asyncio.to_thread(read)


@router.patch("/characters/{character_id}")
async def rename_character(character_id: str, request: Request, parts: Parts) -> Response:
    """Give a character another display name."""
    body = parsed(Rename, await json_body(request))
    job_id = job_id_for(request)
    return await _head(
        lambda: parts.registry.rename(character_id, body.name, job_id=job_id),
    )


@router.delete("/characters/{character_id}")
async def delete_character(character_id: str, request: Request, parts: Parts) -> Response:
    """Leave a tombstone: refused from now on, restorable until its files are swept."""
    job_id = job_id_for(request)
    return await _head(lambda: parts.registry.delete(character_id, job_id=job_id))


@router.post("/characters/{character_id}/restore")
async def restore_character(character_id: str, request: Request, parts: Parts) -> Response:
    """Take a deletion back."""
    job_id = job_id_for(request)
    return await _head(lambda: parts.registry.restore(character_id, job_id=job_id))


@router.post("/characters/{character_id}/activate")
async def activate_version(character_id: str, request: Request, parts: Parts) -> Response:
    """Make a version the active one."""
    body = parsed(Activate, await json_body(request))
    job_id = job_id_for(request)
    return await _head(lambda: parts.registry.activate(character_id, body.version, job_id=job_id))


@router.post("/characters/{character_id}/rollback")
async def rollback_character(character_id: str, request: Request, parts: Parts) -> Response:
    """Make the version active that was before the present one."""
    job_id = job_id_for(request)
    return await _head(lambda: parts.registry.rollback(character_id, job_id=job_id))


@router.post("/characters/{character_id}/erase", status_code=202)
async def erase_character(character_id: str, request: Request, parts: Parts) -> Response:
    """Remove everything of a character for good, by a job that reports what went."""
    job = {"task": "characters", "action": "erase", "character_id": character_id}
    return await accepted(request, parts, {**await json_body(request), **job})


@router.get("/characters/{character_id}/outputs")
async def character_outputs(
    character_id: str,
    parts: Parts,
    limit: int = 20,
    cursor: Annotated[str | None, "of the page before"] = None,
) -> dict[str, Any]:
    """Pictures and clips of a character by job, newest first."""
    size = min(max(1, limit), MAX_LIMIT)
    return await asyncio.to_thread(
        outputs_page, parts.store, character_id, parts.presign, limit=size, cursor=cursor
    )


async def _head(change: Any) -> Response:
    head: CharacterRecord = await asyncio.to_thread(change)
    return JSONResponse({"character": head.model_dump(mode="json")})


def _summary(parts: Services, head: CharacterRecord) -> dict[str, Any]:
    return {**head.summary(), "created_at": _iso(head), **_preview(parts, head)}


def _iso(head: CharacterRecord) -> str:
    return head.created_at.isoformat().replace("+00:00", "Z")


def _preview(parts: Services, head: CharacterRecord) -> dict[str, Any]:
    """The preview sheet of the active version, where a training left one."""
    if head.active is None:
        return {"preview": None}
    try:
        version = parts.registry.version(head.character_id, head.active.id)
    except VersionNotFound:
        return {"preview": None}
    return {"preview": _version(parts, version)["preview"]}


def _version(parts: Services, version: CharacterVersion) -> dict[str, Any]:
    document = {**version.model_dump(mode="json"), "preview": None, "curve": None}
    if version.training is None:
        return document
    folder = layout.training_prefix(version.character_id, version.id)
    for name, file in (("preview", "previews.png"), ("curve", "loss.png")):
        key = f"{folder}{file}"
        document[name] = {"key": key, "url": parts.presign(key)[0]}
    return document
