"""The pictures of the stand-in: soft noise from the request, and a notice that says what it is.

A picture is a function of what was asked for, and of nothing else: the same request gives the same
bytes, another seed, prompt, LoRA or start picture visibly other ones.

`--stand-in-shown FILE` has given pictures shown in the place of the noise, which is how a choice by
likeness is tried without a GPU. The file is a JSON list, read anew for each picture; the first rule
that fits counts, and the notice is written all the same:

    [{"loras": ["part of a file's name"], "seeds": [1, 2], "picture": "/path.jpg"}]

`loras` names every LoRA of the request, `seeds` may be left out.
"""

import hashlib
import json
import textwrap
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from local.comfyui.values import Latent, Request

NOTICE: Final = "stand-in: not a real picture"
_BLOTCHES: Final = 8  # of noise, across and down
_SHOWN: Final = 300  # characters of the prompt


class Painter:
    """Paints what a latent stands for.

    Args:
        picture_bytes: paint the benchmark's one cheap picture of that size instead.
        shown: a file of rules, see above.
    """

    def __init__(self, picture_bytes: int | None = None, shown: Path | None = None) -> None:
        self._picture_bytes = picture_bytes
        self._shown = shown
        self._noise: Image.Image | None = None

    def paint(self, latent: Latent) -> tuple[Image.Image, ...]:
        """One picture per latent of the batch."""
        given = self._given(latent.request) if self._shown and latent.request else None
        if given is not None and latent.request is not None:
            picture = ImageOps.fit(given, (latent.width, latent.height), centering=(0.5, 0.3))
            return (_labelled(picture, latent.request, at_top=False),) * latent.count
        if self._picture_bytes is None:
            return tuple(_frame(latent, index) for index in range(latent.count))
        size = (latent.width, latent.height)
        if self._noise is None or self._noise.size != size:
            self._noise = noise(*size, self._picture_bytes)
        return (self._noise,) * latent.count

    def _given(self, request: Request) -> Image.Image | None:
        """The picture that a rule has for a request."""
        rules = json.loads(self._shown.read_text()) if self._shown else []
        names = [lora.name for lora in request.model.loras]
        for rule in rules:
            parts = rule["loras"]
            fits = len(parts) == len(names) and all(
                any(part in name for name in names) for part in parts
            )
            if fits and request.seed in rule.get("seeds", [request.seed]):
                with Image.open(rule["picture"]) as image:
                    return image.convert("RGB")
        return None


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
        return Image.new("RGB", size) if origin is None else ImageOps.fit(origin, size)
    if latent.video and origin is not None:
        # Something moves, and the subject stays: the start picture, a little nearer each frame.
        zoom = 1 + 0.12 * index / max(1, latent.count - 1)
        image = ImageOps.fit(origin, (round(size[0] * zoom), round(size[1] * zoom))).crop(
            (0, 0, *size)
        )
        # A plain picture looks the same at any zoom, and an animated webp merges equal frames.
        done = size[0] * (index + 1) / latent.count
        ImageDraw.Draw(image).rectangle((0, size[1] - 3, done, size[1]), "white")
    else:
        chance = np.random.default_rng(_entropy(latent.request, index))
        blotches = chance.integers(48, 208, (_BLOTCHES, _BLOTCHES, 3), dtype=np.uint8)
        image = Image.fromarray(blotches).resize(size, Image.Resampling.BICUBIC)
        if origin is not None:
            image = Image.blend(image, ImageOps.fit(origin, size), 1 - latent.request.denoise)
    # A start picture may have a notice of its own at the bottom.
    return _labelled(image, latent.request, at_top=origin is not None)


def _labelled(image: Image.Image, request: Request, *, at_top: bool) -> Image.Image:
    """Write the notice, the prompt and the numbers, as much of it as there is room for."""
    loras = "".join(f", LoRA {lora.name[:12]} at {lora.strength:g}" for lora in request.model.loras)
    prompt = "".join(char if char.isprintable() else " " for char in request.positive.text[:_SHOWN])
    asked = f"seed {request.seed}, {request.steps} steps, cfg {request.cfg:g}, {request.sampler}"
    size = max(6, min(image.size) // 24)
    columns = max(8, 2 * image.width // size - 2)
    lines = [
        line for text in (NOTICE, prompt, asked + loras) for line in textwrap.wrap(text, columns)
    ]
    font, draw = ImageFont.load_default(size), ImageDraw.Draw(image)
    top = 2 if at_top else max(2, image.height - round(len(lines) * size * 1.5))
    draw.multiline_text(
        (size // 2, top),
        "\n".join(lines),
        "white",
        font,
        spacing=size // 4,
        stroke_width=max(1, size // 10),
        stroke_fill="black",
    )
    return image


def _entropy(request: Request, index: int) -> list[int]:
    """Numbers that differ when anything that was asked for differs."""
    loras = [(lora.name, lora.strength) for lora in request.model.loras]
    asked = (request.positive.text, request.negative.text, loras, request.model.name, request.cfg)
    digest = hashlib.sha256(repr((asked, request.steps, request.sampler)).encode()).digest()
    return [request.seed, index, int.from_bytes(digest[:8], "big")]
