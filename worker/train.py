"""The train branch: photos in, a registered and previewed character out.

Run again with the same job id after a crash at any point, it continues: what was registered is not
trained again, what was trained is not trained again, and what was reported is only returned.
"""

import contextlib
import logging
from pathlib import Path
from typing import Final

from lora_registry.character import CharacterRecord, CharacterVersion
from lora_registry.errors import CharacterDeleted, CharacterNotFound
from lora_registry.identity import FaceIdentity
from lora_registry.store import StoreError
from lora_registry.tensorfile import read_header
from lora_registry.versions import DEFAULT_STRENGTH, NewVersion
from worker.cancel import Deadline
from worker.contract import TrainJob
from worker.errors import TrainingDiverged, TrainingFailed
from worker.generation.delivery import upload_file
from worker.instant import create_from_dataset
from worker.loras import examine
from worker.resources import JobContext, Resources
from worker.training import defaults
from worker.training.captions import derived_trigger, ordinary_words, trigger_warning
from worker.training.engines import checkpoint_of, gpu_of, recipe_of, trainer_of
from worker.training.gate import SHEET, measure
from worker.training.handover import compute_capability, gpu_memory
from worker.training.preparation import IDENTITY, prepare
from worker.training.record import (
    TrainingRecord,
    closed,
    metadata_of,
    settings_of,
    settled,
    version_likeness,
    warnings_of,
)
from worker.training.report import record_key, report, sheet_key
from worker.training.trainer import PreparedDataset, TrainingSpec, kept_checkpoints
from worker.training.weights import (
    Expected,
    check_lora,
    find_checkpoint,
    trained_layers,
    write_metadata,
)
from worker.training.work import (
    LossLog,
    TrainingFolder,
    TrainingProgress,
    TrainingWork,
    bytes_needed,
    require_disk,
)
from worker.training_results import DatasetResult, GateResult, TrainResult

log = logging.getLogger(__name__)

_SPEC: Final = "spec.json"
_RECORD: Final = "record.json"
_WEIGHTS: Final = "lora.safetensors"


def run(job: TrainJob, resources: Resources, context: JobContext) -> TrainResult:
    """Train, register and preview a character.

    Raises:
        DatasetRejected, TrainingFailed, TrainingDiverged, OutOfMemory, DiskFull, Cancelled, …:
            nothing is registered then, and nothing is left on the disk.
    """
    progress = TrainingProgress(context.progress)
    character = _character(job.character_id, resources)
    version, record = _registered_before(job, resources, context), None
    if version is None:
        with TrainingFolder(resources.settings.work_dir / "training", context.job_id) as folder:
            work = begin(job, character, resources, context, folder, progress)
            record = folder.load(_RECORD, TrainingRecord)
            if record is None:
                dataset, described = prepare(work)
                if job.instant:
                    words = (work.trigger, work.class_noun)
                    create_from_dataset(job, dataset, words, resources, context)
                spec = plan(work, dataset)
                weights = train(work, spec, dataset)
                record = verify(work, spec, described, weights)
            if record.gate is None:
                record = choose(work, record)
            version = register(work, record)
    return report(job, version, record, resources, context, progress)


def begin(
    job: TrainJob,
    character: CharacterRecord | None,
    resources: Resources,
    context: JobContext,
    folder: TrainingFolder,
    progress: TrainingProgress,
) -> TrainingWork:
    """Decide what does not depend on the photos: words, time, trainer.

    Raises:
        FamilyNotFound, InvalidInput: nothing here trains that base model, or not by that trainer.
        EngineUnavailable, Cancelled: ComfyUI, whose previews are part of the job, cannot run.
    """
    recipe = recipe_of(job, resources)
    deadline = Deadline(job.timeout_s or resources.settings.train_timeout_s)
    # A worker whose ComfyUI cannot start says so now, not after hours of training.
    resources.engine.ensure_ready(context.cancel)
    stats = resources.comfyui.system_stats()
    version = str(stats.get("system", {}).get("comfyui_version", "unknown"))
    known = character.trigger if character else derived_trigger(job.character_id)
    return TrainingWork(
        job=job,
        trigger=job.trigger or known,
        class_noun=job.class_noun or (character.class_noun if character else "person"),
        gpu_memory=gpu_memory(stats),
        recipe=recipe,
        trainer=trainer_of(job, recipe, resources, version),
        deadline=deadline,
        resources=resources,
        context=context,
        folder=folder,
        progress=progress,
        losses=LossLog(folder),
    )


