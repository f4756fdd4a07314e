"""ComfyUI's console output as events of our log, and what it says of LoRAs that it did not apply.

ComfyUI completes a prompt whose LoRA does not fit its checkpoint and only logs it, a line a tensor
(`comfy/lora.py`, `comfy/sd.py`, `comfy/weight_adapter/` of 0.33.0). It runs one prompt at a time,
so the lines of a prompt are those between its start and its end, and are kept to be asked by time.
"""

import logging
import re
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from worker.logs import LineSplitter

log = logging.getLogger("comfyui")

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


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# DETAIL is a level of its own from ComfyUI 0.38 on, between DEBUG and INFO.
_LEVEL = re.compile(r"\[(DEBUG|DETAIL|INFO|WARNING|ERROR|CRITICAL)\]\s*")
_ERROR_LINE = re.compile(r"Traceback \(most recent|!!! |\w*(Error|Exception)\b", re.IGNORECASE)
_WARNING_LINE = re.compile(r"\S*warning\b", re.IGNORECASE)
# Progress bars, and what it says when a client leaves before its last status message.
_NOISE = re.compile(r"\d+%\||send error: Cannot write to closing transport")


class OutputLog:
    """Hands ComfyUI's lines to the logger `comfyui`, at the level that they name.

    Args:
        loras: takes the lines about LoRAs that were not applied: thousands for one file, so they
            are logged as one when another line comes.
    """

    def __init__(self, loras: LoraLog) -> None:
        self._lines = LineSplitter()
        self._loras = loras
        self._unapplied = 0

    def __call__(self, chunk: bytes) -> None:
        """Take a chunk of output."""
        for line in self._lines.feed(chunk):
            level, text = parse_line(line)
            if not text:
                continue
            if self._loras.take(text):
                self._unapplied += 1
                continue
            self._summarise()
            log.log(level, "%s", text)

    def _summarise(self) -> None:
        if self._unapplied:
            log.warning("parts of a lora were not applied", extra={"lines": self._unapplied})
            self._unapplied = 0


def parse_line(line: str) -> tuple[int, str]:
    """Level and text of a line, free of colour; libraries print theirs without a level."""
    text = _COLOUR.sub("", line).strip()
    if _NOISE.search(text):
        return logging.DEBUG, text
    if named := _LEVEL.match(text):
        return logging.getLevelNamesMapping().get(named[1], logging.DEBUG), text[named.end() :]
    if _ERROR_LINE.match(text):
        return logging.ERROR, text
    return (logging.WARNING if _WARNING_LINE.match(text) else logging.INFO), text
