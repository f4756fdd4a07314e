"""The train branch: photos in, a registered and previewed character out.

Run again with the same job id after a crash at any point, it continues: what was registered is not
trained again, what was trained is not trained again, and what was reported is only returned.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from families.training import Training
from lora_registry.character import CharacterRecord, CharacterVersion
from lora_registry.errors import CharacterDeleted, CharacterNotFound
from lora_registry.identity import FaceIdentity
from lora_registry.store import StoreError
from lora_registry.versions import NewVersion
from worker.cancel import Deadline
from worker.contract import TrainJob
from worker.errors import InvalidInput
from worker.instant import create_from_dataset
from worker.loras import examine
from worker.resources import JobContext, Resources
from worker.results import DatasetResult, TrainResult
from worker.settings import Settings, default_python
from worker.training import defaults
from worker.training.captions import derived_trigger, ordinary_words, trigger_warning
from worker.training.comfyui import ComfyUIPlaces, ComfyUITrainer
from worker.training.handover import engine_restored, gpu_memory, gpu_released
from worker.training.kohya import KohyaTrainer
from worker.training.kohya_command import KohyaOptions
from worker.training.preparation import IDENTITY, prepare
from worker.training.record import TrainingRecord, metadata_of, settings_of, warnings_of
from worker.training.report import record_key, report
from worker.training.trainer import PreparedDataset, Trainer, TrainingSpec
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
    recipe = _recipe(job, resources)
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
        trainer=_trainer(job, recipe, resources, version),
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
    require_disk(work.folder.path, bytes_needed(spec.rank))
    work.progress.at("training")
    folder = work.folder.kept(work.job.trainer)
    with work.context.timings.phase("training"), _gpu_of(work):
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
    base = _checkpoint(work.recipe, settings)
    work.progress.at("checking")
    with work.context.timings.phase("checking"):
        layers = trained_layers(find_checkpoint(base, settings.model_folders))
        # ComfyUI's trainer trains alpha along, so only kohya's can be held to what was asked for.
        alpha = spec.alpha if work.job.trainer == "kohya" else None
        least = work.recipe.min_modules or (
            work.resources.families[work.job.base_model].matrices // 2
        )
        expected = Expected(spec.rank, alpha, layers, least)
        check = check_lora(path, expected, work.context.cancel.check)
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


def register(work: TrainingWork, record: TrainingRecord) -> CharacterVersion:
    """Weights, version, head; the record lies in the bucket before, or not at all.

    Raises:
        StoreError, RegistryError, Cancelled.
    """
    job, resources, context = work.job, work.resources, work.context
    work.progress.at("registering")
    weights = work.folder.path / _WEIGHTS
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
        training=record.kept(),
    )
    key = record_key(job.character_id, context.job_id)
    with context.timings.phase("registering"):
        resources.store.put(key, record.model_dump_json(exclude_none=True).encode())
        try:
            return resources.registry.add_version(
                new, activate=job.activate, check_cancelled=context.cancel.check
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
        resources.registry.adopt(version, name=job.name, activate=job.activate)
    return version


def _recipe(job: TrainJob, resources: Resources) -> Training:
    family = resources.families[job.base_model]
    if family.training is None:
        raise InvalidInput(
            f"base_model: nothing here trains {family.title}; train it elsewhere and register "
            "the LoRA.",
            field="base_model",
        )
    return family.training


def _checkpoint(recipe: Training, settings: Settings) -> str:
    """The model to train, as folder and file below a models folder."""
    return recipe.checkpoint or f"checkpoints/{settings.train_checkpoint}"


def _trainer(
    job: TrainJob, recipe: Training, resources: Resources, comfyui_version: str
) -> Trainer:
    settings, engine = resources.settings, resources.engine
    checkpoint = _checkpoint(recipe, settings)
    if job.trainer == "comfyui" and recipe.comfyui is not None:
        places = ComfyUIPlaces(
            checkpoint=checkpoint.partition("/")[2],
            input_directory=engine.input_directory,
            output_directory=engine.output_directory,
            version=comfyui_version,
            recipe=recipe.comfyui,
        )
        return ComfyUITrainer(resources.comfyui, places)
    if job.trainer == "kohya" and recipe.kohya is not None:

        def found(name: str) -> Path:
            return find_checkpoint(name, settings.model_folders) or Path(name)

        return KohyaTrainer(
            KohyaOptions(
                folder=settings.kohya_dir,
                python=default_python(settings.kohya_dir, settings.kohya_python),
                checkpoint=found(checkpoint),
                tokenizers=settings.kohya_tokenizers,
                recipe=recipe.kohya,
                models={option: found(name) for option, name in recipe.kohya.models.items()},
            )
        )
    raise InvalidInput(
        f"trainer: {job.base_model} is trained by {' or '.join(recipe.engines)} here; say so.",
        field="trainer",
        details={"base_model": job.base_model, "trainers": list(recipe.engines)},
    )


@contextlib.contextmanager
def _gpu_of(work: TrainingWork) -> Iterator[None]:
    """The GPU for the trainer: ComfyUI unloads its models for a process that is not its own."""
    engine, comfyui, cancel = work.resources.engine, work.resources.comfyui, work.context.cancel
    if work.job.trainer == "kohya":
        with gpu_released(engine, comfyui, cancel):
            yield
    else:
        with engine_restored(engine):
            yield
