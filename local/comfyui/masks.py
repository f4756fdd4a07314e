"""Masks, as LoadImage makes them of transparency."""

from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageChops

from local.comfyui.values import Frames

_NO_MASK: Final = (64, 64)  # what LoadImage gives for a picture without transparency


@dataclass(frozen=True)
class Masks:
    """A batch of masks, ComfyUI's MASK: white where it holds."""

    frames: Frames


def alpha_mask(image: Image.Image) -> Image.Image:
    """What LoadImage gives as the mask: white where the picture is transparent."""
    if not image.has_transparency_data:
        return Image.new("L", _NO_MASK)
    return ImageChops.invert(image.convert("RGBA").getchannel("A"))
