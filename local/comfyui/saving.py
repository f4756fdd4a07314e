"""Writing an output file, and the ways in which that can go wrong when a test asks for it."""

import errno
from pathlib import Path

from local.comfyui.faults import Faults


def save(faults: Faults, path: Path, body: bytes) -> None:
    """Write a file.

    Raises:
        OSError: there is no room (a fault).
    """
    if faults.due("disk_full"):
        raise OSError(errno.ENOSPC, "No space left on device")
    path.write_bytes(body)
    spoil(faults, path)


def spoil(faults: Faults, path: Path) -> None:
    """Damage a file that was written, where a fault says so."""
    if faults.due("truncate_output"):
        body = path.read_bytes()
        path.write_bytes(body[: len(body) // 2])
    if faults.due("empty_output"):
        path.write_bytes(b"")
    if faults.due("missing_output"):
        path.unlink()
