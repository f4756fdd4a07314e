"""The health branch: what runs here and whether it is well."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

from lora_registry.store import StoreError
from worker.contract import HealthJob
from worker.errors import WorkerError
from worker.resources import JobContext, Resources


def run(_job: HealthJob, resources: Resources, context: JobContext) -> dict[str, Any]:
    """Look at every part; one that is not well says so and spoils `ok`, it never raises."""
    parts = {
        "comfyui": _comfyui(resources),
        "storage": _storage(resources),
        "disk": _disk(resources.settings.work_dir),
    }
    lacking = resources.availability.lacking()
    return {
        "task": "health",
        "job_id": context.job_id,
        "ok": all(part["ok"] for part in parts.values()),
        "tasks": list(resources.settings.worker_tasks),
        "versions": dict(resources.availability.versions),
        "workflows": {
            name: {
                "kind": workflow.kind,
                "digest": workflow.digest,
                "ok": name not in lacking,
                "problems": lacking.get(name, []),
            }
            for name, workflow in resources.workflows.items()
        }
        | {name: {"ok": False, "problems": lacking[name]} for name in resources.workflows.broken},
        "cache": dataclasses.asdict(resources.loras.usage()),
        **parts,
    }


def _comfyui(resources: Resources) -> dict[str, Any]:
    try:
        stats = resources.comfyui.system_stats()
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
    return {"ok": resources.engine.alive, "starts": resources.engine.generation, "gpu": devices}


def _storage(resources: Resources) -> dict[str, Any]:
    settings = resources.settings
    known = {"provider": settings.storage_provider, "bucket": settings.s3_bucket}
    try:
        resources.store.check()
    except StoreError as error:
        return {"ok": False, "error": str(error), **known}
    return {"ok": True, **known}


def _disk(folder: Path) -> dict[str, Any]:
    usage = shutil.disk_usage(folder)
    return {"ok": usage.free > 0, "total": usage.total, "free": usage.free}
