"""How far a training job is, as one percentage over all of its stages."""

from collections.abc import Mapping
from typing import Final, Literal

from worker.progress import Progress
from worker.training.trainer import TrainingStep

Stage = Literal[
    "photos", "captions", "training", "checking", "registering", "previews", "uploading"
]
RANGES: Final[Mapping[Stage, tuple[float, float]]] = {
    "photos": (0, 8),
    "captions": (8, 10),
    "training": (10, 85),
    "checking": (85, 87),
    "registering": (87, 90),
    "previews": (90, 98),
    "uploading": (98, 100),
}


class TrainingStages:
    """Reports the stages of one job; never goes back within a job."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._percent = 0.0

    def at(self, stage: Stage, share: float = 0.0) -> None:
        """Say that `share` (0 to 1) of a stage is done."""
        self._progress.report(stage, self._further(stage, share))

    def step(self, step: TrainingStep) -> None:
        """Say how far the trainer is; its ETA is that of the training, the longest stage by far."""
        percent = self._further("training", step.step / max(1, step.steps))
        self._progress.report(
            "training", percent, step=step.step, steps=step.steps, eta_s=step.eta_s
        )

    def _further(self, stage: Stage, share: float) -> float:
        first, last = RANGES[stage]
        percent = first + (last - first) * min(1.0, max(0.0, share))
        self._percent = max(self._percent, percent)
        return self._percent
