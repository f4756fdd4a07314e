"""The health branch: what runs here and whether it is well."""

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from lora_registry.store import StoreError
from worker.contract import HealthJob
from worker.errors import WorkerError
from worker.generation.jobs import OUT_OF_REACH, loras_out_of_reach
from worker.health_results import (
    CacheHealth,
    ComfyUIHealth,
    DiskHealth,
    FamilyHealth,
    GpuResult,
    HealthResult,
    LikenessHealth,
    StorageHealth,
    WorkflowHealth,
)
from worker.likeness.scorer import NAME
from worker.resources import JobContext, Resources
from worker.training.weights import find_checkpoint

_MAKING: Final = frozenset({"image", "video", "train"})  # the tasks that need models


def run(_job: HealthJob, resources: Resources, context: JobContext) -> HealthResult:
    """Look at every part; one that is not well says so and spoils `ok`, it never raises."""
    comfyui, storage = _comfyui(resources), _storage(resources)
    disk = _disk(resources.settings.work_dir)
    lacking = resources.availability.lacking()
    cannot = _cannot(resources, lacking)
    making = _MAKING.intersection(resources.settings.worker_tasks)
    return HealthResult(
        task="health",
        job_id=context.job_id,
        ok=comfyui.ok and storage.ok and disk.ok and (not making or bool(making - cannot.keys())),
        tasks=list(resources.settings.worker_tasks),
        cannot=cannot,
        versions=dict(resources.availability.versions),
        workflows={
            name: WorkflowHealth(
                kind=workflow.kind,
                digest=workflow.digest,
                ok=name not in lacking,
                problems=list(lacking.get(name, [])),
            )
            for name, workflow in resources.workflows.items()
        }
        | {
            name: WorkflowHealth(kind="", digest="", ok=False, problems=lacking[name])
            for name in resources.workflows.broken
        },
        families=_families(resources, lacking),
        cache=CacheHealth(**dataclasses.asdict(resources.loras.usage())),
        comfyui=comfyui,
        storage=storage,
        disk=disk,
        likeness=LikenessHealth(
            measured=resources.scorer.lacking is None,
            scorer=NAME,
            version=resources.scorer.version,
            problem=resources.scorer.lacking,
        ),
    )


def _cannot(resources: Resources, lacking: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Tasks of this worker that no job could succeed at, each with its reasons."""
    cannot = {}
    for task in _MAKING.intersection(resources.settings.worker_tasks):
        if (
            reasons := _train_lacks(resources)
            if task == "train"
            else _lacks(resources, lacking, task)
        ):
            cannot[task] = reasons
    return cannot


def _lacks(resources: Resources, lacking: Mapping[str, list[str]], kind: str) -> list[str]:
    """Why no workflow of this kind can run, or nothing when one can."""
    names = [name for name, flow in resources.workflows.items() if flow.kind == kind]
    if any(name not in lacking for name in names):
        return []
    reasons = dict.fromkeys(reason for name in names for reason in lacking[name])
    return list(reasons) or [f"there is no {kind} workflow"]


def _train_lacks(resources: Resources) -> list[str]:
    settings = resources.settings
    if find_checkpoint(settings.train_checkpoint, settings.checkpoint_folders):
        return []
    return [f"checkpoint '{settings.train_checkpoint}' is in no models folder"]


def _families(
    resources: Resources, lacking: Mapping[str, Sequence[str]]
) -> dict[str, FamilyHealth]:
    """A family is well when a workflow that takes its LoRAs can run."""
    found = {}
    for name, family in resources.families.items():
        workflows = [
            workflow.name
            for workflow in resources.workflows.values()
            if workflow.base_model == name and workflow.loras
        ]
        ok = any(workflow not in lacking for workflow in workflows)
        lacks = [text for workflow in workflows for text in lacking.get(workflow, ())]
        if loras_out_of_reach(resources.settings):
            ok, lacks = False, [OUT_OF_REACH]
        found[name] = FamilyHealth(
            title=family.title,
            licence=family.licence.name,
            commercial=family.licence.commercial,
            workflows=workflows,
            trainers=list(family.training.engines) if family.training else [],
            ok=ok,
            lacks=[] if ok else lacks or ["no workflow of this worker takes its LoRAs"],
        )
    return found


def _comfyui(resources: Resources) -> ComfyUIHealth:
    try:
        stats = resources.comfyui.system_stats()
    except WorkerError as error:
        return ComfyUIHealth(ok=False, error=str(error))
    devices = [
        GpuResult(**{field: device.get(field) for field in GpuResult.model_fields})
        for device in stats.get("devices", [])
    ]
    engine = resources.engine
    return ComfyUIHealth(ok=engine.alive, starts=engine.generation, gpu=devices)


def _storage(resources: Resources) -> StorageHealth:
    provider, bucket = resources.settings.storage_provider, resources.settings.s3_bucket
    try:
        resources.store.check()
    except StoreError as error:
        return StorageHealth(ok=False, error=str(error), provider=provider, bucket=bucket)
    return StorageHealth(ok=True, provider=provider, bucket=bucket)


def _disk(folder: Path) -> DiskHealth:
    usage = shutil.disk_usage(folder)
    return DiskHealth(ok=usage.free > 0, total=usage.total, free=usage.free)
