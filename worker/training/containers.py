"""A zip or a tar of strangers, opened as if it were hostile.

No name inside ever becomes a path of ours, and nothing about sizes is believed: what comes out is
counted as it comes.
"""

import bz2
import contextlib
import errno
import gzip
import io
import lzma
import re
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Final, NoReturn

from worker.contract import MAX_PHOTOS
from worker.errors import DatasetRejected
from worker.nature import nature_of

_CHUNK: Final = 256 * 1024
_HEAD_BYTES: Final = 512
_RATIO_MATTERS_FROM: Final = 1_000_000
_ENCRYPTED: Final = 0x1
_UTF8_NAME: Final = 0x800
_XZ_MEMORY: Final = 100_000_000  # bytes; a dictionary of 64 MB is xz's largest preset
_BROKEN: Final = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    ValueError,  # negative positions, names that do not decode
    ArithmeticError,
    LookupError,
    NotImplementedError,  # packing that Python does not know
    RuntimeError,  # encryption that a flag hides
)
_DAMAGED: Final = "is damaged or packed in an unusual way; make a plain zip of the photos"
_DRIVE: Final = re.compile(r"[A-Za-z]:")

_Readable = IO[bytes] | io.RawIOBase | io.BufferedIOBase


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """Bounds of what an archive may hold; a photo above `photo_bytes` is only left out.

    Attributes:
        photos: most photos.
        photo_bytes: largest photo, unpacked.
        total_bytes: of everything unpacked.
        ratio: unpacked over packed size of one entry above a megabyte; photos hardly compress.
        entries: of any kind.
        directory_bytes: size of the archive's own tables, which are read into memory whole.
    """

    photos: int = MAX_PHOTOS
    photo_bytes: int = 25_000_000
    total_bytes: int = 2_500_000_000
    ratio: float = 100.0
    entries: int = 2_000
    directory_bytes: int = 4_000_000


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in an archive: its name with plain slashes, its size as stated, and its bytes."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]

    def head(self, size: int = _HEAD_BYTES) -> bytes:
        """Its first bytes."""
        with self.open() as file:
            return file.read(size)


class Budget:
    """Counts what comes out of an archive, and lets a cancel in."""

    def __init__(self, limits: ArchiveLimits, check_cancelled: Callable[[], None]) -> None:
        self.limits = limits
        self._check_cancelled = check_cancelled
        self._left = limits.total_bytes

    def spend(self, amount: int) -> None:
        """Raises DatasetRejected when everything together is too much."""
        self._check_cancelled()
        self._left -= amount
        if self._left < 0:
            reject(f"unpacks to more than {self.limits.total_bytes:,} bytes")

    def copy(self, source: _Readable, target: IO[bytes]) -> None:
        """All bytes of a file, each counted."""
        while chunk := source.read(_CHUNK):
            self.spend(len(chunk))
            target.write(chunk)


@contextlib.contextmanager
def opened(archive: Path, limits: ArchiveLimits, budget: Budget) -> Iterator[list[Entry]]:
    """The files of a zip (also zip64), or of a tar (plain, gzip, bzip2, xz), to read one by one.

    A packed tar is unpacked beside itself, within the budget, while this is open.

    Raises:
        DatasetRejected: neither, damaged, encrypted, unsafe names or links, or beyond the limits;
            also for what reading an entry raises in the body.
    """
    plain = archive.with_name(f"{archive.name}.plain")
    try:
        with _damage_named():
            with archive.open("rb") as file:
                _unpack_tar(file, plain, limits, budget)
            with _Bounded(plain if plain.exists() else archive, limits) as file:
                if plain.exists() or not zipfile.is_zipfile(file):
                    yield _tar_entries(file, limits)
                else:
                    with zipfile.ZipFile(file) as opened_zip:
                        yield _zip_entries(opened_zip, limits)
    finally:
        plain.unlink(missing_ok=True)


def reject(sentence: str) -> NoReturn:
    """Raise for what the archive is or does."""
    raise DatasetRejected(f"archive {sentence}.", field="archive")


@contextlib.contextmanager
def _damage_named() -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        raise DatasetRejected(f"archive {_DAMAGED}.", field="archive") from error
    except OSError as error:
        # A seek to where no file goes, or a stream that is none (no errno): damage does both.
        if error.errno not in {None, errno.EINVAL}:
            raise
        raise DatasetRejected(f"archive {_DAMAGED}.", field="archive") from error


