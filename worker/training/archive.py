"""A zip of photos, unpacked as if it were hostile.

No name inside the archive ever becomes a path of ours, and nothing about sizes is believed: what
comes out is counted as it comes. Folders at any depth are fine, and so is what macOS adds.
"""

import errno
import lzma
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Final, NoReturn

from worker.contract import MAX_CAPTION, MAX_PHOTOS
from worker.errors import DatasetRejected

_END: Final = b"PK\x05\x06"
_ZIP64_LOCATOR: Final = b"PK\x06\x07"
_END_BYTES: Final = 22
_MAX_COMMENT: Final = 65_535
_CHUNK: Final = 256 * 1024
_MAX_CAPTION_BYTES: Final = 16 * 1024
_RATIO_MATTERS_FROM: Final = 1_000_000
_ENCRYPTED: Final = 0x1
_DAMAGED: Final = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    ValueError,  # negative positions, names that do not decode
    NotImplementedError,  # packing that Python does not know
    RuntimeError,  # encryption that a flag hides
)
_DAMAGED_MESSAGE: Final = (
    "archive is damaged or packed in an unusual way; make a plain zip of the photos."
)
_CAPTIONS: Final = frozenset({".txt", ".caption"})
# What trainers, phones and editors put beside photos; anything else is tried as a photo.
_BESIDE_PHOTOS: Final = frozenset(
    {".aae", ".csv", ".db", ".html", ".ini", ".json", ".jsonl", ".log", ".md", ".mov", ".mp4"}
    | {".npz", ".pt", ".safetensors", ".toml", ".xmp", ".yaml", ".yml"}
)
_CLUTTER: Final = frozenset({"__macosx", "@eadir", "$recycle.bin", "thumbs.db", "desktop.ini"})
_DRIVE: Final = re.compile(r"[A-Za-z]:")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]+")


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """Bounds of what an archive may hold; a photo above `photo_bytes` is only left out.

    Attributes:
        photos: most photos.
        photo_bytes: largest photo, unpacked.
        total_bytes: of everything unpacked.
        ratio: unpacked over packed size of one entry above a megabyte; photos hardly compress.
        entries: of any kind.
        directory_bytes: size of the archive's own table, which is read into memory whole.
    """

    photos: int = MAX_PHOTOS
    photo_bytes: int = 25_000_000
    total_bytes: int = 2_500_000_000
    ratio: float = 100.0
    entries: int = 2_000
    directory_bytes: int = 4_000_000


@dataclass(frozen=True, slots=True)
class Unpacked:
    """One photo of an archive: its name there, its file here (None: too large), its caption."""

    name: str
    path: Path | None
    caption: str | None


def unpack(
    archive: Path, folder: Path, limits: ArchiveLimits, check_cancelled: Callable[[], None]
) -> list[Unpacked]:
    """Unpack the photos of a zip into `folder` as 000, 001, …, in the order of their names.

    A text file beside a photo (`pose.jpg`, `pose.txt`) is its caption.

    Args:
        archive: the zip file.
        folder: an existing folder of ours.
        limits: what is allowed.
        check_cancelled: called between chunks; what it raises ends the work.

    Raises:
        DatasetRejected: not a zip, encrypted, unsafe names or links, or beyond the limits.
    """
    _refuse_large_directory(archive, limits)
    try:
        with zipfile.ZipFile(archive) as opened:
            photos, captions = _entries(opened, limits)
            budget = _Budget(limits, check_cancelled)
            texts = {name: _caption(opened, info, budget) for name, info in captions.items()}
            return [
                Unpacked(
                    info.filename,
                    _photo(opened, info, folder / f"{number:03d}", budget),
                    next((texts[n] for n in _caption_names(info.filename) if texts.get(n)), None),
                )
                for number, info in enumerate(photos)
            ]
    except _DAMAGED as error:
        raise DatasetRejected(_DAMAGED_MESSAGE, field="archive") from error
    except OSError as error:
        # A seek to where no file goes, or a bzip2 stream that is none (no errno): damage does both.
        if error.errno not in {None, errno.EINVAL}:
            raise
        raise DatasetRejected(_DAMAGED_MESSAGE, field="archive") from error


