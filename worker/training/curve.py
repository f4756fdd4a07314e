"""The loss of a training as a picture."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

from PIL import Image, ImageDraw, ImageFont

_SIZE: Final = (960, 540)
_LEFT, _TOP, _RIGHT, _BOTTOM = 90, 60, 930, 480
_INK: Final = (40, 40, 46)
_GRID: Final = (226, 226, 232)
_LINE: Final = (38, 96, 190)
_TICKS: Final = 5
_MAX_POINTS: Final = 840  # one for each pixel column


def draw_curve(losses: Mapping[int, float], title: str) -> Image.Image:
    """A line chart of loss over step, with a sentence in its place where there is no loss.

    Args:
        losses: the trainer's running average by step; values that are not finite are left out.
        title: stands above the chart.
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
    _draw_axes(draw, scale)
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


def _draw_axes(draw: ImageDraw.ImageDraw, scale: _Scale) -> None:
    font = _font(14)
    for tick in range(_TICKS + 1):
        step = scale.first + (scale.last - scale.first) * tick / _TICKS
        loss = scale.low + (scale.high - scale.low) * tick / _TICKS
        x, y = scale.place(step, loss)
        draw.line([(_LEFT, y), (_RIGHT, y)], fill=_GRID)
        draw.text((_LEFT - 10, y), f"{loss:.3g}", fill=_INK, font=font, anchor="rm")
        draw.text((x, _BOTTOM + 10), f"{step:.0f}", fill=_INK, font=font, anchor="mt")
    draw.line([(_LEFT, _TOP), (_LEFT, _BOTTOM), (_RIGHT, _BOTTOM)], fill=_INK, width=2)
    draw.text((_LEFT, _TOP - 8), "loss (running average)", fill=_INK, font=font, anchor="ls")
    draw.text((_RIGHT, _BOTTOM + 36), "step", fill=_INK, font=font, anchor="rm")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