class _Bounded(io.FileIO):
    """A file that is never read by more than an archive's tables may have at a time.

    Both readers take tables and long names whole, of whatever length the file says.
    """

    def __init__(self, path: Path, limits: ArchiveLimits) -> None:
        super().__init__(path)
        self._limits = limits

    def read(self, size: int | None = -1, /) -> bytes:
        """As a file's; a whole rest only where it is small."""
        wanted = -1 if size is None else size
        if wanted < 0:
            at = self.tell()
            wanted = self.seek(0, io.SEEK_END) - at
            self.seek(at)
        if wanted > self._limits.directory_bytes:
            reject(f"has too many entries; at most {self._limits.entries} are allowed")
        return super().read(wanted) or b""


class _Xz(io.RawIOBase):
    """The bytes of an xz stream within `_XZ_MEMORY`, which `lzma.LZMAFile` cannot bound."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._decompressor = lzma.LZMADecompressor(memlimit=_XZ_MEMORY)

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, none only at the end."""
        while not self._decompressor.eof:
            given = self._file.read(_CHUNK) if self._decompressor.needs_input else b""
            if self._decompressor.needs_input and not given:
                raise EOFError("the stream was cut off")
            if chunk := self._decompressor.decompress(given, size):
                return chunk
        return b""


_UNPACKERS: Final[Mapping[bytes, Callable[[IO[bytes]], _Readable]]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": _Xz,
}


def _unpack_tar(file: IO[bytes], plain: Path, limits: ArchiveLimits, budget: Budget) -> None:
    """Write what a packed tar holds to `plain`; nothing for any other file."""
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    unpacker = next((make for magic, make in _UNPACKERS.items() if head.startswith(magic)), None)
    if unpacker is None:
        return
    # A budget of its own: what is in the tar is counted again as it comes out of that.
    own = Budget(limits, partial(budget.spend, 0))
    with plain.open("wb") as target, contextlib.closing(unpacker(file)) as source:
        own.copy(source, target)


def _tar_entries(file: IO[bytes], limits: ArchiveLimits) -> list[Entry]:
    file.seek(0)  # looking for a zip has moved it
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    try:
        tar = tarfile.TarFile(fileobj=file, errorlevel=2)
    except tarfile.TarError:
        nature = nature_of(head)
        reject(f"is {nature or 'damaged, cut off or something else'}, not a zip or tar of photos")
    entries = []
    for count, member in enumerate(tar):
        if count >= limits.entries:
            reject(f"has more than {limits.entries} entries")
        if member.isdir():
            continue
        if member.islnk() or member.issym():
            reject("has a symbolic link; put the photos themselves in")
        if not member.isreg() or member.issparse():
            reject("has an entry that is no plain file")
        entries.append(Entry(_safe_name(member.name), member.size, partial(_of_tar, tar, member)))
    return entries


def _of_tar(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    return tar.extractfile(member) or io.BytesIO()


def _zip_entries(opened_zip: zipfile.ZipFile, limits: ArchiveLimits) -> list[Entry]:
    infos = opened_zip.infolist()
    if len(infos) > limits.entries:
        reject(f"has {len(infos)} entries; at most {limits.entries} are allowed")
    entries = []
    for info in infos:
        name = _safe_name(_zip_name(info))
        if stat.S_ISLNK(info.external_attr >> 16):
            reject("has a symbolic link; put the photos themselves in")
        if info.flag_bits & _ENCRYPTED:
            reject("is encrypted; make one without a password")
        large = info.file_size > _RATIO_MATTERS_FROM
        if large and info.file_size > limits.ratio * max(1, info.compress_size):
            reject("has an entry that unpacks to more than a photo can")
        if not info.orig_filename.endswith(("/", "\\")):
            entries.append(Entry(name, info.file_size, partial(opened_zip.open, info)))
    return entries


def _zip_name(info: zipfile.ZipInfo) -> str:
    """The name as it was meant: many programs write UTF-8 and do not say so."""
    if info.flag_bits & _UTF8_NAME:
        return info.orig_filename
    try:
        return info.orig_filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.orig_filename


def _safe_name(given: str) -> str:
    """The name with plain slashes, without `.` parts; empty when nothing is left.

    One form of Unicode, since macOS takes accents apart, and no bytes that are no text.
    """
    text = given.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    name = unicodedata.normalize("NFC", text)
    if "\0" in name:  # zipfile cuts a name there, and fails on an empty one
        reject("has an entry whose name no file can have")
    parts = re.split(r"[/\\]", name)
    if parts[0] == "" or ".." in parts or _DRIVE.match(parts[0]):
        reject("has an entry that points outside of it")
    return "/".join(part for part in parts if part not in {"", "."})
