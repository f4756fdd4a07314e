"""Preview pictures with and without the LoRA side by side, labelled."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageDraw, ImageFont

_CELL: Final = 512
_GAP: Final = 16
_LABEL: Final = 64
_HEAD: Final = 72
_PAPER: Final = (250, 250, 248)
_INK: Final = (40, 40, 46)
_FAINT: Final = (226, 226, 222)
_LINES: Final = 2


@dataclass(frozen=True, slots=True)
class PreviewRow:
    """One prompt at one seed; a picture that failed is None and shown as such."""

    prompt: str
    seed: int
    without: Image.Image | None
    with_lora: Image.Image | None


def draw_sheet(rows: Sequence[PreviewRow], title: str) -> Image.Image:
    """One picture: a row for each prompt, without the LoRA on the left and with it on the right."""
    width = 2 * _CELL + 3 * _GAP
    height = _HEAD + len(rows) * (_CELL + _LABEL + _GAP)
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, 12), title, fill=_INK, font=ImageFont.load_default(22))
    columns = (_GAP, 2 * _GAP + _CELL)
    for left, name in zip(columns, ("without", "with the character"), strict=True):
        draw.text((left, 46), name, fill=_INK, font=ImageFont.load_default(16))
    for number, row in enumerate(rows):
        top = _HEAD + number * (_CELL + _LABEL + _GAP)
        for left, picture in zip(columns, (row.without, row.with_lora), strict=True):
            _place(sheet, draw, picture, (left, top))
        _label(draw, row, (_GAP, top + _CELL + 6), width - 2 * _GAP)
    return sheet


def _place(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    picture: Image.Image | None,
    corner: tuple[int, int],
) -> None:
    left, top = corner
    draw.rectangle((left, top, left + _CELL - 1, top + _CELL - 1), fill=_FAINT)
    if picture is None:
        centre = (left + _CELL / 2, top + _CELL / 2)
        font = ImageFont.load_default(18)
        draw.text(centre, "no picture", fill=_INK, font=font, anchor="mm")
        return
    shown = picture.convert("RGB")
    shown.thumbnail((_CELL, _CELL), Image.Resampling.LANCZOS)
    sheet.paste(shown, (left + (_CELL - shown.width) // 2, top + (_CELL - shown.height) // 2))


def _label(draw: ImageDraw.ImageDraw, row: PreviewRow, corner: tuple[int, int], width: int) -> None:
    font = ImageFont.load_default(16)
    lines = wrapped(f"{row.prompt}  (seed {row.seed})", font.getlength, width)
    for number, line in enumerate(lines[:_LINES]):
        draw.text((corner[0], corner[1] + number * 24), line, fill=_INK, font=font)


def wrapped(text: str, measure: Callable[[str], float], width: float) -> list[str]:
    """The text in lines that fit; a word wider than a line is cut."""
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}" if line else word
        if measure(longer) <= width:
            line = longer
            continue
        if line:
            lines.append(line)
        line = word
        while measure(line) > width and len(line) > 1:
            line = line[:-1]
    return [*lines, line] if line else lines
