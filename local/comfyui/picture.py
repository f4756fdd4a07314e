"""The pictures of the stand-in: a soft composition from the seed, and a card that says what it is.

A picture is a function of what was asked for, and of nothing else: the same request gives the same
bytes, another seed, prompt, LoRA or start picture visibly other ones.
"""

import colorsys
import hashlib
import textwrap
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

from local.comfyui.values import Latent, Request

NOTICE: Final = "stand-in: not a real picture"

_BLOBS: Final = 5
_NARROWEST_CARD: Final = (
    200  # below this many pixels a card is not legible: only the notice is drawn
)
_PROMPT_LINES: Final = 5


class Painter:
    """Paints what a latent stands for; `picture_bytes` makes it the benchmark's one cheap picture."""

    def __init__(self, picture_bytes: int | None = None) -> None:
        self._picture_bytes = picture_bytes
        self._noise: Image.Image | None = None

    def paint(self, latent: Latent) -> tuple[Image.Image, ...]:
        """One picture per latent of the batch."""
        if self._picture_bytes is not None:
            return (self._cheap(latent, self._picture_bytes),) * latent.count
        return tuple(_frame(latent, index) for index in range(latent.count))

    def _cheap(self, latent: Latent, size_bytes: int) -> Image.Image:
        size = (latent.width, latent.height)
        if self._noise is None or self._noise.size != size:
            self._noise = noise(*size, size_bytes)
        return self._noise


def noise(width: int, height: int, size_bytes: int) -> Image.Image:
    """A picture whose PNG has about `size_bytes`: so many bytes of noise, the rest flat."""
    pixels = np.full(width * height * 3, 96, dtype=np.uint8)
    loud = min(size_bytes, pixels.size)
    pixels[:loud] = np.random.default_rng(0).integers(0, 256, loud, dtype=np.uint8)
    return Image.fromarray(pixels.reshape(height, width, 3))


def _frame(latent: Latent, index: int) -> Image.Image:
    size = (latent.width, latent.height)
    origin = latent.origin[index % len(latent.origin)] if latent.origin else None
    if latent.request is None:
        return ImageOps.fit(origin, size) if origin is not None else Image.new("RGB", size)
    request = latent.request
    position = index / max(1, latent.count - 1)
    if latent.video and origin is not None:
        image = _moved(origin, size, position)
    else:
        image = _composition(request, size, 0 if latent.video else index, position)
        if origin is not None:
            kept = 1 - request.denoise
            image = Image.blend(image, ImageOps.fit(origin, size), kept)
    _draw_card(image, request, (index, latent.count))
    return image


def _moved(start: Image.Image, size: tuple[int, int], position: float) -> Image.Image:
    """The start picture under a slow zoom and pan: something moves, and the subject stays."""
    zoom = 1 + 0.12 * position
    large = ImageOps.fit(start, (round(size[0] * zoom), round(size[1] * zoom)))
    left = round((large.width - size[0]) * (0.5 + 0.5 * position))
    top = (large.height - size[1]) // 2
    return large.crop((left, top, left + size[0], top + size[1]))


def _composition(
    request: Request, size: tuple[int, int], index: int, position: float
) -> Image.Image:
    """A gradient with blurred shapes; colours and places come from all that was asked for."""
    chance = np.random.default_rng(_entropy(request, index))
    hue = chance.random()
    width, height = size
    small = (max(8, width // 4), max(8, height // 4))  # painted small, then enlarged: soft and fast
    top, bottom = _colour(hue, 0.45, 0.97), _colour(hue + 0.12, 0.6, 0.62)
    rows = np.linspace(0, 1, small[1])[:, None, None]
    pixels = np.array(top) * (1 - rows) + np.array(bottom) * rows
    image = Image.fromarray(np.broadcast_to(pixels, (small[1], small[0], 3)).astype(np.uint8))
    draw = ImageDraw.Draw(image, "RGBA")
    for _ in range(_BLOBS):
        radius = min(small) * (0.12 + 0.25 * chance.random())
        x = small[0] * (chance.random() + 0.08 * position)
        y = small[1] * chance.random()
        fill = (*_colour(hue + 0.5 * chance.random(), 0.5, 0.95), 150)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
    soft = image.filter(ImageFilter.GaussianBlur(min(small) / 40))
    return soft.resize(size, Image.Resampling.BICUBIC)


def _draw_card(image: Image.Image, request: Request, place: tuple[int, int]) -> None:
    """A translucent card at the bottom: notice, prompt, and the numbers."""
    width, height = image.size
    unit = min(width, height) / 36
    if min(width, height) < _NARROWEST_CARD:
        font = ImageFont.load_default(max(6, width // 9))
        text = "stand-in:\nnot a real\npicture" if height > width // 2 else NOTICE
        ImageDraw.Draw(image).multiline_text((2, 1), text, "white", font, spacing=1)
        return
    lines = _card_lines(request, image.size, place)
    spacing = unit * 0.45
    fonts = [(text, ImageFont.load_default(unit * scale), fill) for text, scale, fill in lines]
    tall = sum(font.size + spacing for _, font, _ in fonts) + 2 * unit
    edge = unit
    box = (edge, height - edge - tall, width - edge, height - edge)
    draw = ImageDraw.Draw(image, "RGBA")
    draw.rounded_rectangle(box, radius=unit, fill=(16, 18, 28, 176))
    y = box[1] + unit
    for text, font, fill in fonts:
        draw.text((edge + unit * 1.2, y), text, fill, font)
        y += font.size + spacing


def _card_lines(
    request: Request, size: tuple[int, int], place: tuple[int, int]
) -> list[tuple[str, float, str]]:
    columns = round(56 * size[0] / min(size))
    lines = [(NOTICE, 1.35, "#ffd479")]
    lines += [(text, 1.2, "#ffffff") for text in _wrapped(request.positive.text, columns)]
    if request.negative.text:
        lines += [(f"not: {_plain(request.negative.text)}"[: columns + 12], 0.95, "#b9c0d4")]
    for lora in request.model.loras:
        lines.append((f"LoRA {lora.name} x {lora.strength:g}"[: columns + 12], 0.95, "#9ee7c1"))
    numbers = (
        f"seed {request.seed}   {size[0]} x {size[1]}   {request.steps} steps   "
        f"cfg {request.cfg:g}   {request.sampler}"
    )
    lines.append((numbers, 0.95, "#b9c0d4"))
    if place[1] > 1 or request.denoise < 1:
        what = f"{place[0] + 1} of {place[1]}   denoise {request.denoise:g}   {request.model.name}"
        lines.append((what, 0.95, "#b9c0d4"))
    return lines


def _wrapped(text: str, columns: int) -> list[str]:
    lines = textwrap.wrap(_plain(text), columns, max_lines=_PROMPT_LINES, placeholder=" …")
    return lines or ["(no prompt)"]


def _plain(text: str) -> str:
    """One printable line, bounded."""
    return "".join(char if char.isprintable() else " " for char in text[:2000])


def _entropy(request: Request, index: int) -> list[int]:
    """Numbers that differ when anything that was asked for differs."""
    loras = [(lora.name, lora.strength) for lora in request.model.loras]
    asked = (request.positive.text, request.negative.text, loras, request.model.name, request.cfg)
    digest = hashlib.sha256(repr((asked, request.steps, request.sampler)).encode()).digest()
    return [request.seed, index, int.from_bytes(digest[:8], "big")]


def _colour(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)
