"""One file over HTTP in parallel ranged parts: resumed, verified, renamed when whole.

Beside the file being fetched lie `NAME.part` (its bytes, at full length from the start) and
`NAME.parts` (a line per finished part), so that an interrupted build goes on where it stopped. A
server without ranges is read in one stream.
"""

import fcntl
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from builder.errors import BuildError, DiskTooSmall, DownloadFailed, HashMismatch
from builder.library import digest
from builder.transfer import Part, RangesIgnored, Transfer


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the file must be: its sha256 in hexadecimal and its size in bytes."""

    sha256: str
    size: int


def download(transfer: Transfer, wanted: Wanted, path: Path) -> None:
    """Fetch to `path`; nothing stands there until every byte is right.

    Raises:
        HashMismatch: the source has other content; what was fetched is removed.
        DiskTooSmall, SourceMissing, SourceRefused, SizeMismatch, DownloadFailed: what came stays
            for the next try.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with PartialFile(path, wanted, transfer.part_bytes) as partial:
        _fill(transfer, partial)
        found = digest(partial.path)
    if found == wanted.sha256:
        partial.finish()
        return
    partial.discard()
    if not partial.resumed:
        raise HashMismatch(transfer.where, wanted.sha256, found)
    download(transfer, wanted, path)


class PartialFile:
    """The file on its way: which parts it has, where to write the others."""

    def __init__(self, place: Path, wanted: Wanted, part_bytes: int) -> None:
        self.path = place.with_name(f"{place.name}.part")
        self._place = place
        self.size = wanted.size
        self._journal = place.with_name(f"{place.name}.parts")
        self._title = f"{wanted.sha256} {wanted.size} {part_bytes}"
        self._part_bytes = part_bytes
        self._lock = threading.Lock()
        self._done = self._read_journal()
        self.resumed = bool(self._done)
        self._file = -1

    def __enter__(self) -> Self:
        self._require_space()
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._file)
            raise DownloadFailed(f"{self.path}: another process is fetching it.") from error
        os.ftruncate(self._file, self.size)
        if not self.resumed:
            self._journal.write_text(f"{self._title}\n", "utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def missing(self) -> Iterator[Part]:
        """The parts still to be fetched, in order."""
        for start in range(0, self.size, self._part_bytes):
            if start not in self._done:
                end = min(start + self._part_bytes, self.size)
                yield Part(start, end, self.size)

    def write(self, data: bytes, offset: int) -> None:
        """Put bytes at their place; threads may do so at once."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file, view, offset)
            view, offset = view[written:], offset + written

    def mark(self, part: Part) -> None:
        """Note that a part is complete and on the disk."""
        os.fdatasync(self._file)
        with self._lock, self._journal.open("a", encoding="utf-8") as journal:
            journal.write(f"{part.start}\n")

    def finish(self) -> None:
        """Give the verified file its name."""
        self.path.replace(self._place)
        self._journal.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove what was fetched."""
        self.path.unlink(missing_ok=True)
        self._journal.unlink(missing_ok=True)

    def _read_journal(self) -> frozenset[int]:
        try:
            title, *starts = self._journal.read_text("utf-8").splitlines()
        except (FileNotFoundError, ValueError):
            return frozenset()
        if title != self._title or not self.path.exists():
            return frozenset()
        return frozenset(int(start) for start in starts if start.isdecimal())

    def _require_space(self) -> None:
        held = self.path.stat().st_blocks * 512 if self.path.exists() else 0
        needed = self.size - held
        free = shutil.disk_usage(self._place.parent).free
        if free < needed:
            raise DiskTooSmall(self._place.parent, needed, free)


def _fill(transfer: Transfer, partial: PartialFile) -> None:
    try:
        _fill_in_parallel(transfer, partial)
    except RangesIgnored:
        transfer.fetch_whole(partial.size, partial.write)


def _fill_in_parallel(transfer: Transfer, partial: PartialFile) -> None:
    stop = threading.Event()

    def fetch(part: Part) -> None:
        try:
            if not stop.is_set() and transfer.fetch(part, partial.write, stop):
                partial.mark(part)
        except (BuildError, RangesIgnored):
            stop.set()  # the others end at their next chunk
            raise

    with ThreadPoolExecutor(transfer.connections, thread_name_prefix="part") as pool:
        futures = [pool.submit(fetch, part) for part in partial.missing()]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
    for future in done:
        future.result()
