"""Photos on their way to our disk: one by one from sources, or out of an archive."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from worker.contract_fields import Photo, Source
from worker.errors import SourceUnreachable
from worker.training.archive import unpack
from worker.training.containers import ArchiveLimits
from worker.training.layout import Unused
from worker.training.photos import Reason

Check = Callable[[], None]
OnShare = Callable[[float], None]
"""Told how much of a stage is done, from 0 to 1; cheap, from any thread."""


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
        on_share: OnShare | None = None,
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
    """A photo on our disk, or why it is not.

    Attributes:
        caption: the user's.
        repeats: how often it is seen for each time that others are.
    """

    index: int
    name: str
    path: Path | None
    caption: str | None = None
    problem: Reason | None = None
    repeats: int = 1


@dataclass(frozen=True, slots=True)
class FetchedPhotos:
    """All photos of a job.

    Attributes:
        words: trigger and class noun as kohya's folders say them, where all say the same.
        unused: files of an archive that have no part in the training.
    """

    photos: tuple[Fetched, ...]
    words: str | None = None
    unused: tuple[Unused, ...] = ()


def fetch_photos(
    photos: Sequence[Photo],
    reader: Reader,
    folder: Path,
    limits: Limits,
    pool: Executor,
    check_cancelled: Check,
) -> FetchedPhotos:
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

    return FetchedPhotos(tuple(pool.map(fetch, range(len(photos)))))


def fetch_archive(
    source: Source,
    reader: Reader,
    folder: Path,
    limits: Limits,
    check_cancelled: Check,
    on_share: OnShare | None = None,
) -> FetchedPhotos:
    """Fetch an archive and unpack its photos; the archive itself is removed again.

    `on_share` is told how much of the archive has come.

    Raises:
        DatasetRejected: the archive is unusable or beyond its bounds.
        SourceForbidden, SourceUnreachable, InvalidInput, StoreError: it cannot be had.
    """
    archive = folder / "archive"
    reader.save(
        source,
        archive,
        field="archive",
        max_bytes=limits.archive_bytes,
        check_cancelled=check_cancelled,
        on_share=on_share,
    )
    bounds = ArchiveLimits(photo_bytes=limits.photo_bytes)
    try:
        unpacked = unpack(archive, folder, bounds, check_cancelled)
    finally:
        archive.unlink()
    large = Reason("too_large", f"It has more than {limits.photo_bytes:,} bytes.")
    photos = tuple(
        Fetched(
            index,
            photo.name,
            photo.path,
            photo.caption,
            None if photo.path else large,
            photo.repeats,
        )
        for index, photo in enumerate(unpacked.photos)
    )
    return FetchedPhotos(photos, unpacked.words, unpacked.unused)
