"""The pictures of a report: the loss as a curve, and the previews as a labelled sheet."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageDraw, ImageFont

_SIZE: Final = (960, 540)
_LEFT, _TOP, _RIGHT, _BOTTOM = 90, 60, 930, 480
_INK: Final = (40, 40, 46)
_GRID: Final = (226, 226, 232)
_LINE: Final = (38, 96, 190)
_TICKS: Final = 5
_MAX_POINTS: Final = 840  # one for each pixel column
_CELL: Final = 512
_GAP: Final = 16
_LABEL: Final = 64
_HEAD: Final = 72
_PAPER: Final = (250, 250, 248)
_FAINT: Final = (226, 226, 222)
_LINES: Final = 2


def draw_curve(
    losses: Mapping[int, float], title: str, label: str = "loss (running average)"
) -> Image.Image:
    """A line chart of loss over step, with a sentence in its place where there is no loss.

    Args:
        losses: the trainer's running average by step; values that are not finite are left out.
        title: stands above the chart.
        label: says what goes up the chart.
    """
    image = Image.new("RGB", _SIZE, "white")
    draw = ImageDraw.Draw(image)
    draw.text((_LEFT, 10), title, fill=_INK, font=_font(20))
    points = thinned(sorted((s, v) for s, v in losses.items() if math.isfinite(v)))
    if not points:
        sentence = "This trainer reports no loss."
        draw.text((_LEFT, 250), sentence, fill=_INK, font=_font(18))
        return image
    scale = _Scale(points)
    _draw_axes(draw, scale, label)
    line = [scale.place(step, loss) for step, loss in points]
    draw.line(line if len(line) > 1 else line * 2, fill=_LINE, width=3, joint="curve")
    return image


def thinned(
    points: Sequence[tuple[int, float]], most: int = _MAX_POINTS
) -> list[tuple[int, float]]:
    """At most `most` of the points, evenly picked, the last among them."""
    if len(points) <= most:
        return list(points)
    picked = {round(number * (len(points) - 1) / (most - 1)) for number in range(most)}
    return [points[index] for index in sorted(picked)]


class _Scale:
    """From step and loss to pixels."""

    def __init__(self, points: Sequence[tuple[int, float]]) -> None:
        losses = [loss for _, loss in points]
        margin = (max(losses) - min(losses)) * 0.08 or max(abs(losses[0]) * 0.1, 1e-3)
        self.low, self.high = min(losses) - margin, max(losses) + margin
        self.first, self.last = points[0][0], max(points[-1][0], points[0][0] + 1)

    def place(self, step: float, loss: float) -> tuple[float, float]:
        x = _LEFT + (step - self.first) / (self.last - self.first) * (_RIGHT - _LEFT)
        y = _BOTTOM - (loss - self.low) / (self.high - self.low) * (_BOTTOM - _TOP)
        return x, y


def _draw_axes(draw: ImageDraw.ImageDraw, scale: _Scale, label: str) -> None:
    font = _font(14)
    for tick in range(_TICKS + 1):
        step = scale.first + (scale.last - scale.first) * tick / _TICKS
        loss = scale.low + (scale.high - scale.low) * tick / _TICKS
        x, y = scale.place(step, loss)
        draw.line([(_LEFT, y), (_RIGHT, y)], fill=_GRID)
        draw.text((_LEFT - 10, y), f"{loss:.3g}", fill=_INK, font=font, anchor="rm")
        draw.text((x, _BOTTOM + 10), f"{step:.0f}", fill=_INK, font=font, anchor="mt")
    draw.line([(_LEFT, _TOP), (_LEFT, _BOTTOM), (_RIGHT, _BOTTOM)], fill=_INK, width=2)
    draw.text((_LEFT, _TOP - 8), label, fill=_INK, font=font, anchor="ls")
    draw.text((_RIGHT, _BOTTOM + 36), "step", fill=_INK, font=font, anchor="rm")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


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


def draw_checkpoints(
    reference: Image.Image | None,
    without: Sequence[tuple[str, Image.Image]],
    checkpoints: Sequence[tuple[str, Sequence[Image.Image]]],
    title: str,
) -> Image.Image:
    """A row for each prompt: a photo to compare with, without the LoRA, and each checkpoint.

    Args:
        reference: a photo of the subject.
        without: each prompt with its picture of the base model.
        checkpoints: each with its heading and a picture for every prompt.
        title: stands above.
    """
    cell = _CELL // 2
    columns: list[tuple[str, Sequence[Image.Image | None]]] = [
        ("photo", [reference] * len(without)),
        ("without", [picture for _, picture in without]),
        *checkpoints,
    ]
    width = len(columns) * (cell + _GAP) + _GAP
    sheet = Image.new("RGB", (width, _HEAD + len(without) * (cell + _LABEL)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, 12), title, fill=_INK, font=_font(22))
    for number, (heading, pictures) in enumerate(columns):
        left = _GAP + number * (cell + _GAP)
        draw.text((left, 46), heading, fill=_INK, font=_font(16))
        for row, picture in enumerate(pictures):
            _place(sheet, draw, picture, (left, _HEAD + row * (cell + _LABEL)), cell)
    for row, (prompt, _) in enumerate(without):
        lines = wrapped(prompt, _font(16).getlength, width - 2 * _GAP)
        draw.text(
            (_GAP, _HEAD + row * (cell + _LABEL) + cell + 6), lines[0], fill=_INK, font=_font(16)
        )
    return sheet


def _place(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    picture: Image.Image | None,
    corner: tuple[int, int],
    cell: int = _CELL,
) -> None:
    left, top = corner
    draw.rectangle((left, top, left + cell - 1, top + cell - 1), fill=_FAINT)
    if picture is None:
        centre = (left + cell / 2, top + cell / 2)
        font = ImageFont.load_default(18)
        draw.text(centre, "no picture", fill=_INK, font=font, anchor="mm")
        return
    shown = picture.convert("RGB")
    shown.thumbnail((cell, cell), Image.Resampling.LANCZOS)
    sheet.paste(shown, (left + (cell - shown.width) // 2, top + (cell - shown.height) // 2))


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
