"""The folder of one training, which outlives the worker's process but not the job's end.

A worker that dies leaves it; the same job, run again on that disk, finds what was finished. It goes
when the job ends, whether well, badly or by a cancel.
"""

import json
import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from worker.errors import DiskFull
from worker.training.defaults import short_digest

log = logging.getLogger(__name__)

_ABANDONED_S: Final = 7 * 24 * 3600
_MARGIN_BYTES: Final = 500_000_000
_STATE_BYTES_PER_RANK: Final = 32_000_000  # fp32 weights and AdamW's two moments for SDXL's layers
_FILE_BYTES_PER_RANK: Final = 5_400_000  # fp16; 170 MB at rank 32 (measured)
_STATES: Final = 3  # the one resumed from, the newest, and the one at the end
_FILES: Final = 4


class TrainingFolder:
    """Owns the folder; a context manager that removes it.

    Args:
        root: holds the folders of all trainings of this disk.
        job_id: names this one's; the same job gets the same folder.
    """

    def __init__(self, root: Path, job_id: str) -> None:
        self._root = root
        self.path = root / short_digest(job_id)

    def __enter__(self) -> Self:
        self._root.mkdir(parents=True, exist_ok=True)
        self._remove_abandoned()
        self.path.mkdir(exist_ok=True)
        return self

    def __exit__(self, *exc: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def fresh(self, name: str) -> Path:
        """An empty folder of that name."""
        folder = self.path / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def kept(self, name: str) -> Path:
        """A folder of that name with what an earlier run left in it."""
        folder = self.path / name
        folder.mkdir(exist_ok=True)
        return folder

    def note(self, name: str, document: Mapping[str, Any]) -> None:
        """Write a document; it is there whole or not at all."""
        partial = self.path / f".{name}.part"
        partial.write_text(json.dumps(document), encoding="utf-8")
        partial.replace(self.path / name)

    def noted(self, name: str) -> dict[str, Any] | None:
        """What `note` wrote, in this run or an earlier one; None when it did not come to that."""
        try:
            document: dict[str, Any] = json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return document

    def _remove_abandoned(self) -> None:
        for folder in self._root.iterdir():
            if time.time() - folder.stat().st_mtime > _ABANDONED_S:
                log.warning("abandoned training removed", extra={"folder": folder.name})
                shutil.rmtree(folder, ignore_errors=True)


def bytes_needed(rank: int) -> int:
    """Disk that a training of this rank may take: states to resume from, files, a margin."""
    return rank * (_STATES * _STATE_BYTES_PER_RANK + _FILES * _FILE_BYTES_PER_RANK) + _MARGIN_BYTES


def require_disk(folder: Path, needed: int) -> None:
    """Make sure of the disk before anything is trained.

    Raises:
        DiskFull: fewer bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskFull(
            f"The training needs {needed / 1e9:.1f} GB of disk and {free / 1e9:.1f} GB are free; "
            "give the container more, or lower rank.",
            details={"needed_bytes": needed, "free_bytes": free},
        )
