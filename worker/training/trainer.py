"""What every trainer is given and returns: the whole protocol between the branch and an engine.

An engine is not trusted: what it hands back is a path, and `worker.training.weights` decides
whether the file there is a LoRA that learned something.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from worker.cancel import CancelToken

Precision = Literal["bf16", "fp16"]


@dataclass(frozen=True, slots=True)
class TrainingSpec:
    """What to train; every value decided (`worker.training.defaults` fills in what a job omits).

    Attributes:
        name: names the output file; unique per job, safe as a file name.
        resolution: side in pixels whose square is the area that a photo is trained at.
        save_every: steps between two saved states that a crashed training resumes from.
        checkpoints: how many of its steps are kept, the last one included.
        deadline_s: seconds that the whole training may take.
        precision: what the GPU computes in; the saved weights are fp16 either way.
    """

    name: str
    trigger: str
    class_noun: str
    steps: int
    rank: int
    alpha: float
    learning_rate: float
    resolution: int
    batch_size: int
    gradient_checkpointing: bool
    seed: int
    save_every: int
    deadline_s: float
    precision: Precision = "bf16"
    checkpoints: int = 1


def low_memory(spec: TrainingSpec) -> TrainingSpec:
    """The same training in about half of the memory; itself when there is nothing left to spare.

    Half the batch takes twice the steps, so that each photo is seen as often; the learning rate
    follows by the rule of `worker.training.defaults`.
    """
    if spec.gradient_checkpointing and spec.batch_size == 1:
        return spec
    batch_size = max(1, spec.batch_size // 2)
    share = spec.batch_size / batch_size
    return replace(
        spec,
        batch_size=batch_size,
        steps=math.ceil(spec.steps * share),
        learning_rate=spec.learning_rate / math.sqrt(share),
        gradient_checkpointing=True,
    )


@dataclass(frozen=True, slots=True)
class PreparedPhoto:
    """A photo ready to train on: an RGB PNG and its caption.

    Attributes:
        sha256: of the file as it came.
        repeats: how often it is seen for each time that others are; one folder has one number.
    """

    path: Path
    caption: str
    sha256: str
    width: int
    height: int
    repeats: int = 1


@dataclass(frozen=True, slots=True)
class PreparedDataset:
    """PNGs with `.txt` captions beside them, in one folder or in one below it for each `repeats`.

    `digest` names photos, captions and repeats.
    """

    folder: Path
    photos: tuple[PreparedPhoto, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """How far a training is; `loss` is the trainer's running average, where it tells one."""

    step: int
    steps: int
    loss: float | None = None
    seconds_per_step: float | None = None

    @property
    def eta_s(self) -> float | None:
        """Seconds to go at the present speed."""
        if self.seconds_per_step is None:
            return None
        return self.seconds_per_step * max(0, self.steps - self.step)


def checkpoint_path(workdir: Path, step: int) -> Path:
    """Where a trainer leaves the weights of one of its steps, unverified."""
    return workdir / "checkpoints" / f"{step:08d}.safetensors"


def kept_checkpoints(workdir: Path) -> dict[int, Path]:
    """The weights that a trainer left on its way, by step, the earliest first."""
    found = sorted((workdir / "checkpoints").glob("*.safetensors"))
    return {int(path.stem): path for path in found}


OnStep = Callable[[TrainingStep], None]


class Trainer(Protocol):
    """An engine that turns a dataset into a LoRA file."""

    @property
    def name(self) -> str:
        """Which engine and version; written into the file's metadata."""
        ...

    def train(
        self,
        spec: TrainingSpec,
        dataset: PreparedDataset,
        workdir: Path,
        on_step: OnStep,
        cancel: CancelToken,
    ) -> Path:
        """Train and return the LoRA's path below `workdir`, unverified.

        A training that was cut off (the worker died) continues from what it left in `workdir`.
        A trainer that can leaves the weights of earlier steps there, for `kept_checkpoints`.

        Raises:
            TrainingFailed, TrainingDiverged, OutOfMemory, DiskFull, EngineCrashed, TimedOut:
                by what happened.
            Cancelled: within five seconds of the cancel; no process is left.
        """
        ...
