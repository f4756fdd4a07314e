"""From a train job to a LoRA on our disk that has passed every check."""

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from worker.cancel import Deadline
from worker.settings import Settings, default_python
from worker.training import report
from worker.training.base_model import find_checkpoint, trained_layers
from worker.training.captions import ordinary_words, trigger_warning
from worker.training.comfyui import ComfyUIPlaces, ComfyUITrainer
from worker.training.defaults import Circumstances, plan, resolution_of
from worker.training.handover import gpu_memory, handed_over, ready_afterwards
from worker.training.kohya import KohyaTrainer
from worker.training.kohya_command import KohyaOptions
from worker.training.losses import LossLog
from worker.training.preparation import TrainingWork, prepared_dataset
from worker.training.trainer import PreparedDataset, Trainer, TrainingSpec, TrainingStep
from worker.training.verify import Expected, verify
from worker.training.weights import write_metadata
from worker.training.workdir import bytes_needed, require_disk

_SPEC: Final = "spec.json"
_TRAINED: Final = "trained.json"
_WEIGHTS: Final = "lora.safetensors"


@dataclass(frozen=True, slots=True)
class Trained:
    """A verified LoRA with its metadata, and what the report will need."""

    weights: Path
    notes: dict[str, Any]


def train_character(work: TrainingWork) -> Trained:
    """Prepare, train, verify; what an earlier run left finished in the folder is not done again.

    Raises:
        DatasetRejected, InvalidInput, DiskFull: before anything is trained.
        TrainingFailed, TrainingDiverged, OutOfMemory, EngineCrashed, TimedOut, Cancelled.
    """
    deadline = Deadline(work.job.timeout_s or work.resources.settings.train_timeout_s)
    work.resources.engine.ensure_ready(work.context.cancel)
    stats = work.resources.comfyui.system_stats()
    memory = gpu_memory(stats)
    trainer = _trainer(work, str(stats.get("system", {}).get("comfyui_version", "unknown")))
    dataset, described = prepared_dataset(work, resolution_of(work.job, memory))
    known = Circumstances(
        work.context.job_id, len(dataset.photos), memory, work.trigger, deadline.remaining
    )
    spec = _planned(work, known)
    losses = LossLog(work.folder)
    checked = work.folder.noted(_TRAINED)
    if checked is None:
        path = _train(work, trainer, spec, dataset, losses)
        checked = _check(work, path, spec, trainer.name, dataset.digest)
    notes = _notes(work, trainer.name, spec, described, checked)
    return Trained(
        work.folder.path / _WEIGHTS, notes | {"losses": [list(point) for point in losses.curve()]}
    )


def _trainer(work: TrainingWork, comfyui_version: str) -> Trainer:
    settings, engine = work.resources.settings, work.resources.engine
    if work.job.trainer == "comfyui":
        places = ComfyUIPlaces(
            checkpoint=settings.train_checkpoint,
            input_directory=engine.input_directory,
            output_directory=engine.output_directory,
            version=comfyui_version,
        )
        return ComfyUITrainer(work.resources.comfyui, places)
    return KohyaTrainer(
        KohyaOptions(
            folder=settings.kohya_dir,
            python=default_python(settings.kohya_dir, settings.kohya_python),
            checkpoint=_checkpoint(settings) or Path(settings.train_checkpoint),
            tokenizers=settings.kohya_tokenizers,
        )
    )


def _checkpoint(settings: Settings) -> Path | None:
    return find_checkpoint(settings.train_checkpoint, settings.checkpoint_folders)


def _planned(work: TrainingWork, known: Circumstances) -> TrainingSpec:
    """The plan; an earlier run's where there is one, since its saved states fit no other."""
    spec = plan(work.job, known)
    before = work.folder.noted(_SPEC)
    if before is not None:
        return replace(TrainingSpec(**before), deadline_s=spec.deadline_s)
    work.folder.note(_SPEC, asdict(spec))
    return spec


def _train(
    work: TrainingWork,
    trainer: Trainer,
    spec: TrainingSpec,
    dataset: PreparedDataset,
    losses: LossLog,
) -> Path:
    require_disk(work.folder.path, bytes_needed(spec.rank))
    work.stages.at("training")

    def on_step(step: TrainingStep) -> None:
        losses.add(step)
        work.stages.step(step)

    folder = work.folder.kept(work.job.trainer)
    with work.context.timings.phase("training"), _engine_set_aside(work):
        path = trainer.train(spec, dataset, folder, on_step, work.context.cancel)
    losses.save()
    return path


@contextlib.contextmanager
def _engine_set_aside(work: TrainingWork) -> Iterator[None]:
    """ComfyUI makes room for a trainer of its own process, and is ready for the next job behind."""
    engine, comfyui, cancel = work.resources.engine, work.resources.comfyui, work.context.cancel
    if work.job.trainer == "kohya":
        with handed_over(engine, comfyui, cancel):
            yield
        return
    with ready_afterwards(engine):
        yield


def _check(
    work: TrainingWork, path: Path, spec: TrainingSpec, trainer: str, digest: str
) -> dict[str, Any]:
    """Verify the file, write its metadata, and note that both are done."""
    settings = work.resources.settings
    work.stages.at("checking")
    with work.context.timings.phase("checking"):
        alpha = spec.alpha if work.job.trainer == "kohya" else None
        expected = Expected(spec.rank, alpha, trained_layers(_checkpoint(settings)))
        checked = verify(path, expected, work.context.cancel.check).as_json()
        metadata = report.metadata_of(
            spec, work.job.character_id, digest, trainer, settings.train_checkpoint
        )
        write_metadata(path, work.folder.path / _WEIGHTS, metadata)
    work.folder.note(_TRAINED, checked)
    path.unlink()
    return checked


def _notes(
    work: TrainingWork,
    trainer: str,
    spec: TrainingSpec,
    described: dict[str, Any],
    checked: dict[str, Any],
) -> dict[str, Any]:
    settings = work.resources.settings
    trained_with = report.settings_of(work.job, spec, trainer, settings.train_checkpoint)
    warning = trigger_warning(work.trigger, ordinary_words(settings.kohya_tokenizers))
    warnings = report.warnings_of(described, warning)
    return report.notes(trained_with, described, checked, warnings)
