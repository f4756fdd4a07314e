"""The attempts of one training on disk, and which saved state the next one continues from.

sd-scripts v0.10.1 counts wrongly once it was resumed: it subtracts the epochs it skips from its
step counter (`initial_step -= len(train_dataloader)` in train_network.py), so the states of a
resumed run are named after too small a number and carry one. Every attempt therefore has a folder
of its own and remembers the true step it began at; from the bar's total the rest follows.
"""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worker.training.kohya_command import Resume

_STATE: Final = re.compile(r".*-step(?P<step>\d{8})-state")
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
        found = self._found()
        resume = self._newest_state(found)
        for attempt in found:
            if resume is None or resume.state.parent != attempt.folder:
                shutil.rmtree(attempt.folder)
        number = max((_number(attempt.folder) for attempt in found), default=0) + 1
        fresh = Attempt(self._folder / f"attempt-{number}", resume.step if resume else 0)
        fresh.write()
        return fresh, resume

    def discard(self, resume: Resume) -> None:
        """Remove a state that the trainer could not continue from."""
        shutil.rmtree(resume.state, ignore_errors=True)

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
