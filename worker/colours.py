"""Colours brought to sRGB: by the profile in a picture, or by what its EXIF says."""

import io
from typing import Final

from PIL import Image, ImageCms

_EXIF_FOLDER: Final = 0x8769
_INTEROP_FOLDER: Final = 0xA005
_INTEROP_INDEX: Final = 0x0001
_COLOUR_SPACE: Final = 0xA001
_ADOBE_RGB_SPACE: Final = 2  # unofficial, but written by some cameras
_UNCALIBRATED: Final = 0xFFFF
_LINEAR_BELOW: Final = 0.0031308  # sRGB's straight piece
_ADOBE_GAMMA: Final = 563 / 256  # Adobe RGB (1998) encoding, 4.3.4.2
# Linear Adobe RGB to linear sRGB; both are D65, so green stays and only red and blue mix.
_ADOBE_TO_SRGB: Final = (
    (1.39836, -0.39836, 0.0),
    (0.0, 1.0, 0.0),
    (0.0, -0.04293, 1.04293),
)


def to_srgb(image: Image.Image, profile: bytes | None, exif: Image.Exif) -> Image.Image:
    """The picture as RGB in sRGB; without a profile that fits, the numbers as they are.

    Args:
        image: L, RGB or CMYK.
        profile: the ICC profile in its file.
        exif: asked where there is no profile: cameras say Adobe RGB there alone.
    """
    if profile:
        try:
            given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            srgb = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, given, srgb, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            converted = None  # damaged, or of another colour space
        if converted is not None:
            return converted
    plain = image.convert("RGB")
    return _of_adobe_rgb(plain) if image.mode == "RGB" and _says_adobe_rgb(exif) else plain


def _says_adobe_rgb(exif: Image.Exif) -> bool:
    try:
        space = exif.get_ifd(_EXIF_FOLDER).get(_COLOUR_SPACE)
        index = str(exif.get_ifd(_INTEROP_FOLDER).get(_INTEROP_INDEX, ""))
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError):
        return False  # damaged EXIF says nothing
    return space == _ADOBE_RGB_SPACE or (space == _UNCALIBRATED and index.startswith("R03"))


def _of_adobe_rgb(image: Image.Image) -> Image.Image:
    import numpy as np  # noqa: PLC0415 - 0.1 s in a process that few pictures ask it of

    linear = (np.asarray(image, dtype=np.float32) / 255) ** _ADOBE_GAMMA
    mixed = np.clip(linear @ np.array(_ADOBE_TO_SRGB, dtype=np.float32).T, 0, 1)
    shown = np.where(mixed <= _LINEAR_BELOW, mixed * 12.92, 1.055 * mixed ** (1 / 2.4) - 0.055)
    return Image.fromarray(np.rint(shown * 255).astype(np.uint8), "RGB")
