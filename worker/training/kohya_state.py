"""The attempts of one training: what sd-scripts says of each, which state the next goes on from.

Its progress bar is redrawn with a carriage return and other text is glued to it, so lines mean
nothing: the bytes of stderr are searched. A step appears twice, first with the loss of the one
before; the last sighting counts.

sd-scripts v0.10.1 counts wrongly once it was resumed: it subtracts the epochs it skips from its
step counter (`initial_step -= len(train_dataloader)` in train_network.py), so the states of a
resumed run are named after too small a number and carry one. Every attempt therefore has a folder
of its own and remembers the true step it began at; from the bar's total the rest follows.
"""

import json
import math
import re
import shutil
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from worker.training.kohya_command import Resume
from worker.training.trainer import TrainingStep, checkpoint_path

_STATE: Final = re.compile(r".*-step(?P<step>\d{8})-state")
_WEIGHTS: Final = re.compile(r".*-step(?P<step>\d{8})\.safetensors")
_RECORD: Final = "attempt.json"
_WHOLE: Final = ("train_state.json", "optimizer.bin", "random_states_0.pkl")
"""What accelerate writes into a state, the random states last."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of the trainer.

    Attributes:
        folder: its output folder.
        base: the true step it began at.
        bar_total: the total its progress bar shows; None before the bar was seen.
    """

    folder: Path
    base: int = 0
    bar_total: int | None = None

    def write(self) -> None:
        """Remember base and total beside the output."""
        self.folder.mkdir(parents=True, exist_ok=True)
        document = {"base": self.base, "bar_total": self.bar_total}
        partial = self.folder / f".{_RECORD}.part"
        partial.write_text(json.dumps(document))
        partial.replace(self.folder / _RECORD)

    def true_step(self, counter: int, steps: int) -> int:
        """The true step of a state that the trainer counted as `counter`."""
        skipped = steps - (self.bar_total if self.bar_total is not None else steps)
        return self.base + counter - skipped


class Attempts:
    """All attempts below a training's work folder, oldest first.

    Args:
        folder: where their folders are.
        steps: of the whole training.
    """

    def __init__(self, folder: Path, steps: int) -> None:
        self._folder = folder
        self._steps = steps

    def next(self) -> tuple[Attempt, Resume | None]:
        """A new attempt, and the state it continues from; other states and files are removed."""
        self.keep_weights()
        found = self._found()
        resume = self._newest_state(found)
        for attempt in found:
            if resume is None or resume.state.parent != attempt.folder:
                shutil.rmtree(attempt.folder)
        number = max((_number(attempt.folder) for attempt in found), default=0) + 1
        fresh = Attempt(self._folder / f"attempt-{number}", resume.step if resume else 0)
        fresh.write()
        return fresh, resume

    def keep_weights(self) -> None:
        """Put the weights of earlier steps where they outlive their attempt, by their true step."""
        for attempt in self._found():
            for path in attempt.folder.iterdir():
                match = _WEIGHTS.fullmatch(path.name)
                step = attempt.true_step(int(match["step"]), self._steps) if match else 0
                if 0 < step < self._steps:
                    target = checkpoint_path(self._folder, step)
                    target.parent.mkdir(exist_ok=True)
                    path.replace(target)

    def discard(self, resume: Resume) -> None:
        """Remove a state that the trainer could not continue from."""
        shutil.rmtree(resume.state, ignore_errors=True)

    def begin_again(self, steps: int) -> None:
        """Give up everything so far: from now on a training of another number of steps."""
        for attempt in self._found():
            shutil.rmtree(attempt.folder)
        self._steps = steps

    def _found(self) -> list[Attempt]:
        folders = sorted(self._folder.glob("attempt-*"), key=_number)
        return [_read(folder) for folder in folders]

    def _newest_state(self, attempts: list[Attempt]) -> Resume | None:
        states = [
            Resume(state, attempt.true_step(int(match["step"]), self._steps))
            for attempt in attempts
            for state in attempt.folder.iterdir()
            if (match := _STATE.fullmatch(state.name)) and _is_whole(state)
        ]
        usable = [state for state in states if 0 < state.step < self._steps]
        return max(usable, key=lambda state: state.step, default=None)


def _number(folder: Path) -> int:
    suffix = folder.name.removeprefix("attempt-")
    return int(suffix) if suffix.isdecimal() else 0


def _read(folder: Path) -> Attempt:
    try:
        document = json.loads((folder / _RECORD).read_text())
        return Attempt(folder, int(document["base"]), document["bar_total"])
    except (OSError, ValueError, KeyError, TypeError):
        return Attempt(folder)


def _is_whole(state: Path) -> bool:
    return all((state / name).is_file() and (state / name).stat().st_size for name in _WHOLE)


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
# What people met whose training ended before its first step, and what helped (public reports).
_CAUSES: Final[tuple[tuple[re.Pattern[str], str], ...]] = tuple(
    (re.compile(pattern, re.IGNORECASE), sentence)
    for pattern, sentence in (
        (
            r"support bf16|bf16 mixed precision|bfloat16.*not (supported|implemented)",
            "This GPU cannot train in bf16; use a newer one (Ampere or later).",
        ),
        (
            r"no kernel image is available|sm_\d+ is not compatible",
            "The trainer's torch has no code for this GPU; use an image made for it.",
        ),
        (
            r"driver on your system is too old|driver version is insufficient",
            "The machine's NVIDIA driver is too old for the trainer's CUDA; use another worker.",
        ),
        (
            r"no cuda gpus are available|not compiled with cuda|no nvidia driver",
            "The trainer finds no GPU on this worker.",
        ),
        (
            r"can't load tokenizer|couldn't connect to .*huggingface|localentrynotfound",
            "The trainer's tokenizers are missing; KOHYA_TOKENIZERS names their folder.",
        ),
        (
            r"size mismatch for|loading state_dict|KeyError: .*(conditioner|diffusion_model)",
            "TRAIN_CHECKPOINT is of another model family than SDXL.",
        ),
        (
            r"SafetensorError|PytorchStreamReader|invalid load key|UnpicklingError",
            "The checkpoint is damaged or incomplete; fetch it again.",
        ),
        (
            r"NaN detected in latents",
            "A photo became NaN in the VAE; take out photos with extreme colours, or another VAE.",
        ),
        (
            r"bus error|insufficient shared memory|unable to open shared memory",
            "The container's shared memory did not suffice; give it more (--shm-size).",
        ),
        (
            r"CUBLAS_STATUS_NOT_INITIALIZED|CUDNN_STATUS_NOT_INITIALIZED|device-side assert",
            "The GPU could not be used by the trainer; try another worker.",
        ),
    )
)
_ERROR_LINE: Final = re.compile(r"^[\w.]*(?:Error|Exception|Interrupt)\b.*$", re.MULTILINE)
_PATH: Final = re.compile(r"(?<![\w.:/])(?:/[\w.@+-]+)+/?")
_ERROR_CHARACTERS: Final = 300


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


def cause_in(output: str) -> str:
    """A sentence for a training that ended before its first step; what to do where it is known."""
    for pattern, sentence in _CAUSES:
        if pattern.search(output):
            return sentence
    return "The trainer ended with an error before its first step."


def last_error(output: str) -> str | None:
    """The last line of the output that names an exception, its paths cut to their last part."""
    lines = _ERROR_LINE.findall(output)
    if not lines:
        return None
    cleaned = _PATH.sub(lambda match: match[0].rstrip("/").rpartition("/")[2], lines[-1])
    return cleaned.strip()[:_ERROR_CHARACTERS]


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
