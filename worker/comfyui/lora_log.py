"""What ComfyUI's console says of LoRAs that it did not apply, kept to be asked by time.

ComfyUI completes a prompt whose LoRA does not fit its checkpoint and only logs it, a line a tensor
(`comfy/lora.py`, `comfy/sd.py`, `comfy/weight_adapter/` of 0.33.0). It runs one prompt at a time,
so the lines of a prompt are those between its start and its end.
"""

import re
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MAX_LINES: Final = 50_000
"""Lines remembered, 10 MB at most: a misfit LoRA logs up to 3 a module, the largest 10,000."""

_NOT_LOADED: Final = re.compile(r"lora key not loaded: (\S+)")
_FAILED: Final = re.compile(
    r"ERROR (?:lora|loha|lokr|glora|oft|boft) (\S+) |"
    r"WARNING SHAPE MISMATCH (\S+) WEIGHT NOT MERGED|NOT LOADED (\S+)|"
    r"Calculate Weight Failed: \S+ (\S+)"
)
_KEY_CHARACTERS: Final = 200
_REMEMBERED: Final = 256  # prompts that differ in LoRAs or workflow


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
        self._said: OrderedDict[tuple[str, ...], Unapplied] = OrderedDict()

    def take(self, text: str) -> bool:
        """Remember a line if it is about a LoRA that was not applied; whether it is."""
        if found := _NOT_LOADED.match(text):
            self._add(found[1], failed=False)
        elif found := _FAILED.match(text):
            self._add(next(filter(None, found.groups())), failed=True)
        else:
            return False
        return True

    def of_prompt(self, seconds: float, names: tuple[str, ...]) -> Unapplied:
        """What was said of a prompt that has just ended.

        Of what lies in its cache ComfyUI says nothing again, so what was said of the same files
        in the same workflow before counts too.

        Args:
            seconds: how long it ran.
            names: its LoRA files and its workflow.
        """
        with self._lock:
            since = self._clock() - seconds
            before = self._said.pop(names, Unapplied())
            said = [(name, failed) for at, name, failed in self._lines if at >= since]
            both = Unapplied(
                keys=before.keys.union(name for name, failed in said if not failed),
                weights=before.weights.union(name for name, failed in said if failed),
            )
            if both.keys or both.weights:
                self._said[names] = both
            while len(self._said) > _REMEMBERED:
                self._said.popitem(last=False)
        return both

    def _add(self, name: str, *, failed: bool) -> None:
        with self._lock:
            self._lines.append((self._clock(), name[:_KEY_CHARACTERS], failed))