def plan(work: TrainingWork, dataset: PreparedDataset) -> TrainingSpec:
    """Every value of the training; an earlier run's plan goes on, its saved states fit no other.

    Raises:
        InvalidInput: the job asks for what its trainer cannot do.
    """
    engine = work.recipe.kohya if work.job.trainer == "kohya" else work.recipe.comfyui
    known = defaults.Circumstances(
        job_id=work.context.job_id,
        photos=len(dataset.photos),
        gpu_memory=work.gpu_memory,
        trigger=work.trigger,
        class_noun=work.class_noun,
        deadline_s=work.deadline.remaining,
        compute_capability=compute_capability() if work.gpu_memory is not None else None,
        tiers=work.recipe.tiers or defaults.TIERS,
        rank=engine.rank if engine else None,
        learning_rate=engine.learning_rate if engine else None,
    )
    spec = work.folder.load(_SPEC, TrainingSpec) or defaults.plan(work.job, known)
    work.folder.save(_SPEC, spec)
    return spec


def train(work: TrainingWork, spec: TrainingSpec, dataset: PreparedDataset) -> Path:
    """Train with the GPU to ourselves; returns a file that nobody has looked into yet.

    Raises:
        DiskFull: before anything is trained, or when the disk ran full.
        TrainingFailed, TrainingDiverged, OutOfMemory, EngineCrashed, TimedOut, Cancelled.
    """
    require_disk(work.folder.path, bytes_needed(spec.rank, spec.checkpoints))
    work.progress.at("training")
    folder = work.folder.kept(work.job.trainer)
    with work.context.timings.phase("training"), gpu_of(work):
        path = work.trainer.train(spec, dataset, folder, work.on_step, work.context.cancel)
    work.losses.save()
    return path


def verify(
    work: TrainingWork, spec: TrainingSpec, described: DatasetResult, path: Path
) -> TrainingRecord:
    """Check the trained file, write its metadata, and keep the record of all that was done.

    Raises:
        TrainingFailed, TrainingDiverged: the file is not the LoRA that was asked for.
        Cancelled.
    """
    settings, trainer = work.resources.settings, work.trainer.name
    base = checkpoint_of(work.recipe, settings)
    work.progress.at("checking")
    with work.context.timings.phase("checking"):
        check = check_lora(path, _expected(work, spec.rank, spec.alpha), work.context.cancel.check)
        metadata = metadata_of(
            spec, work.job.character_id, described.digest, trainer, Path(base).name
        )
        write_metadata(path, work.folder.path / _WEIGHTS, metadata)
    warning = trigger_warning(spec.trigger, ordinary_words(settings.kohya_tokenizers))
    record = TrainingRecord(
        training=settings_of(work.job, spec, trainer, Path(base).name, work.recipe),
        dataset=described,
        check=check,
        warnings=warnings_of(described, warning),
        losses=work.losses.curve(),
        identity=work.folder.load(IDENTITY, FaceIdentity),
    )
    # The record says that the weights beside it are whole and checked, so it comes last.
    work.folder.save(_RECORD, record)
    path.unlink()
    return record


def choose(work: TrainingWork, record: TrainingRecord) -> TrainingRecord:
    """Show the steps that were kept, take the most alike one; the record says which and why.

    Raises:
        Cancelled.
    """
    work.progress.at("choosing")
    if record.identity is None:
        gate = GateResult(not_measured=record.dataset.not_measured or "no face is kept")
    else:
        gate = _measured(work, record)
    record = settled(record, gate, work.job.likeness_gate)
    work.folder.save(_RECORD, record)
    return record


