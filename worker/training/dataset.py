"""From files to a folder that a trainer reads: judged, scaled, re-encoded as PNG, captioned."""

import hashlib
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from PIL import Image

from lora_registry.tensorfile import sha256_of
from worker import media
from worker.contract import MIN_PHOTOS
from worker.errors import DatasetRejected, ImageRejected
from worker.media import Picture
from worker.pictures import Pictures
from worker.training.captions import Captioner, with_trigger
from worker.training.fetching import Check, Fetched, Limits, OnShare
from worker.training.layout import Unused
from worker.training.photos import (
    PhotoFacts,
    Reason,
    Verdict,
    enough_pixels,
    fingerprint,
    judge,
    rejected,
    sharpness,
    size_problem,
)
from worker.training.trainer import PreparedDataset, PreparedPhoto
from worker.training_results import DatasetResult, PhotoResult, UnusedFileResult

GOOD_PHOTOS: Final = 10
_UNUSED_SHOWN: Final = 100
_NAME_SHOWN: Final = 200  # characters
_AT_ONCE: Final = 2  # a decoded 24 MP photo takes 100 MB


@dataclass(frozen=True, slots=True)
class Judged:
    """All verdicts, and the photos that are used, as PNGs in a folder, without captions yet."""

    folder: Path
    verdicts: tuple[Verdict, ...]
    photos: tuple[PreparedPhoto, ...]


def judge_photos(
    fetched: Sequence[Fetched],
    folder: Path,
    limits: Limits,
    pictures: Pictures,
    check_cancelled: Check,
    on_share: OnShare,
) -> Judged:
    """Decode, measure and re-encode every photo, then compare them with one another.

    Two at a time, so that memory stays flat however many there are. The fetched files are removed.
    """
    counter = _Counter(len(fetched), on_share)
    for photo in fetched:
        _png(folder, photo.index, photo.repeats).parent.mkdir(exist_ok=True)

    def decode(path: Path) -> Picture:
        area = enough_pixels(limits.resolution)
        return pictures.decode(path, field="It", max_area=area, check_cancelled=check_cancelled)

    def measure(photo: Fetched) -> PhotoFacts | Reason:
        check_cancelled()
        try:
            return _measure(photo, _png(folder, photo.index, photo.repeats), limits, decode)
        finally:
            counter.one_more()

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="photos") as threads:
        found = list(threads.map(measure, fetched))
    verdicts = _verdicts(fetched, found, limits.resolution)
    given = {photo.index: photo for photo in fetched}
    photos = []
    for verdict in verdicts:
        photo = given[verdict.index]
        path = _png(folder, photo.index, photo.repeats)
        if verdict.usable and verdict.facts is not None:
            facts = verdict.facts
            size = (facts.width, facts.height)
            photos.append(PreparedPhoto(path, "", facts.sha256, *size, photo.repeats))
        else:
            path.unlink(missing_ok=True)
    return Judged(folder, tuple(verdicts), tuple(photos))


def require_enough(judged: Judged, field: str) -> None:
    """Refuse a dataset of fewer than five usable photos.

    Raises:
        DatasetRejected: with every verdict in its details.
    """
    if len(judged.photos) >= MIN_PHOTOS:
        return
    raise DatasetRejected(
        f"Only {len(judged.photos)} of {len(judged.verdicts)} photos are usable; "
        f"at least {MIN_PHOTOS} are needed.",
        field=field,
        details={"photos": [verdict.as_json() for verdict in judged.verdicts]},
    )


def write_captions(
    judged: Judged,
    given: Sequence[Fetched],
    captioner: Captioner,
    words: tuple[str, str],
    on_photo: OnShare,
) -> PreparedDataset:
    """Write a caption beside every photo: the user's where there is one, else the captioner's.

    Args:
        judged: photos in a folder of their own.
        given: what was fetched, for the users' captions.
        captioner: asked for the other photos.
        words: trigger and class noun, put in where the trigger is missing.
        on_photo: told the share that is done before each photo; what it raises ends the work.
    """
    own = {_png_name(photo.index): photo.caption for photo in given if photo.caption}
    captioned = []
    for number, photo in enumerate(judged.photos):
        on_photo(number / len(judged.photos))
        text = own.get(photo.path.name) or _described(photo.path, captioner)
        caption = with_trigger(" ".join(text.split()), *words)
        photo.path.with_suffix(".txt").write_text(caption, encoding="utf-8")
        captioned.append(replace(photo, caption=caption))
    return PreparedDataset(judged.folder, tuple(captioned), digest_of(captioned))


