"""The losses of a training as they come, kept on disk so that a resumed one has them all."""

import math
import time
from typing import Final

from worker.training.curve import thinned
from worker.training.trainer import TrainingStep
from worker.training.workdir import TrainingFolder

_FILE: Final = "losses.json"
_EVERY_S: Final = 5.0
_KEPT: Final = 500


class LossLog:
    """Takes every step; a later sighting of a step, or a training continued from before, wins."""

    def __init__(self, folder: TrainingFolder) -> None:
        self._folder = folder
        known = folder.noted(_FILE) or {}
        self._losses = {int(step): float(loss) for step, loss in known.items()}
        self._written = time.monotonic()

    def add(self, step: TrainingStep) -> None:
        """Take note of a step; written to disk every few seconds."""
        if step.loss is None or not math.isfinite(step.loss) or step.step < 1:
            return
        self._losses[step.step] = step.loss
        if time.monotonic() - self._written > _EVERY_S:
            self.save()

    def save(self) -> None:
        """Write them to disk."""
        self._folder.note(_FILE, {str(step): loss for step, loss in self._losses.items()})
        self._written = time.monotonic()

    def curve(self) -> list[tuple[int, float]]:
        """Step and loss in order, at most 500 of them, evenly picked."""
        return thinned(sorted(self._losses.items()), _KEPT)
