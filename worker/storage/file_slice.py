"""A stretch of a file as the body of a request, read from disk as it is sent."""

import hashlib
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_READ_BYTES: Final = 1024 * 1024


class FileSlice:
    """`length` bytes from `start` on, readable as often as a retry needs.

    Args:
        stop: once set, reading raises, which breaks off the request that is sending.
    """

    def __init__(self, path: Path, start: int, length: int, stop: threading.Event) -> None:
        self._file = path.open("rb")
        self._start = start
        self._length = length
        self._stop = stop
        self.seek(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._length

    def tell(self) -> int:
        """Position within the slice."""
        return self._file.tell() - self._start

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move within the slice."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: self._length}[whence]
        self._file.seek(self._start + min(max(0, base + offset), self._length))
        return self.tell()

    def read(self, size: int | None = -1) -> bytes:
        """At most `size` bytes, all that is left when negative; empty at the slice's end."""
        if self._stop.is_set():
            raise InterruptedError("the transfer was stopped")
        left = self._length - self.tell()
        return self._file.read(left if size is None or size < 0 else min(size, left))

    def md5(self) -> bytes:
        """Digest of the whole slice, which stands at its start afterwards."""
        digest = hashlib.md5(usedforsecurity=False)
        self.seek(0)
        while chunk := self.read(_READ_BYTES):
            digest.update(chunk)
        self.seek(0)
        return digest.digest()
