"""Photos on their way to our disk: one by one from sources, or out of a zip."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from worker.contract import Photo, Source
from worker.errors import SourceUnreachable
from worker.training.archive import ArchiveLimits, unpack
from worker.training.photos import Reason

Check = Callable[[], None]


class Reader(Protocol):
    """What is used of `worker.sources.SourceReader`."""

    def save(
        self,
        source: Source,
        path: Path,
        *,
        field: str,
        max_bytes: int,
        check_cancelled: Check | None = None,
    ) -> int:
        """Write a source to a path; nothing is left there on failure."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds in bytes; `resolution` is what the photos are scaled for."""

    resolution: int
    photo_bytes: int
    archive_bytes: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """A photo on our disk, or why it is not; `caption` is the user's."""

    index: int
    name: str
    path: Path | None
    caption: str | None = None
    problem: Reason | None = None


def fetch_photos(
    photos: Sequence[Photo],
    reader: Reader,
    folder: Path,
    limits: Limits,
    pool: Executor,
    check_cancelled: Check,
) -> list[Fetched]:
    """Fetch photos side by side; one that cannot be had is rejected, the others go on.

    Raises:
        SourceForbidden, InvalidInput, StoreError: the job or the bucket is at fault, not a photo.
    """

    def fetch(index: int) -> Fetched:
        photo, path = photos[index], folder / f"{index:03d}"
        field = f"images.{index}"
        try:
            reader.save(
                photo,
                path,
                field=field,
                max_bytes=limits.photo_bytes,
                check_cancelled=check_cancelled,
            )
        except SourceUnreachable as error:
            problem = Reason("unreachable", str(error))
            return Fetched(index, field, None, problem=problem)
        return Fetched(index, field, path, photo.caption)

    return list(pool.map(fetch, range(len(photos))))


def fetch_archive(
    source: Source, reader: Reader, folder: Path, limits: Limits, check_cancelled: Check
) -> list[Fetched]:
    """Fetch a zip and unpack its photos; the zip itself is removed again.

    Raises:
        DatasetRejected: the archive is unusable or beyond its bounds.
        SourceForbidden, SourceUnreachable, InvalidInput, StoreError: it cannot be had.
    """
    archive = folder / "archive.zip"
    reader.save(
        source,
        archive,
        field="archive",
        max_bytes=limits.archive_bytes,
        check_cancelled=check_cancelled,
    )
    bounds = ArchiveLimits(photo_bytes=limits.photo_bytes)
    try:
        unpacked = unpack(archive, folder, bounds, check_cancelled)
    finally:
        archive.unlink()
    large = Reason("too_large", f"It has more than {limits.photo_bytes:,} bytes.")
    return [
        Fetched(index, photo.name, photo.path, photo.caption, None if photo.path else large)
        for index, photo in enumerate(unpacked)
    ]
