"""What a branch is handed: the resources of this worker, and the job it runs in."""

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

from families.library import Families
from families.recognition import Recogniser
from lora_registry.cache import LoraCache
from lora_registry.identity import Identities
from lora_registry.job_records import JobRecords
from lora_registry.registry import Registry
from worker.availability import Availability
from worker.cancel import CancelToken
from worker.comfyui.client import ComfyUIClient
from worker.comfyui.engine import Engine
from worker.likeness.scorer import Scorer
from worker.pictures import Pictures
from worker.progress import Progress
from worker.settings import Settings
from worker.sources import SourceReader
from worker.storage import ObjectStore
from workflows.library import Library


@dataclass(frozen=True, slots=True)
class Resources:
    """Every resource of the worker; `worker.service` owns them, branches only use them.

    `pool` runs transfers; a task of the pool never waits for another task of the pool.
    """

    settings: Settings
    store: ObjectStore
    sources: SourceReader
    pictures: Pictures
    scorer: Scorer
    registry: Registry
    identities: Identities
    records: JobRecords
    loras: LoraCache
    workflows: Library
    families: Families
    recogniser: Recogniser
    engine: Engine
    comfyui: ComfyUIClient
    availability: Availability
    pool: Executor


class Timings:
    """Milliseconds per phase of one job; a phase entered twice adds up."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._phases: dict[str, float] = {}

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure what happens inside."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.add(name, (time.monotonic() - begun) * 1000)

    @property
    def busy_s(self) -> float:
        """Seconds since the job began, but for those it waited behind another one."""
        return time.monotonic() - self._started - self._phases.get("queued", 0.0) / 1000

    def add(self, name: str, milliseconds: float) -> None:
        """Count time that was measured elsewhere."""
        self._phases[name] = self._phases.get(name, 0.0) + milliseconds

    def milliseconds(self) -> dict[str, float]:
        """Every phase so far, and `total` since the job began."""
        total = (time.monotonic() - self._started) * 1000
        return {name: round(value, 1) for name, value in {**self._phases, "total": total}.items()}


@dataclass(frozen=True, slots=True)
class JobContext:
    """One job in flight. `folder` is temporary and removed when the job ends, however it ends."""

    job_id: str
    cancel: CancelToken
    progress: Progress
    folder: Path
    timings: Timings = field(default_factory=Timings)
    started_at: float = field(default_factory=time.time)
