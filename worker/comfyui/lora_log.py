"""What ComfyUI's console says of LoRAs that it did not apply, kept to be asked by time.

ComfyUI completes a prompt whose LoRA does not fit its checkpoint and only logs it, a line a tensor
(`comfy/lora.py`, `comfy/sd.py` and `comfy/weight_adapter/` of 0.33.0). It runs one prompt at a time,
so the lines of a prompt are those between its start and its end.
"""

import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MAX_LINES: Final = 50_000
"""Lines remembered, 10 MB at most: a misfit LoRA logs up to 3 a module, the largest 10,000."""

_NOT_LOADED: Final = re.compile(r"lora key not loaded: (\S+)")
_FAILED: Final = re.compile(
    r"ERROR (?:lora|loha|lokr|glora|oft|boft) (\S+) |"
    r"WARNING SHAPE MISMATCH (\S+) WEIGHT NOT MERGED|NOT LOADED (\S+)|Calculate Weight Failed: \S+ (\S+)"
)
_KEY_CHARACTERS: Final = 200


@dataclass(frozen=True, slots=True)
class Unapplied:
    """What a prompt's LoRAs lost.

    Attributes:
        keys: names of tensors in a LoRA file that the checkpoint has no place for.
        weights: names of the checkpoint's weights whose change did not fit.
    """

    keys: frozenset[str] = frozenset()
    weights: frozenset[str] = frozenset()


class LoraLog:
    """Filled by the thread that reads ComfyUI's output, asked by those that run jobs."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._lines: deque[tuple[float, str, bool]] = deque(maxlen=MAX_LINES)

    def take(self, text: str) -> bool:
        """Remember a line if it is about a LoRA that was not applied; whether it is."""
        if found := _NOT_LOADED.match(text):
            self._add(found[1], failed=False)
        elif found := _FAILED.match(text):
            self._add(next(filter(None, found.groups())), failed=True)
        else:
            return False
        return True

    def between(self, start: float, end: float) -> Unapplied:
        """What was said in a span of the monotonic clock, in seconds."""
        with self._lock:
            lines = [(name, failed) for at, name, failed in self._lines if start <= at <= end]
        return Unapplied(
            keys=frozenset(name for name, failed in lines if not failed),
            weights=frozenset(name for name, failed in lines if failed),
        )

    def _add(self, name: str, *, failed: bool) -> None:
        with self._lock:
            self._lines.append((self._clock(), name[:_KEY_CHARACTERS], failed))
