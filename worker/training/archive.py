"""The photos of an archive with their captions, and a word on every file that is neither."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worker.nature import is_picture, nature_of
from worker.training.containers import ArchiveLimits, Budget, Entry, opened, reject
from worker.training.layout import (
    CAPTION_SUFFIXES,
    METADATA_NAMES,
    PICTURE_SUFFIXES,
    Unused,
    caption_files,
    caption_text,
    is_clutter,
    kohya_folder,
    metadata_captions,
    relative_repeats,
    suffix,
)

_MAX_CAPTION_BYTES: Final = 16 * 1024
_MAX_METADATA_BYTES: Final = 2_000_000


@dataclass(frozen=True, slots=True)
class Unpacked:
    """One photo of an archive.

    Attributes:
        name: in the archive.
        path: of its file here; None when it is too large.
        caption: the user's.
        repeats: how often it is seen for each time that others are.
    """

    name: str
    path: Path | None
    caption: str | None
    repeats: int = 1


@dataclass(frozen=True, slots=True)
class PhotoSet:
    """What an archive held; `words` are those of kohya's folders where all of them say the same."""

    photos: tuple[Unpacked, ...]
    words: str | None
    unused: tuple[Unused, ...]


def unpack(
    archive: Path, folder: Path, limits: ArchiveLimits, check_cancelled: Callable[[], None]
) -> PhotoSet:
    """Unpack the photos of a zip or tar into `folder` as 000, 001, …, in the order of their names.

    Args:
        archive: the archive.
        folder: an existing folder of ours.
        limits: what is allowed.
        check_cancelled: called between chunks; what it raises ends the work.

    Raises:
        DatasetRejected: not an archive, encrypted, unsafe names or links, or beyond the limits.
    """
    budget = Budget(limits, check_cancelled)
    with opened(archive, limits, budget) as entries:
        files = [entry for entry in entries if not is_clutter(entry.name)]
        if sum(entry.size for entry in files) > limits.total_bytes:
            reject(f"unpacks to more than {limits.total_bytes:,} bytes")
        photos, unused = _photos(files, limits)
        names = [photo.name for photo in photos]
        captions, unread = _captions(files, names, budget)
        found = [kohya_folder(name) for name in names]
        repeats = relative_repeats(each[0] if each else 1 for each in found)
        words = {each[1] if each else None for each in found}
        unpacked = tuple(
            Unpacked(
                photo.name,
                _written(photo, folder / f"{number:03d}", budget),
                captions.get(photo.name),
                repeats[number],
            )
            for number, photo in enumerate(photos)
        )
    common = words.pop() if len(words) == 1 else None
    return PhotoSet(unpacked, common, (*unused, *unread))


def _photos(files: Sequence[Entry], limits: ArchiveLimits) -> tuple[list[Entry], list[Unused]]:
    """The photos in the order of their names, and what looks like none."""
    photos, unused = [], []
    for entry in files:
        if suffix(entry.name) in CAPTION_SUFFIXES or _is_metadata(entry):
            continue
        head = b"" if suffix(entry.name) in PICTURE_SUFFIXES else entry.head()
        if suffix(entry.name) in PICTURE_SUFFIXES or is_picture(head):
            photos.append(entry)
        else:
            nature = nature_of(head)
            unused.append(Unused(entry.name, f"it is {nature or 'no picture and no caption'}"))
    if len(photos) > limits.photos:
        reject(f"has {len(photos)} photos; at most {limits.photos} are allowed")
    return sorted(photos, key=lambda entry: entry.name), unused


def _captions(
    files: Sequence[Entry], photos: Sequence[str], budget: Budget
) -> tuple[dict[str, str], list[Unused]]:
    """The caption of each photo that has one, and every text that is not used or not wholly."""
    captions: dict[str, str] = {}
    unused: list[Unused] = []
    for entry in filter(_is_metadata, files):
        given, unread = metadata_captions(entry.name, _text(entry, budget), photos)
        captions |= given
        unused += unread
    texts = {entry.name: entry for entry in files if suffix(entry.name) in CAPTION_SUFFIXES}
    belongs = caption_files(photos, sorted(texts, key=lambda name: (suffix(name) != ".txt", name)))
    for name, entry in texts.items():
        text, problem = caption_text(_text(entry, budget))
        owners = [photo for photo, file in belongs.items() if file == name]
        if text:
            captions |= dict.fromkeys(owners, text)
        if problem and owners:
            unused.append(Unused(name, problem))
        if text and not owners:
            unused.append(
                Unused(name, "no photo has its name, or another caption of that photo is used")
            )
    return captions, unused


def _is_metadata(entry: Entry) -> bool:
    return entry.name.rpartition("/")[2].lower() in METADATA_NAMES


def _text(entry: Entry, budget: Budget) -> bytes:
    raw = entry.head(_MAX_METADATA_BYTES if _is_metadata(entry) else _MAX_CAPTION_BYTES)
    budget.spend(len(raw))
    return raw


def _written(photo: Entry, path: Path, budget: Budget) -> Path | None:
    if photo.size > budget.limits.photo_bytes:
        return None
    with photo.open() as packed, path.open("wb") as file:
        budget.copy(packed, file)
    return path
