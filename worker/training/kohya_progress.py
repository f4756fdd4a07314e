r"""What sd-scripts writes on stderr, read as bytes: tqdm's bar and the words of a failure.

The bar is redrawn with `\r` and other text is glued to it, so lines mean nothing: the bytes are
searched. A step appears twice, first with the loss of the one before; the last sighting counts.
"""

import math
import re
import threading
import time
from collections import deque
from typing import Final, Literal

from worker.training.trainer import TrainingStep

_BAR: Final = re.compile(
    rb"steps:\s+\d+%\|[^|\r\n]*\|\s*(?P<step>\d+)/(?P<steps>\d+) "
    rb"\[(?P<clock>[^\],]*)"
    rb"(?:,\s*(?P<speed>[\d.]+|\?)\s*(?P<unit>s/it|it/s))?"
    rb"(?P<postfix>[^\]]*)\]"
)
_LOSS: Final = re.compile(rb"avr_loss=(?P<loss>[-+]?(?:nan|inf|[\d.]+(?:e[-+]?\d+)?))", re.I)
_KEPT: Final = 4096  # longer than any bar; what a bar cut in two needs

Failure = Literal["out_of_memory", "disk_full"]
_FAILURES: Final[tuple[tuple[Failure, re.Pattern[str]], ...]] = (
    ("out_of_memory", re.compile(r"OutOfMemoryError|CUDA out of memory|CUBLAS_STATUS_ALLOC")),
    ("disk_full", re.compile(r"No space left on device|Disk quota exceeded|os error 28\b")),
)


class ProgressReader:
    """Takes chunks cut anywhere and returns the steps that became whole with them."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[TrainingStep]:
        """The steps seen in `chunk`, counted as the trainer counts them, oldest first."""
        text = self._rest + chunk
        found, end = [], 0
        for match in _BAR.finditer(text):
            found.append(_step(match))
            end = match.end()
        self._rest = text[end:][-_KEPT:]
        return found


class TrainerOutput:
    """What the process wrote, taken in the draining thread and read in the job's."""

    def __init__(self) -> None:
        self._reader = ProgressReader()
        self._steps: deque[TrainingStep] = deque()
        self._lock = threading.Lock()
        self._heard = time.monotonic()

    def take(self, chunk: bytes) -> None:
        """Read on; called by the thread that drains the process."""
        with self._lock:
            self._heard = time.monotonic()
            self._steps.extend(self._reader.feed(chunk))

    def steps(self) -> list[TrainingStep]:
        """The steps since the last call."""
        with self._lock:
            steps = list(self._steps)
            self._steps.clear()
        return steps

    @property
    def silence_s(self) -> float:
        """Seconds since the last byte."""
        with self._lock:
            return time.monotonic() - self._heard


def diverged(step: TrainingStep) -> bool:
    """Whether the loss says that nothing good can come any more."""
    return step.loss is not None and not math.isfinite(step.loss)


def failure_in(output: str) -> Failure | None:
    """What the last output of a failed training says about why."""
    for name, pattern in _FAILURES:
        if pattern.search(output):
            return name
    return None


def _step(match: re.Match[bytes]) -> TrainingStep:
    loss = _LOSS.search(match["postfix"])
    return TrainingStep(
        step=int(match["step"]),
        steps=int(match["steps"]),
        loss=float(loss["loss"]) if loss else None,
        seconds_per_step=_seconds(match["speed"], match["unit"]),
    )


def _seconds(speed: bytes | None, unit: bytes | None) -> float | None:
    if speed is None or speed == b"?" or float(speed) == 0:
        return None
    return float(speed) if unit == b"s/it" else 1 / float(speed)
