"""What goes wrong on purpose: one word for each start, taken from a file.

`KOHYA_FAULTS` names the file; every start takes its first line. A line is `none` or a fault, with
the step it happens at: `nan@3`, `oom@1`, `kill@7`, `hang@2`, `crash@5`, `garbage@4`, `disk_full@2`;
`silent` exits 0 and leaves nothing, `nan_file` and `empty_lora` leave a file that is no use,
`deaf@2` hangs and ignores SIGTERM.
"""

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FAULTS_FILE: Final = "KOHYA_FAULTS"
_OUT_OF_MEMORY: Final = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total "
    "capacity of 23.64 GiB of which 1.06 GiB is free."
)
_DISK_FULL: Final = (
    "safetensors_rust.SafetensorError: Error while serializing: "
    "IoError(Os { code: 28, kind: StorageFull, message: No space left on device (os error 28) })"
)
_FOR_EVER_S: Final = 3600


@dataclass(frozen=True)
class Fault:
    """One fault and the step at which it happens; `none` never does."""

    name: str
    step: int = 0

    def at(self, step: int) -> str | None:
        """The fault's name when this is its step."""
        return self.name if step == self.step else None


def take_fault(environment: dict[str, str]) -> Fault:
    """The fault of this start; the file loses its first line."""
    path = environment.get(FAULTS_FILE)
    if not path or not Path(path).is_file():
        return Fault("none")
    first, *rest = Path(path).read_text().splitlines() or ["none"]
    Path(path).write_text("\n".join(rest))
    name, _, step = first.strip().partition("@")
    return Fault(name or "none", int(step or 0))


def strike(name: str) -> None:
    """Do what the fault does; those that end the process do not come back."""
    if name == "oom":
        _fail(_OUT_OF_MEMORY)
    elif name == "disk_full":
        _fail(_DISK_FULL)
    elif name == "crash":
        _fail("RuntimeError: CUDA error: an illegal memory access was encountered")
    elif name == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif name == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(_FOR_EVER_S)
    elif name == "hang":
        time.sleep(_FOR_EVER_S)
    elif name == "garbage":
        sys.stderr.buffer.write(b"\x00\xff\xfe steps: ??%|\r\r\n" + bytes(range(256)) * 8)
        sys.stderr.buffer.flush()


def _fail(last_line: str) -> None:
    sys.stderr.write(f"Traceback (most recent call last):\n{last_line}\n")
    sys.exit(1)
