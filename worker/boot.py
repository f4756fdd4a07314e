"""The start as one timeline: milliseconds per phase, from the process's birth to the first job."""

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)


class Boot:
    """Phases of the start; they overlap, so they do not add up to `total_ms`."""

    def __init__(self) -> None:
        self._phases: dict[str, float] = {"interpreter_and_imports": process_age_ms()}

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure what happens inside."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._phases[name] = (time.monotonic() - begun) * 1000

    def finish(self) -> None:
        """Log the timeline: jobs can be taken from now on."""
        phases = {name: round(value) for name, value in self._phases.items()}
        log.info("boot", extra={"phases_ms": phases, "total_ms": round(process_age_ms())})


def process_age_ms() -> float:
    """Milliseconds since the kernel started this process (proc(5): field 22 of stat, in ticks)."""
    fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    started_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return (time.clock_gettime(time.CLOCK_BOOTTIME) - started_s) * 1000
