"""What a health job returns: the GPU, ComfyUI, the store, disks, workflows, families."""

from typing import Annotated, Literal

from pydantic import Field

from worker.results import Result


class GpuResult(Result):
    """One device as ComfyUI sees it; memory in bytes."""

    name: str | None = None
    type: str | None = None
    vram_total: int | None = None
    vram_free: int | None = None


class ComfyUIHealth(Result):
    """ComfyUI; `starts` counts its starts, 1 while it never had to be restarted."""

    ok: bool
    error: str | None = None
    starts: int | None = None
    gpu: list[GpuResult] = Field(default_factory=list)


class StorageHealth(Result):
    """The bucket."""

    ok: bool
    error: str | None = None
    provider: str
    bucket: str


class DiskHealth(Result):
    """The local disk, in bytes."""

    ok: bool
    total: int
    free: int


class WorkflowHealth(Result):
    """One workflow, and what ComfyUI lacks for it."""

    kind: str
    digest: str
    ok: bool
    problems: list[str]


class CacheHealth(Result):
    """The LoRA cache, in bytes."""

    files: int
    bytes: int
    budget_bytes: int


class FamilyHealth(Result):
    """One base model, and what this worker lacks to use its characters."""

    title: str
    licence: str
    commercial: bool
    workflows: list[str]
    trainers: list[str]
    ok: bool
    lacks: list[str]


class LikenessHealth(Result):
    """Whether likeness is measured, by which scorer, and else why not."""

    measured: bool
    scorer: str
    version: str | None = None
    problem: str | None = None


class HealthResult(Result):
    """The result of health jobs."""

    task: Literal["health"]
    job_id: str
    ok: Annotated[bool, Field(description="All parts are well and a task can be done.")]
    tasks: list[str]
    cannot: Annotated[
        dict[str, list[str]], Field(description="Tasks that cannot be done now, and why.")
    ]
    versions: dict[str, str]
    workflows: dict[str, WorkflowHealth]
    families: dict[str, FamilyHealth]
    cache: CacheHealth
    comfyui: ComfyUIHealth
    storage: StorageHealth
    disk: DiskHealth
    likeness: LikenessHealth