def caption_text(raw: bytes) -> str:
    """The caption in a text file: one line, no control characters, at most 2,000 characters."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = raw.decode("utf-16", errors="replace")
    else:
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            # Windows' own in the western world, unless some of it can only be UTF-8.
            utf8 = not raw.decode("utf-8", errors="ignore").isascii()
            text = raw.decode("utf-8-sig" if utf8 else "cp1252", errors="replace")
    return " ".join(_CONTROL.sub(" ", text).split())[:MAX_CAPTION]


class _Budget:
    """Counts what comes out."""

    def __init__(self, limits: ArchiveLimits, check_cancelled: Callable[[], None]) -> None:
        self.limits = limits
        self._check_cancelled = check_cancelled
        self._left = limits.total_bytes

    def spend(self, amount: int) -> None:
        self._check_cancelled()
        self._left -= amount
        if self._left < 0:
            _reject(f"archive unpacks to more than {self.limits.total_bytes:,} bytes")


def _refuse_large_directory(archive: Path, limits: ArchiveLimits) -> None:
    # zipfile reads the table of contents whole, before anybody can count its entries.
    with archive.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _END_BYTES - _MAX_COMMENT))
        tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < _END_BYTES:
        _reject("archive is not a zip file, or was cut off")
    if tail[max(0, at - 20) : at].startswith(_ZIP64_LOCATOR):
        _reject("archive is in the zip64 format, which a set of photos does not need")
    if int.from_bytes(tail[at + 12 : at + 16], "little") > limits.directory_bytes:
        _reject(f"archive has too many entries; at most {limits.entries} are allowed")


def _entries(
    opened: zipfile.ZipFile, limits: ArchiveLimits
) -> tuple[list[zipfile.ZipInfo], Mapping[str, zipfile.ZipInfo]]:
    infos = opened.infolist()
    if len(infos) > limits.entries:
        _reject(f"archive has {len(infos)} entries; at most {limits.entries} are allowed")
    for info in infos:
        _refuse_unsafe(info, limits)
    files = [info for info in infos if not info.is_dir() and not _is_clutter(info.filename)]
    captions: dict[str, zipfile.ZipInfo] = {}
    for info in files:
        if _suffix(info) in _CAPTIONS:
            captions.setdefault(_stem(info.filename), info)
    others = _CAPTIONS | _BESIDE_PHOTOS
    photos = sorted((i for i in files if _suffix(i) not in others), key=lambda i: i.filename)
    if len(photos) > limits.photos:
        _reject(f"archive has {len(photos)} photos; at most {limits.photos} are allowed")
    _refuse_bomb(files, limits)
    return photos, captions


def _refuse_unsafe(info: zipfile.ZipInfo, limits: ArchiveLimits) -> None:
    parts = re.split(r"[/\\]", info.orig_filename)
    if "\0" in info.orig_filename:  # zipfile cuts a name there, and fails on an empty one
        _reject("archive has an entry whose name no file can have")
    if parts[0] == "" or ".." in parts or _DRIVE.match(parts[0]):
        _reject("archive has an entry that points outside of it")
    if stat.S_ISLNK(info.external_attr >> 16):
        _reject("archive has a symbolic link; put the photos themselves in")
    if info.flag_bits & _ENCRYPTED:
        _reject("archive is encrypted; make one without a password")
    large = info.file_size > _RATIO_MATTERS_FROM
    if large and info.file_size > limits.ratio * max(1, info.compress_size):
        _reject("archive has an entry that unpacks to more than a photo can")


def _refuse_bomb(files: Iterable[zipfile.ZipInfo], limits: ArchiveLimits) -> None:
    if sum(info.file_size for info in files) > limits.total_bytes:
        _reject(f"archive unpacks to more than {limits.total_bytes:,} bytes")


def _photo(
    opened: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, budget: _Budget
) -> Path | None:
    if info.file_size > budget.limits.photo_bytes:
        return None
    with opened.open(info) as packed, path.open("wb") as file:
        _copy(packed, file, budget)
    return path


def _copy(packed: IO[bytes], file: IO[bytes], budget: _Budget) -> None:
    while chunk := packed.read(_CHUNK):
        budget.spend(len(chunk))
        file.write(chunk)


def _caption(opened: zipfile.ZipFile, info: zipfile.ZipInfo, budget: _Budget) -> str:
    with opened.open(info) as packed:
        raw = packed.read(_MAX_CAPTION_BYTES)
    budget.spend(len(raw))
    return caption_text(raw)


def _is_clutter(name: str) -> bool:
    parts = [part.lower() for part in re.split(r"[/\\]", name)]
    return any(part.startswith(".") or part in _CLUTTER for part in parts)


def _suffix(info: zipfile.ZipInfo) -> str:
    return PurePosixPath(info.filename).suffix.lower()


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_suffix("") if path.name else path).lower()


def _caption_names(photo: str) -> tuple[str, str, str]:
    """Where a photo's caption may be: beside it, behind its whole name, in a sibling folder."""
    path = PurePosixPath(photo)
    sibling = path.parent.parent / "captions" / path.name
    return _stem(photo), photo.lower(), _stem(str(sibling))


def _reject(sentence: str) -> NoReturn:
    raise DatasetRejected(f"{sentence}.", field="archive")
