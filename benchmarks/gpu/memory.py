"""What a card is, and how much of its memory is used at most while something runs."""

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import psutil

_LOOK_S: Final = 0.2
_QUERY_TIMEOUT_S: Final = 20


@dataclass(frozen=True, slots=True)
class Card:
    """The first GPU as its driver names it."""

    name: str
    memory_mib: int
    driver: str
    compute_capability: str


@dataclass(slots=True)
class Peak:
    """Most that was used at once: of the card by all its processes, of RAM by us and our children.

    MiB; `vram` is None where there is no card.
    """

    vram: int | None = None
    ram: int = 0


def card() -> Card | None:
    """The card, or None where no NVIDIA driver answers."""
    fields = _query("name,memory.total,driver_version,compute_cap")
    if fields is None:
        return None
    name, memory, driver, capability = fields
    return Card(name, int(memory), driver, capability)


def used_mib() -> int | None:
    """Memory of the card in use, by whatever process."""
    fields = _query("memory.used")
    return None if fields is None else int(fields[0])


@contextmanager
def watched() -> Iterator[Peak]:
    """Look five times a second until the block ends; what is shorter than that is not seen."""
    peak, done = Peak(), threading.Event()

    def watch() -> None:
        while True:
            used = used_mib()
            if used is not None:
                peak.vram = max(peak.vram or 0, used)
            peak.ram = max(peak.ram, _ram_mib())
            if done.wait(_LOOK_S):
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join(_QUERY_TIMEOUT_S)


def _query(fields: str) -> list[str] | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    argv = [program, f"--query-gpu={fields}", "--format=csv,noheader,nounits", "--id=0"]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=_QUERY_TIMEOUT_S
    )
    if done.returncode != 0:
        return None
    return [field.strip() for field in done.stdout.strip().split(",")]


def _ram_mib() -> int:
    own, total = psutil.Process(), 0
    for process in (own, *own.children(recursive=True)):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total // (1024 * 1024)
