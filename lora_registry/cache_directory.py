"""The cache's folder: what is in it, what is on its way, and what goes when room is needed."""

import fcntl
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_POLL_S: Final = 0.02


class LockTimeout(Exception):
    """The holder lives, and did not let go in the time allowed."""


@contextmanager
def exclusive(
    path: Path, *, timeout_s: float, check_cancelled: Callable[[], None] | None = None
) -> Iterator[None]:
    """Hold a lock file alone.

    Args:
        path: the lock file; made where there is none, and left behind (it is empty).
        timeout_s: the longest wait.
        check_cancelled: called while waiting, 50 times a second; what it raises ends the wait.

    Raises:
        LockTimeout: it did not become free.
    """
    ends = time.monotonic() + timeout_s
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        while not _locked(descriptor):
            if check_cancelled is not None:
                check_cancelled()
            if time.monotonic() > ends:
                raise LockTimeout(str(path.name))
            time.sleep(_POLL_S)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def exclusive_now(path: Path, *, create: bool = False) -> Iterator[bool]:
    """Hold a file's lock alone if that is possible at once; yields whether it is.

    False, too, for a file that is not there (unless `create`), not there any more, or not ours.
    """
    flags = os.O_RDWR | (os.O_CREAT if create else 0)
    try:
        descriptor = os.open(path, flags, 0o644)
    except (FileNotFoundError, PermissionError):
        yield False
        return
    try:
        yield _locked(descriptor) and still_at(path, descriptor)
    finally:
        os.close(descriptor)


def still_at(path: Path, descriptor: int) -> bool:
    """Whether a path still names the open file: a lock on an unlinked file locks nobody out."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


log = logging.getLogger(__name__)

_SUFFIX: Final = ".safetensors"
_HEX: Final = frozenset("0123456789abcdef")
_BUDGET_WAIT_S: Final = 60.0  # the holder only looks at the folder and unlinks


@dataclass(frozen=True, slots=True)
class CacheUsage:
    """What the cache holds, for health reports; sizes in bytes."""

    files: int
    bytes: int
    budget_bytes: int


@dataclass(frozen=True, slots=True)
class _Entry:
    path: Path
    size: int
    used_ns: int


class CacheDirectory:
    """The folder, its budget, and the state beside the files (see `cache`).

    Args:
        folder: made where it is missing.
        budget_bytes: for the files together, those on their way included.
    """

    def __init__(self, folder: Path, budget_bytes: int) -> None:
        self._folder = folder
        self._budget = budget_bytes
        self._state = folder / ".cache"
        self._parts = self._state / "parts"
        self._parts.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Where a file is when it is there."""
        return self._folder / f"{sha256}{_SUFFIX}"

    def lock(self, sha256: str) -> Path:
        """The lock file of the one that downloads it."""
        return self._state / f"{sha256}.lock"

    def open(self, sha256: str, size: int) -> int | None:
        """Open and pin a file that is what was verified; None if it is missing, or was changed.

        Answers a descriptor with a shared lock: no process evicts the file until it is closed.
        """
        path = self.path(sha256)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            status = os.fstat(descriptor)
            known = self._verified(sha256) == (size, status.st_mtime_ns)
            if known and status.st_size == size and still_at(path, descriptor):
                with suppress(PermissionError):  # another user's file: its age is then its owner's
                    os.utime(descriptor, ns=(time.time_ns(), status.st_mtime_ns))
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def publish(self, part: Path, sha256: str) -> int:
        """Give a verified file its place; returns it pinned, as `open` does."""
        descriptor = os.open(part, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)  # before the name exists: never seen unpinned
            status = os.fstat(descriptor)
            self._mark_verified(sha256, status.st_size, status.st_mtime_ns)
            part.replace(self.path(sha256))
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def reserve(self, sha256: str, size: int, check_cancelled: Callable[[], None] | None) -> Path:
        """Make room within the budget, and a folder for the download whose name reserves it.

        Files in use stay, so the budget can be exceeded by what is in use at once. The caller
        holds the file's download lock, and removes the folder in the end.
        """
        with exclusive(
            self._state / "budget.lock", timeout_s=_BUDGET_WAIT_S, check_cancelled=check_cancelled
        ):
            for left_over in self._parts.glob(f"{sha256}-*"):
                shutil.rmtree(left_over, ignore_errors=True)
            reserved = sum(self._live_parts())
            used = reserved + sum(entry.size for entry in self._entries())
            excess = used + size - self._budget
            if excess > 0 and self.evict(excess) < excess:
                log.warning(
                    "lora cache over its budget: all is in use",
                    extra={"budget_bytes": self._budget, "needed_bytes": used + size},
                )
            folder = self._parts / f"{sha256}-{size}"
            folder.mkdir()
            return folder

    def evict(self, wanted: int) -> int:
        """Remove the files unused for longest until `wanted` bytes are free; returns the bytes."""
        freed = 0
        for entry in sorted(self._entries(), key=lambda entry: entry.used_ns):
            if freed >= wanted:
                break
            if self._remove(entry.path):
                freed += entry.size
        return freed

    def usage(self) -> CacheUsage:
        """What the folder holds now."""
        sizes = [entry.size for entry in self._entries()]
        return CacheUsage(len(sizes), sum(sizes), self._budget)

    def _remove(self, path: Path) -> bool:
        with exclusive_now(path) as unused:
            if unused:
                path.unlink(missing_ok=True)
                self._verified_path(path.stem).unlink(missing_ok=True)
                log.info("lora evicted", extra={"sha256": path.stem})
            return unused

    def _entries(self) -> Iterator[_Entry]:
        """Every file that is ours, by its name; what others put into the folder is left alone."""
        for path in self._folder.glob(f"*{_SUFFIX}"):
            if len(path.stem) == 64 and _HEX.issuperset(path.stem):  # noqa: PLR2004 - SHA-256 in hex
                with suppress(FileNotFoundError):
                    status = path.stat()
                    yield _Entry(path, status.st_size, status.st_atime_ns)

    def _live_parts(self) -> Iterator[int]:
        """The size of each download on its way; those of dead processes are removed."""
        for folder in list(self._parts.iterdir()):
            sha256, _, size = folder.name.partition("-")
            with exclusive_now(self.lock(sha256), create=True) as abandoned:
                if abandoned:
                    shutil.rmtree(folder, ignore_errors=True)
                else:
                    yield int(size)

    def _verified_path(self, sha256: str) -> Path:
        return self._state / f"{sha256}.verified"

    def _verified(self, sha256: str) -> tuple[int, int] | None:
        try:
            size, modified_ns = json.loads(self._verified_path(sha256).read_bytes())
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return size, modified_ns

    def _mark_verified(self, sha256: str, size: int, modified_ns: int) -> None:
        path = self._verified_path(sha256)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps([size, modified_ns]))
        temporary.replace(path)
