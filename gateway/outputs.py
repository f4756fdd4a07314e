"""A character's pictures and clips, newest first, straight from the bucket's folders by day."""

import base64
import binascii
import json
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from gateway.jobs import Presign
from gateway.problems import Invalid
from lora_registry import layout
from lora_registry.store import ObjectInfo, Store
from worker.storage import content_type_for

MAX_LIMIT: Final = 100
Place = tuple[str, int, str]  # day, milliseconds, job id: sorts as the page does, reversed


def outputs_page(
    store: Store, character_id: str, presign: Presign, *, limit: int, cursor: str | None
) -> dict[str, Any]:
    """One page of jobs with their outputs.

    Raises:
        InvalidRequest, Invalid: an id or cursor that is none.
        StoreError.
    """
    prefix = f"{layout.folder(character_id)}outputs/"
    before = _opened(cursor)
    found: list[dict[str, Any]] = []
    last: Place | None = None
    for place, objects in _newest(store, prefix, before):
        if len(found) == limit and last is not None:
            return {"jobs": found, "cursor": _sealed(last)}
        found.append(_entry(place, objects, presign))
        last = place
    return {"jobs": found, "cursor": None}


def _newest(
    store: Store, prefix: str, before: Place | None
) -> Iterator[tuple[Place, list[ObjectInfo]]]:
    for day in _days(store, prefix):
        if before is not None and day > before[0]:
            continue
        jobs: defaultdict[str, list[ObjectInfo]] = defaultdict(list)
        for info in store.list(f"{prefix}{day}/"):
            jobs[info.key.removeprefix(f"{prefix}{day}/").partition("/")[0]].append(info)
        places = [
            (day, int(max(info.modified for info in objects) * 1000), job_id)
            for job_id, objects in jobs.items()
        ]
        for place in sorted(places, reverse=True):
            if before is None or place < before:
                yield place, jobs[place[2]]


def _days(store: Store, prefix: str) -> Iterator[str]:
    for year in _down(store, prefix):
        for month in _down(store, f"{prefix}{year}/"):
            for day in _down(store, f"{prefix}{year}/{month}/"):
                yield f"{year}/{month}/{day}"


def _down(store: Store, prefix: str) -> list[str]:
    return sorted(store.list_folders(prefix), reverse=True)


def _entry(place: Place, objects: list[ObjectInfo], presign: Presign) -> dict[str, Any]:
    outputs = [_output(info, presign) for info in objects if not info.key.endswith(".json")]
    manifest = next((info.key for info in objects if info.key.endswith("manifest.json")), None)
    made_at = datetime.fromtimestamp(place[1] / 1000, UTC)
    return {
        "job_id": place[2],
        "created_at": made_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "outputs": outputs,
        "manifest": {"key": manifest, "url": presign(manifest)[0]} if manifest else None,
    }


def _output(info: ObjectInfo, presign: Presign) -> dict[str, Any]:
    url, expires_at = presign(info.key)
    kind = content_type_for(info.key)
    return {
        "kind": kind.partition("/")[0],
        "key": info.key,
        "url": url,
        "expires_at": expires_at,
        "content_type": kind,
        "bytes": info.size,
    }


def _sealed(place: Place) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def _opened(cursor: str | None) -> Place | None:
    if cursor is None:
        return None
    try:
        day, at, job_id = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        return str(day), int(at), str(job_id)
    except (binascii.Error, ValueError, TypeError) as error:
        raise Invalid("cursor is not one that a listing gave.", field="cursor") from error
