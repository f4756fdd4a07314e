"""The health branch: what runs here and whether it is well."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

from lora_registry.store import StoreError
from worker.contract import HealthJob
from worker.errors import WorkerError
from worker.rooms import JobContext, Rooms


def run(_job: HealthJob, rooms: Rooms, context: JobContext) -> dict[str, Any]:
    """Look at every room; a part that is not well says so and spoils `ok`, it never raises."""
    parts = {
        "comfyui": _comfyui(rooms),
        "storage": _storage(rooms),
        "disk": _disk(rooms.settings.work_dir),
    }
    lacking = rooms.availability.lacking()
    return {
        "task": "health",
        "job_id": context.job_id,
        "ok": all(part["ok"] for part in parts.values()),
        "tasks": list(rooms.settings.worker_tasks),
        "versions": dict(rooms.availability.versions),
        "workflows": {
            name: {
                "kind": workflow.kind,
                "digest": workflow.digest,
                "ok": name not in lacking,
                "problems": lacking.get(name, []),
            }
            for name, workflow in rooms.workflows.items()
        },
        "cache": dataclasses.asdict(rooms.loras.usage()),
        **parts,
    }


def _comfyui(rooms: Rooms) -> dict[str, Any]:
    try:
        stats = rooms.comfyui.system_stats()
    except WorkerError as error:
        return {"ok": False, "error": str(error), "gpu": []}
    devices = [
        {
            "name": device.get("name"),
            "type": device.get("type"),
            "vram_total": device.get("vram_total"),
            "vram_free": device.get("vram_free"),
        }
        for device in stats.get("devices", [])
    ]
    return {"ok": rooms.engine.alive, "starts": rooms.engine.generation, "gpu": devices}


def _storage(rooms: Rooms) -> dict[str, Any]:
    settings = rooms.settings
    known = {"provider": settings.storage_provider, "bucket": settings.s3_bucket}
    try:
        rooms.store.check()
    except StoreError as error:
        return {"ok": False, "error": str(error), **known}
    return {"ok": True, **known}


def _disk(folder: Path) -> dict[str, Any]:
    usage = shutil.disk_usage(folder)
    return {"ok": usage.free > 0, "total": usage.total, "free": usage.free}