def _measured(work: TrainingWork, record: TrainingRecord) -> GateResult:
    """The steps that are whole, the last one included, shown and measured."""
    with work.context.timings.phase("choosing"):
        files = {}
        known = read_header(work.folder.path / _WEIGHTS).metadata
        expected = _expected(work, record.training.rank or 1, record.training.alpha)
        for step, path in kept_checkpoints(work.folder.kept(work.job.trainer)).items():
            whole = checkpoint_at(work, step)
            try:
                check_lora(path, expected, work.context.cancel.check)
            except (TrainingFailed, TrainingDiverged) as error:  # cut short by a crash
                log.warning("checkpoint passed over", extra={"step": step, "reason": str(error)})
                continue
            write_metadata(path, whole, {**known, "steps": str(step)})
            files[step] = whole
        files[record.training.steps or 0] = work.folder.path / _WEIGHTS
        latest = dict(list(files.items())[-work.job.checkpoints :])
        return measure(work, record, latest)


def checkpoint_at(work: TrainingWork, step: int) -> Path:
    """Where the checked weights of an earlier step lie."""
    return work.folder.path / f"step-{step:08d}.safetensors"


def _expected(work: TrainingWork, rank: int, alpha: float | None) -> Expected:
    """What weights of this training must be like."""
    settings = work.resources.settings
    base = checkpoint_of(work.recipe, settings)
    layers = trained_layers(find_checkpoint(base, settings.model_folders))
    # ComfyUI's trainer trains alpha along, so only kohya's can be held to what was asked for.
    alpha = alpha if work.job.trainer == "kohya" else None
    matrices = work.resources.families[work.job.base_model].matrices
    return Expected(rank, alpha, layers, work.recipe.min_modules or matrices // 2)


def register(work: TrainingWork, record: TrainingRecord) -> CharacterVersion:
    """Weights, version, head; the record lies in the bucket before, or not at all.

    Raises:
        StoreError, RegistryError, Cancelled.
    """
    job, resources, context = work.job, work.resources, work.context
    work.progress.at("registering")
    weights, gate = work.folder.path / _WEIGHTS, record.gate
    if gate is not None and gate.step not in {None, record.training.steps}:
        weights = checkpoint_at(work, gate.step or 0)
    # With a checkpoint that the operator chose, only the file says what it is of.
    stated = job.base_model if work.recipe.checkpoint else None
    found = examine(
        weights, resources.recogniser, base_model=stated, check_cancelled=context.cancel.check
    )
    new = NewVersion(
        character_id=job.character_id,
        job_id=context.job_id,
        weights=weights,
        base_model=found.base_model,
        format=found.format,
        rank=found.rank,
        trigger=work.trigger,
        class_noun=work.class_noun,
        name=job.name,
        strength=DEFAULT_STRENGTH if gate is None or gate.strength is None else gate.strength,
        training=record.kept(),
        likeness=version_likeness(record),
    )
    key = record_key(job.character_id, context.job_id)
    with context.timings.phase("registering"):
        sheet = work.folder.path / SHEET
        if sheet.is_file():
            place = sheet_key(job.character_id, context.job_id)
            upload_file(resources, context, sheet, place, kind="sheet")
        resources.store.put(key, record.model_dump_json(exclude_none=True).encode())
        try:
            return resources.registry.add_version(
                new,
                activate=job.activate and not closed(gate, job.likeness_gate),
                check_cancelled=context.cancel.check,
            )
        except BaseException:
            with contextlib.suppress(StoreError):  # the registration's own failure matters
                resources.store.delete(key)
            raise


def _character(character_id: str, resources: Resources) -> CharacterRecord | None:
    """The character as it is; a deleted one is refused before anything is trained."""
    try:
        return resources.registry.get(character_id)
    except CharacterDeleted:
        raise
    except CharacterNotFound:
        return None


def _registered_before(
    job: TrainJob, resources: Resources, context: JobContext
) -> CharacterVersion | None:
    """The version that an earlier run of this job registered, its head written by now."""
    version = resources.registry.made_by(job.character_id, context.job_id)
    if version is not None:
        least, measured = job.likeness_gate, version.likeness
        low = least is not None and measured is not None and measured.score < least
        resources.registry.adopt(version, name=job.name, activate=job.activate and not low)
    return version
