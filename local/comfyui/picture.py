"""The pictures of the stand-in: a landscape from the seed, and a card that says what it is.

A picture is a function of what was asked for, and of nothing else: the same request gives the same
bytes, another seed, prompt, LoRA or start picture visibly other ones.
"""

import hashlib
import textwrap
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from local.comfyui.landscape import landscape
from local.comfyui.values import Latent, Request

NOTICE: Final = "stand-in: not a real picture"

_SMALLEST_WITH_CARD: Final = 200  # below this many pixels only the notice would be legible
_PROMPT_LINES: Final = 5
_LONGEST_NAME: Final = 24


class Painter:
    """Paints what a latent stands for; with `picture_bytes`, the benchmark's one cheap picture."""

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
    position = index / max(1, latent.count - 1) if latent.video else 0.0
    if latent.video and origin is not None:
        image = _moved(origin, size, position)
    else:
        image = landscape(_entropy(request, 0 if latent.video else index), size, position)
        if origin is not None:
            image = Image.blend(image, ImageOps.fit(origin, size), 1 - request.denoise)
    # A start picture may have a card of its own at the bottom.
    _draw_card(image, request, (index, latent.count), at_top=origin is not None)
    return image


def _moved(start: Image.Image, size: tuple[int, int], position: float) -> Image.Image:
    """The start picture under a slow zoom and pan: something moves, and the subject stays."""
    zoom = 1 + 0.12 * position
    large = ImageOps.fit(start, (round(size[0] * zoom), round(size[1] * zoom)))
    left = round((large.width - size[0]) * (0.5 + 0.5 * position))
    top = (large.height - size[1]) // 2
    return large.crop((left, top, left + size[0], top + size[1]))


def _draw_card(
    image: Image.Image, request: Request, place: tuple[int, int], *, at_top: bool
) -> None:
    """A translucent card: notice, prompt, and the numbers."""
    width, height = image.size
    if min(width, height) < _SMALLEST_WITH_CARD:
        text = "\n".join(textwrap.wrap(NOTICE, 12))
        font = ImageFont.load_default(max(6, width // 8))
        ImageDraw.Draw(image).multiline_text((2, 1), text, "white", font, spacing=1)
        return
    unit = min(width, height) / 40
    lines = _card_lines(request, image.size, place)
    tall = sum(scale * unit * 1.4 for _, scale, _ in lines) + 1.6 * unit
    top = unit if at_top else height - unit - tall
    box = tuple(round(edge) for edge in (unit, top, width - unit, top + tall))
    draw = ImageDraw.Draw(image, "RGBA")
    draw.rounded_rectangle(box, radius=round(unit), fill=(16, 18, 28, 168))
    y = top + 0.7 * unit
    for text, scale, colour in lines:
        draw.text((2.2 * unit, y), text, colour, ImageFont.load_default(scale * unit))
        y += scale * unit * 1.4


def _short(name: str) -> str:
    """A file's name for people: a checksum by its first digits."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME // 2]}…"


def _card_lines(
    request: Request, size: tuple[int, int], place: tuple[int, int]
) -> list[tuple[str, float, str]]:
    """Text, size in units and colour of each line."""
    small = round(76 * size[0] / min(size))
    numbers = (
        f"seed {request.seed} · {size[0]} x {size[1]} · {request.steps} steps · "
        f"cfg {request.cfg:g} · {request.sampler}"
    )
    details = [
        f"LoRA {_short(lora.name)} · strength {lora.strength:g}" for lora in request.model.loras
    ]
    if request.negative.text:
        details.insert(0, f"without: {_plain(request.negative.text)}")
    details.append(numbers)
    if place[1] > 1 or request.denoise < 1:
        details.append(f"{place[0] + 1} of {place[1]} · denoise {request.denoise:g}")
    lines = [(NOTICE, 1.5, "#ffd479")]
    lines += [(text, 1.3, "#ffffff") for text in _wrapped(request.positive.text, small * 3 // 4)]
    return lines + [(textwrap.shorten(text, small), 1.0, "#c3cada") for text in details]


def _wrapped(text: str, columns: int) -> list[str]:
    lines = textwrap.wrap(_plain(text), columns, max_lines=_PROMPT_LINES, placeholder=" …")
    return lines or ["no prompt"]


def _plain(text: str) -> str:
    """One printable line, bounded."""
    return "".join(char if char.isprintable() else " " for char in text[:2000])


def _entropy(request: Request, index: int) -> list[int]:
    """Numbers that differ when anything that was asked for differs."""
    loras = [(lora.name, lora.strength) for lora in request.model.loras]
    asked = (request.positive.text, request.negative.text, loras, request.model.name, request.cfg)
    digest = hashlib.sha256(repr((asked, request.steps, request.sampler)).encode()).digest()
    return [request.seed, index, int.from_bytes(digest[:8], "big")]
