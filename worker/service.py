"""The Worker: owns every resource, sends a job to its branch, turns errors into codes."""

import errno
import logging
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, Self, assert_never

from errors import CodedError
from families.library import load_families
from families.recognition import Recogniser
from lora_registry.cache import LoraCache
from lora_registry.identity import Identities
from lora_registry.job_records import JobRecords
from lora_registry.registry import Registry
from worker import assembly, characters, health, train
from worker.availability import Availability
from worker.boot import Boot
from worker.cancel import CancelToken
from worker.comfyui.client import ComfyUIClient
from worker.contract import (
    CharactersJob,
    HealthJob,
    ImageJob,
    Job,
    TrainJob,
    VideoJob,
    WorkflowJob,
    parse_job,
)
from worker.errors import (
    DiskFull,
    EngineCrashed,
    EngineUnavailable,
    Internal,
    InvalidInput,
)
from worker.generation import jobs
from worker.generation.warmup import warm_up
from worker.likeness.scorer import Scorer, ScorerOptions
from worker.logs import job_logging
from worker.pictures import PictureOptions, Pictures
from worker.recording import claim
from worker.resources import JobContext, Progress, Resources, Send
from worker.results import error_result
from worker.schedule import GpuSchedule, JobInHand
from worker.settings import Settings
from worker.sources import SourceReader
from worker.storage import ObjectStore
from worker.storage_settings import storage_options
from workflows.library import load_library

log = logging.getLogger(__name__)

TRANSFERS: Final = 8
FREE_BYTES: Final = 1_000_000_000  # given back by the LoRA cache when a job finds the disk full
_DISK_FULL: Final = "The worker's disk is full; try again, or give it a larger one."
_UNFORESEEN: Final = "Something unforeseen went wrong; the log has it under this job's id."
_SAFE_JOB_ID = re.compile(r"[^A-Za-z0-9._-]")


