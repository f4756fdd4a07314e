"""Which file of an archive is a photo, which one its caption, as the trainers lay them out. Pure.

Understood: `.txt` and `.caption` beside a photo (`a.txt`, `a.jpg.txt`, any case) or in `captions/`
beside its folder; `metadata.jsonl` and `metadata.csv` as the hub's datasets have them; folders
named `10_trigger noun` as kohya's scripts want them. What fits nowhere is named, not dropped.
"""

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from worker.contract_fields import MAX_CAPTION

CAPTION_SUFFIXES: Final = frozenset({".txt", ".caption"})
PICTURE_SUFFIXES: Final = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".heic", ".heif", ".hif"}
    | {".avif", ".tif", ".tiff", ".bmp", ".gif"}
)
METADATA_NAMES: Final = frozenset({"metadata.jsonl", "metadata.csv"})
_CLUTTER: Final = frozenset(
    {"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"}
    | {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__pycache__"}
)
_CAPTION_COLUMNS: Final = ("text", "caption", "prompt", "description")
_KOHYA_FOLDER: Final = re.compile(r"(\d{1,3})_(\S.*)")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_NULS_OF_UTF16: Final = 0.25  # of all bytes, where the text is Latin


@dataclass(frozen=True, slots=True)
class Unused:
    """A file of the user's that has no part in the training, or not all of it, and why."""

    name: str
    reason: str


def is_clutter(name: str) -> bool:
    """Whether a file is in no way the user's: hidden, or what systems and tools leave behind."""
    parts = [part.lower() for part in name.split("/")]
    return not name or any(part.startswith(".") or part in _CLUTTER for part in parts)


def suffix(name: str) -> str:
    """The lower-case suffix with its dot."""
    return PurePosixPath(name).suffix.lower()


def caption_files(photos: Sequence[str], texts: Sequence[str]) -> dict[str, str]:
    """Which text file belongs to which photo; the same case wins over another."""
    exact = {_stem(name): name for name in reversed(texts)}
    folded = {_stem(name).lower(): name for name in reversed(texts)}
    found = {}
    for photo in photos:
        places = _caption_places(photo)
        names = [exact.get(place) or folded.get(place.lower()) for place in places]
        name = next((name for name in names if name), None)
        if name is not None:
            found[photo] = name
    return found


def metadata_captions(
    name: str, raw: bytes, photos: Sequence[str]
) -> tuple[dict[str, str], list[Unused]]:
    """The captions that a metadata file gives by `file_name`, relative to its own folder."""
    known = {photo.lower(): photo for photo in photos}
    captions: dict[str, str] = {}
    unused: list[Unused] = []
    rows, problem = _rows(name, raw)
    missing = 0
    for row in rows:
        caption = _caption_of(row)
        file_name = str(row.get("file_name") or "").replace("\\", "/").removeprefix("./")
        photo = known.get(str(PurePosixPath(name).parent / file_name).lower())
        if photo is not None and caption:
            captions[photo] = caption
        elif photo is None and caption:
            missing += 1
    if problem:
        unused.append(Unused(name, problem))
    if missing:
        unused.append(Unused(name, f"{missing} of its captions name no photo of the archive"))
    if not (captions or unused):
        unused.append(Unused(name, "it gives no caption; file_name and text are looked for"))
    return captions, unused


def kohya_folder(photo: str) -> tuple[int, str] | None:
    """Repeats and words of the nearest folder named as kohya's (`10_ohwx woman`), if there is one.

    Three digits at most, so that a year is none.
    """
    for part in reversed(PurePosixPath(photo).parts[:-1]):
        match = _KOHYA_FOLDER.fullmatch(part)
        if match and int(match[1]) > 0:
            return int(match[1]), " ".join(match[2].replace("_", " ").split())
    return None


def relative_repeats(repeats: Iterable[int]) -> list[int]:
    """Repeats in their smallest numbers: the steps are fixed, so only their ratio counts."""
    given = list(repeats)
    divisor = math.gcd(*given) or 1
    return [number // divisor for number in given]


def caption_text(raw: bytes) -> tuple[str, str | None]:
    """The caption in a text file, on one line and without control characters; and what was lost.

    UTF-8 and UTF-16 with and without a mark, else Windows' own of the western world.
    """
    text, problem = _decoded(raw)
    folded = one_line(text)
    if len(folded) > MAX_CAPTION:
        problem = f"only its first {MAX_CAPTION:,} characters are used"
    return folded[:MAX_CAPTION], problem


def one_line(text: str) -> str:
    """The text without control characters and with single spaces."""
    return " ".join(_CONTROL.sub(" ", text).split())


def _decoded(raw: bytes) -> tuple[str, str | None]:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = raw.decode("utf-16", errors="replace")
    elif raw.count(0) > _NULS_OF_UTF16 * len(raw):
        little = raw[1::2].count(0) >= raw[::2].count(0)
        text = raw.decode("utf-16-le" if little else "utf-16-be", errors="replace")
    else:
        try:
            return raw.decode("utf-8-sig"), None
        except UnicodeDecodeError:
            # Some of it can only be UTF-8: then a byte is damaged, and the rest is worth keeping.
            utf8 = not raw.decode("utf-8", errors="ignore").isascii()
            text = raw.decode("utf-8-sig" if utf8 else "cp1252", errors="replace")
    lost = "some of its characters could not be read; save it as UTF-8"
    return text, lost if "\ufffd" in text else None


def _rows(name: str, raw: bytes) -> tuple[list[Mapping[str, Any]], str | None]:
    """The rows of a metadata file as far as they can be read, and why no further."""
    text, problem = _decoded(raw)
    rows: list[Mapping[str, Any]] = []
    try:
        if suffix(name) == ".csv":
            rows.extend(csv.DictReader(io.StringIO(text, newline="")))
            return rows, problem
        for line in text.splitlines():
            row = json.loads(line) if line.strip() else None
            if isinstance(row, dict):
                rows.append(row)
    except (ValueError, RecursionError, csv.Error):
        return rows, f"it could not be read beyond row {len(rows)}"
    return rows, problem


def _caption_of(row: Mapping[str, Any]) -> str:
    values = (row.get(column) for column in _CAPTION_COLUMNS)
    found = next((value for value in values if isinstance(value, str) and value.strip()), "")
    return one_line(found)[:MAX_CAPTION]


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _caption_places(photo: str) -> tuple[str, ...]:
    """Where a photo's caption may be, without its suffix, best first."""
    path = PurePosixPath(photo)
    sibling = path.parent.parent / "captions" / path.name
    return _stem(photo), photo, _stem(str(sibling)), str(sibling)
