"""Locks between threads and processes of one machine: `flock`, which ends with its holder.

Each acquisition opens the file anew, so two threads of one process exclude each other as two
processes do.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