class Worker:
    """One per process. Opening it starts ComfyUI and returns; `wait_ready` waits for it.

    Args:
        settings: frozen; nothing here reads the environment.

    Raises:
        WorkflowInvalid, FamilyInvalid: a folder that cannot be used.
        EngineUnavailable: ComfyUI's program is not there.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.schedule = GpuSchedule(settings.jobs_in_flight)
        self._boot = Boot()
        self._held = ExitStack()
        try:
            self.resources = self._open()
        except BaseException:
            self._held.close()
            raise

    def _open(self) -> Resources:
        settings, hold = self.settings, self._held.enter_context
        _sweep(settings)
        engine = assembly.engine_of(settings)
        self._held.callback(engine.stop)
        engine.start()
        store = hold(ObjectStore(storage_options(settings)))
        comfyui = hold(ComfyUIClient(engine))
        workflows = load_library(settings.workflows_dir)
        families = load_families(settings.families_dir)
        return Resources(
            settings=settings,
            store=store,
            sources=SourceReader(store, assembly.source_options(settings)),
            pictures=Pictures(PictureOptions(settings.image_max_pixels), settings.work_dir),
            scorer=hold(Scorer(ScorerOptions(enabled=settings.likeness == "auto"))),
            registry=Registry(store),
            identities=Identities(store),
            records=JobRecords(store),
            loras=LoraCache(store, settings.loras_folder, assembly.lora_budget(settings)),
            workflows=workflows,
            families=families,
            recogniser=Recogniser(families),
            engine=engine,
            comfyui=comfyui,
            availability=Availability(workflows, comfyui),
            pool=hold(ThreadPoolExecutor(TRANSFERS, thread_name_prefix="transfer")),
        )

    def wait_ready(self) -> None:
        """Return when jobs can be taken.

        Raises:
            EngineUnavailable: ComfyUI did not become ready.
            StoreError: the bucket cannot be used.
            WorkflowNotFound: `WARMUP_WORKFLOW` names none.
        """
        storage = self.resources.pool.submit(self._check_storage)
        with self._boot.phase("comfyui"):
            self.resources.engine.ensure_ready()
        with self._boot.phase("workflows"):
            self.resources.availability.check_all()
        if self.settings.warmup_workflow:
            with self._boot.phase("warm_up"):
                warm_up(self.resources, self.settings.warmup_workflow)
                self.resources.engine.ensure_ready()
        storage.result()
        self._boot.finish()

    def _check_storage(self) -> None:
        with self._boot.phase("storage"):
            self.resources.store.check()

    def boot_phase(self, name: str) -> AbstractContextManager[None]:
        """Count what happens inside as a phase of the start."""
        return self._boot.phase(name)

    def run(self, job_id: str, raw: object, *, cancel: CancelToken, send: Send) -> dict[str, Any]:
        """Serve one job, start to finish; never raises for what a job or its resources do.

        Args:
            job_id: RunPod's; part of the keys of the job's objects.
            raw: the job's `input`.
            cancel: set from another thread to end the job early.
            send: delivers one progress update; see `worker.resources`.

        Returns:
            The result, or an error with `error`, `code` and `retryable`; JSON either way.
        """
        safe_id = _SAFE_JOB_ID.sub("_", job_id)[:128] or "job"
        in_hand = self.schedule.begin(job_id, raw)
        try:
            with job_logging(safe_id):
                claimed = claim(self.resources.records, raw, safe_id)
                if claimed.answer is not None:
                    return claimed.answer
                return claimed.finish(self._answer(safe_id, raw, cancel, send, in_hand))
        finally:
            self.schedule.end(job_id)

    def _answer(
        self, safe_id: str, raw: object, cancel: CancelToken, send: Send, in_hand: JobInHand
    ) -> dict[str, Any]:
        log.info("job started", extra={"task": raw.get("task") if isinstance(raw, dict) else None})
        try:
            return self._with_free_space(
                lambda job: self._serve(job, safe_id, cancel, send, in_hand), raw
            )
        except CodedError as error:
            log.warning("job failed", extra={"code": error.code, "reason": str(error)})
            return self._failure(error, safe_id)
        except Exception as error:
            if _is_disk_full(error):
                return self._failure(DiskFull(_DISK_FULL), safe_id)
            log.exception("job failed unforeseen")
            return self._failure(Internal(_UNFORESEEN), safe_id)

    def _with_free_space(
        self, serve: Callable[[Job], dict[str, Any]], raw: object
    ) -> dict[str, Any]:
        """Serve a job; on a full disk once more, when the LoRA cache can give room back."""
        job = parse_job(raw)
        try:
            return serve(job)
        except (DiskFull, OSError) as error:
            if not _is_disk_full(error):
                raise
            freed = self.resources.loras.free_space(FREE_BYTES)
            if not freed:
                raise
            log.warning("disk full, unused loras removed", extra={"freed_bytes": freed})
        return serve(job)

    def _serve(
        self, job: Job, job_id: str, cancel: CancelToken, send: Send, in_hand: JobInHand
    ) -> dict[str, Any]:
        if isinstance(job, TrainJob):
            self.schedule.wait_for_gpu(in_hand, cancel)
        progress = Progress(send, observe=self.schedule.observer(in_hand))
        with self._context(job_id, cancel, progress) as context:
            result = self._dispatch(job, context)
            log.info("job done", extra={"timings_ms": context.timings.milliseconds()})
            return result

    def _failure(self, error: CodedError, job_id: str) -> dict[str, Any]:
        # By now a restart has been tried: one that did not help asks for another worker.
        lost = isinstance(error, EngineUnavailable) and not self.resources.engine.ready
        replace = lost or isinstance(error, EngineCrashed)
        return error_result(error, job_id, refresh_worker=replace).to_json()

    @contextmanager
    def _context(
        self, job_id: str, cancel: CancelToken, progress: Progress
    ) -> Iterator[JobContext]:
        folder = Path(tempfile.mkdtemp(prefix="job-", dir=self.settings.work_dir))
        try:
            with progress:
                yield JobContext(job_id, cancel, progress, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _dispatch(self, job: Job, context: JobContext) -> dict[str, Any]:
        if job.task not in self.settings.worker_tasks and job.task != "health":
            raise InvalidInput(
                f"task: {job.task} is not served here; this worker serves "
                f"{', '.join(self.settings.worker_tasks)}.",
                field="task",
            )
        match job:
            case ImageJob() | VideoJob() | WorkflowJob():
                return jobs.run(job, self.resources, context)
            case CharactersJob():
                return characters.run(job, self.resources, context).to_json()
            case HealthJob():
                return health.run(job, self.resources, context).to_json()
            case TrainJob():
                return train.run(job, self.resources, context).to_json()
            case _:
                assert_never(job)

    def close(self) -> None:
        """End ComfyUI and give everything back; idempotent."""
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _is_disk_full(error: Exception) -> bool:
    disk_full = isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}
    return disk_full or isinstance(error, DiskFull)


def _sweep(settings: Settings) -> None:
    """Make the folder for temporary files, without what a killed worker left in it."""
    settings.work_dir.mkdir(parents=True, exist_ok=True)
    for folder in (
        *settings.work_dir.glob("job-*"),
        *settings.work_dir.glob("picture-*"),
        settings.comfyui_folder,
    ):
        shutil.rmtree(folder, ignore_errors=True)