def digest_of(photos: Iterable[PreparedPhoto]) -> str:
    """SHA-256 over the photos' own, their captions and repeats, whatever their order."""
    lines = sorted(
        f"{photo.sha256} {photo.caption}\n" + f"x{photo.repeats}\n" * (photo.repeats > 1)
        for photo in photos
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def manifest(
    dataset: PreparedDataset, verdicts: Sequence[Verdict], captioner: str, unused: Sequence[Unused]
) -> DatasetResult:
    """The dataset as a document: verdicts, captions and what had no part in it, no picture."""
    prepared = {photo.path.name: photo for photo in dataset.photos}
    photos = []
    for verdict in verdicts:
        photo = prepared.get(_png_name(verdict.index))
        used = {"caption": photo.caption, "repeats": photo.repeats} if photo else {}
        photos.append(PhotoResult(**verdict.as_json(), **used))
    named = [UnusedFileResult(name=each.name[:_NAME_SHOWN], reason=each.reason) for each in unused]
    return DatasetResult(
        digest=dataset.digest,
        photos=photos,
        captioner=captioner,
        unused=named[:_UNUSED_SHOWN],
        unused_count=len(unused) or None,
    )


def restored(described: DatasetResult, folder: Path) -> PreparedDataset:
    """The dataset that a manifest describes, its files being in `folder`."""
    photos = tuple(
        PreparedPhoto(
            _png(folder, photo.index, photo.repeats or 1),
            photo.caption,
            photo.sha256 or "",
            photo.width or 0,
            photo.height or 0,
            photo.repeats or 1,
        )
        for photo in described.photos
        if photo.caption is not None
    )
    return PreparedDataset(folder, photos, described.digest or "")


def _measure(
    photo: Fetched, png: Path, limits: Limits, decode: Callable[[Path], Picture]
) -> PhotoFacts | Reason:
    """The facts of one photo, its PNG written; or why it is rejected."""
    if photo.path is None:
        return photo.problem or Reason("unreadable", "It could not be read.")
    try:
        picture = decode(photo.path)
        image, size = picture.image, (picture.width, picture.height)
        problem = size_problem(*size, limits.resolution)
        if problem is not None:
            return problem
        png.write_bytes(media.encode(image, "png"))
        return PhotoFacts(sha256_of(photo.path), *size, fingerprint(image), sharpness(image))
    except ImageRejected as error:
        return Reason("unreadable", _sentence(error))
    finally:
        photo.path.unlink()


def _verdicts(
    fetched: Sequence[Fetched], found: Sequence[PhotoFacts | Reason], resolution: int
) -> list[Verdict]:
    measured, verdicts = [], []
    for photo, result in zip(fetched, found, strict=True):
        if isinstance(result, Reason):
            verdicts.append(rejected(photo.index, photo.name, result.code, result.message))
        else:
            measured.append((photo.index, photo.name, result))
    verdicts += judge(measured, resolution)
    return sorted(verdicts, key=lambda verdict: verdict.index)


def _described(path: Path, captioner: Captioner) -> str:
    with Image.open(path) as image:
        return captioner.caption(image.convert("RGB"))


def _sentence(error: ImageRejected) -> str:
    text = str(error).removeprefix("It: ")
    return f"It {text}" if text.startswith("is ") else text[:1].upper() + text[1:]


def _png_name(index: int) -> str:
    return f"{index:03d}.png"


def _png(folder: Path, index: int, repeats: int) -> Path:
    """Where a photo is prepared: what is repeated lies in a folder of its own, as trainers want."""
    place = folder if repeats == 1 else folder / f"{repeats}_photos"
    return place / _png_name(index)


class _Counter:
    """Counts what threads finish."""

    def __init__(self, total: int, on_share: OnShare) -> None:
        self._total = total
        self._on_share = on_share
        self._done = 0
        self._lock = threading.Lock()

    def one_more(self) -> None:
        with self._lock:
            self._done += 1
            done = self._done
        self._on_share(done / self._total)
