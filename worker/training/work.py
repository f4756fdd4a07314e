"""What the steps of one training share: the job, its folder, its progress, its losses.

The folder outlives the worker's process but not the job's end. A worker that dies leaves it; the
same job, run again on that disk, finds what was finished. It goes when the job ends, whether well,
badly or by a cancel.
"""

import logging
import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from families.training import Training
from worker.cancel import Deadline
from worker.contract import TrainJob
from worker.errors import DiskFull
from worker.resources import JobContext, Progress, Resources
from worker.training.defaults import short_digest
from worker.training.drawing import thinned
from worker.training.trainer import Trainer, TrainingStep

log = logging.getLogger(__name__)

_D = TypeVar("_D")

Stage = Literal[
    "photos",
    "captions",
    "training",
    "checking",
    "choosing",
    "registering",
    "previews",
    "uploading",
]
RANGES: Final[Mapping[Stage, tuple[float, float]]] = {
    "photos": (0, 8),
    "captions": (8, 10),
    "training": (10, 85),
    "checking": (85, 86),
    "choosing": (86, 92),
    "registering": (92, 94),
    "previews": (94, 98),
    "uploading": (98, 100),
}
_LOSSES: Final = "losses.json"
_LOSSES_EVERY_S: Final = 5.0
_LOSSES_KEPT: Final = 500

_ABANDONED_S: Final = 7 * 24 * 3600
_MARGIN_BYTES: Final = 500_000_000
_STATE_BYTES_PER_RANK: Final = 32_000_000  # fp32 weights and AdamW's two moments for SDXL's layers
_FILE_BYTES_PER_RANK: Final = 5_400_000  # fp16; 170 MB at rank 32 (measured)
_STATES: Final = 3  # the one resumed from, the newest, and the one at the end
_FILES: Final = 4


class TrainingFolder:
    """Owns the folder; a context manager that removes it.

    Args:
        root: holds the folders of all trainings of this disk.
        job_id: names this one's; the same job gets the same folder.
    """

    def __init__(self, root: Path, job_id: str) -> None:
        self._root = root
        self.path = root / short_digest(job_id)

    def __enter__(self) -> Self:
        self._root.mkdir(parents=True, exist_ok=True)
        self._remove_abandoned()
        self.path.mkdir(exist_ok=True)
        return self

    def __exit__(self, *exc: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def fresh(self, name: str) -> Path:
        """An empty folder of that name."""
        folder = self.path / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def kept(self, name: str) -> Path:
        """A folder of that name with what an earlier run left in it."""
        folder = self.path / name
        folder.mkdir(exist_ok=True)
        return folder

    def save(self, name: str, document: object) -> None:
        """Write a document; it is there whole or not at all."""
        partial = self.path / f".{name}.part"
        partial.write_bytes(TypeAdapter(type(document)).dump_json(document))
        partial.replace(self.path / name)

    def load(self, name: str, kind: type[_D]) -> _D | None:
        """What `save` wrote, in this run or an earlier one; None when it did not come to that."""
        try:
            return TypeAdapter(kind).validate_json((self.path / name).read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError:  # another release wrote it: that step is done again
            log.warning("document of another release ignored", extra={"document": name})
            return None

    def _remove_abandoned(self) -> None:
        for folder in self._root.iterdir():
            if time.time() - folder.stat().st_mtime > _ABANDONED_S:
                log.warning("abandoned training removed", extra={"folder": folder.name})
                shutil.rmtree(folder, ignore_errors=True)


class TrainingProgress:
    """How far a training job is, as one percentage over all stages."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def at(self, stage: Stage, share: float = 0.0) -> None:
        """Say that `share` (0 to 1) of a stage is done."""
        self._progress.report(stage, percent_at(stage, share))

    def step(self, step: TrainingStep) -> None:
        """Say how far the trainer is; its ETA is that of the training, the longest stage by far."""
        percent = percent_at("training", step.step / max(1, step.steps))
        self._progress.report(
            "training",
            percent,
            step=step.step,
            steps=step.steps,
            eta_s=step.eta_s,
            loss=step.loss,
        )


def percent_at(stage: Stage, share: float) -> float:
    """Percent of the whole job at `share` (0 to 1) of a stage."""
    first, last = RANGES[stage]
    return first + (last - first) * min(1.0, max(0.0, share))


class LossLog:
    """The losses of a training as they come, on disk so that a resumed one has them all.

    Takes every step; a later sighting of a step, or a training continued from before, wins.
    """

    def __init__(self, folder: TrainingFolder) -> None:
        self._folder = folder
        self._losses = folder.load(_LOSSES, dict[int, float]) or {}
        self._written = time.monotonic()

    def add(self, step: TrainingStep) -> None:
        """Take note of a step; written to disk every few seconds."""
        if step.loss is None or not math.isfinite(step.loss) or step.step < 1:
            return
        self._losses[step.step] = step.loss
        if time.monotonic() - self._written > _LOSSES_EVERY_S:
            self.save()

    def save(self) -> None:
        """Write them to disk."""
        self._folder.save(_LOSSES, self._losses)
        self._written = time.monotonic()

    def curve(self) -> list[tuple[int, float]]:
        """Step and loss in order, at most 500 of them, evenly picked."""
        return thinned(sorted(self._losses.items()), _LOSSES_KEPT)


@dataclass(frozen=True, slots=True)
class TrainingWork:
    """One train job and everything its steps share.

    Attributes:
        trigger: the word that calls the character; given, inherited or made up.
        class_noun: what the character is; given, inherited or "person".
        gpu_memory: in bytes; None where there is no GPU.
        recipe: of the job's base model.
        trainer: the engine that the job asks for.
        deadline: of the training; previews and uploads are not counted.
    """

    job: TrainJob
    trigger: str
    class_noun: str
    gpu_memory: int | None
    recipe: Training
    trainer: Trainer
    deadline: Deadline
    resources: Resources
    context: JobContext
    folder: TrainingFolder
    progress: TrainingProgress
    losses: LossLog

    def on_fetched(self, share: float) -> None:
        """Report the share of the download that is done: half of the stage."""
        self.progress.at("photos", share / 2)

    def on_judged(self, share: float) -> None:
        """Report the share of the photos that is judged: a quarter."""
        self.progress.at("photos", (2 + share) / 4)

    def on_looked(self, share: float) -> None:
        """Report the share of the photos that was searched for faces: the last quarter."""
        self.progress.at("photos", (3 + share) / 4)

    def on_caption(self, share: float) -> None:
        """Report the share of captions that is done; raises `Cancelled`."""
        self.context.cancel.check()
        self.progress.at("captions", share)

    def on_step(self, step: TrainingStep) -> None:
        """Keep a step's loss and report it."""
        self.losses.add(step)
        self.progress.step(step)


def bytes_needed(rank: int, checkpoints: int = 1) -> int:
    """Disk that a training of this rank may take: states to resume from, files, a margin."""
    files = _FILES + 2 * (checkpoints - 1)  # as trained, and with metadata to be shown
    return rank * (_STATES * _STATE_BYTES_PER_RANK + files * _FILE_BYTES_PER_RANK) + _MARGIN_BYTES


def require_disk(folder: Path, needed: int) -> None:
    """Make sure of the disk before anything is trained.

    Raises:
        DiskFull: fewer bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskFull(
            f"The training needs {needed / 1e9:.1f} GB of disk and {free / 1e9:.1f} GB are free; "
            "give the container more, or lower rank.",
            details={"needed_bytes": needed, "free_bytes": free},
        )
