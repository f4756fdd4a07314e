"""Memory and descriptors of one process over time, and whether they stay flat."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, Final

INTERVAL_S: Final = 2.0
GROWTH: Final = 1.15
SLACK_MIB: Final = 25.0
SLACK_DESCRIPTORS: Final = 24  # pooled connections come and go


class ResourceMonitor:
    """A thread that reads a process's size now and then.

    Args:
        pid: whose; None while there is none.
    """

    def __init__(self, pid: Callable[[], int | None]) -> None:
        self._pid = pid
        self._resident_mib: list[float] = []
        self._descriptors: list[int] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="resources")

    def begin(self) -> None:
        """Start to read."""
        self._thread.start()

    def end(self) -> None:
        """Read no more."""
        self._over.set()
        self._thread.join()

    def report(self) -> dict[str, Any]:
        """Means of the second fifth and of the last one; the first is warm-up."""
        memory, files = _fifths(self._resident_mib), _fifths(self._descriptors)
        return {
            "samples": len(self._resident_mib),
            "resident_mib": [round(value, 1) for value in memory],
            "descriptors": [round(value, 1) for value in files],
            "flat": memory[1] <= memory[0] * GROWTH + SLACK_MIB
            and files[1] <= files[0] + SLACK_DESCRIPTORS,
        }

    def _run(self) -> None:
        while not self._over.wait(INTERVAL_S):
            pid = self._pid()
            if pid is not None:
                self._read(Path(f"/proc/{pid}"))

    def _read(self, process: Path) -> None:
        try:
            status = (process / "status").read_text()
            descriptors = len(list((process / "fd").iterdir()))
        except OSError:  # it ended meanwhile
            return
        self._resident_mib.append(int(status.split("VmRSS:")[1].split()[0]) / 1024)
        self._descriptors.append(descriptors)


def _fifths(values: Sequence[float]) -> tuple[float, float]:
    length = max(1, len(values) // 5)
    second, last = values[length : 2 * length], values[-length:]
    return (mean(second or [0.0]), mean(last or [0.0]))
