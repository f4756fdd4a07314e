"""Pictures from strangers, made harmless: bounded decode, upright, sRGB, and encoded anew."""

import contextlib
import io
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from worker.errors import ImageRejected

ImageFormat = Literal["png", "jpeg", "webp"]
Alpha = Literal["white", "keep"]

MAX_PIXELS: Final = 40_000_000
_READ_FORMATS: Final = ("JPEG", "PNG", "WEBP")
_QUALITY: Final[Mapping[ImageFormat, int]] = {"png": 0, "jpeg": 92, "webp": 90}
_FULL_CHROMA_QUALITY: Final = 90
_ORIENTATION: Final = 0x0112  # EXIF
_SIDEWAYS: Final = frozenset({5, 6, 7, 8})
# What Pillow's decoders raise for bytes that are broken; a bomb is one of the first two.
_BROKEN: Final = (
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    MemoryError,
    struct.error,
    zlib.error,
)


def decode(
    body: bytes | Path,
    *,
    field: str,
    max_pixels: int = MAX_PIXELS,
    max_side: int | None = None,
    alpha: Alpha = "white",
) -> Image.Image:
    """The first frame of a JPEG, PNG or WebP: EXIF rotation applied, in sRGB, without metadata.

    Memory stays near 8 bytes per pixel; with `max_side` a JPEG is scaled while it is decoded,
    which takes a small part of that.

    Args:
        body: the file's bytes, or the file.
        field: the job's field, for the errors.
        max_pixels: judged by the header, before a pixel is decoded.
        max_side: scale down to this longest side, never up.
        alpha: flatten transparency on white (RGB), or keep it (RGBA where there is any).

    Raises:
        ImageRejected: not one of these formats, too large, truncated or broken.
    """
    source: io.BytesIO | Path = io.BytesIO(body) if isinstance(body, bytes) else body
    try:
        with Image.open(source, formats=_READ_FORMATS) as image:
            _check_size(image.size, field, max_pixels)
            if max_side is not None:
                image.thumbnail((max_side, max_side), reducing_gap=1.0)
            image.load()
            _turn_upright(image)
            return _harmless(image, image.info.get("icc_profile"), alpha)
    except UnidentifiedImageError:
        raise ImageRejected(f"{field}: is not a JPEG, PNG or WebP picture.", field=field) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(field, max_pixels) from None
    except _BROKEN as error:
        raise ImageRejected(
            f"{field}: the picture is truncated or damaged.", field=field
        ) from error


def size_of(path: Path, *, field: str) -> tuple[int, int]:
    """Width and height as a viewer shows them, from the header alone.

    Raises:
        ImageRejected: not a JPEG, PNG or WebP picture.
    """
    try:
        with Image.open(path, formats=_READ_FORMATS) as image:
            width, height = image.size
            sideways = False
            with contextlib.suppress(*_BROKEN):  # damaged EXIF turns no picture
                sideways = image.getexif().get(_ORIENTATION, 1) in _SIDEWAYS
    except _BROKEN as error:
        raise ImageRejected(f"{field}: is not a JPEG, PNG or WebP picture.", field=field) from error
    return (height, width) if sideways else (width, height)


def encode(image: Image.Image, image_format: ImageFormat, quality: int | None = None) -> bytes:
    """A file of the picture, without any metadata.

    Args:
        image: RGB, RGBA, L or P; transparency is flattened on white for JPEG.
        image_format: png is lossless and packed fast rather than small.
        quality: 1 to 100 for jpeg (92) and webp (90).
    """
    wanted = _QUALITY[image_format] if quality is None else quality
    options: Mapping[ImageFormat, Mapping[str, Any]] = {
        "png": {"compress_level": 1},
        # No loss of colour detail where quality is asked for.
        "jpeg": {"quality": wanted, "subsampling": 0 if wanted >= _FULL_CHROMA_QUALITY else 2},
        "webp": {"quality": wanted, "method": 2},
    }
    plain = _flat(image) if image_format == "jpeg" else _plain(image)
    body = io.BytesIO()
    # Pillow would carry these two over from where the picture came from.
    plain.save(body, image_format, icc_profile=None, exif=b"", **options[image_format])
    return body.getvalue()


def _check_size(size: tuple[int, int], field: str, max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        raise _too_large(field, max_pixels)


def _too_large(field: str, max_pixels: int) -> ImageRejected:
    return ImageRejected(
        f"{field}: the picture has more than {max_pixels} pixels; scale it down.",
        field=field,
        details={"max_pixels": max_pixels},
    )


def _turn_upright(image: Image.Image) -> None:
    with contextlib.suppress(*_BROKEN):  # damaged EXIF turns no picture
        ImageOps.exif_transpose(image, in_place=True)


def _harmless(image: Image.Image, profile: bytes | None, alpha: Alpha) -> Image.Image:
    plain = _plain(image)
    if plain.mode == "RGBA":
        mask = plain.getchannel("A")
        colours = _to_srgb(plain.convert("RGB"), profile)
        if alpha == "keep":
            colours.putalpha(mask)
        else:
            colours = _on_white(colours, mask)
    else:
        colours = _to_srgb(plain, profile)
    colours.info = {}
    return colours


def _plain(image: Image.Image) -> Image.Image:
    """One of L, RGB, RGBA and CMYK, 8 bits each."""
    if image.mode.startswith("I"):  # 16-bit grey; a mere conversion would clip it to white
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image if image.mode in {"L", "RGB", "CMYK"} else image.convert("RGB")


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if profile:
        try:
            given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            srgb = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, given, srgb, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            converted = None  # damaged, or of another colour space: the numbers as they are
        if converted is not None:
            return converted
    return image.convert("RGB")


def _flat(image: Image.Image) -> Image.Image:
    plain = _plain(image)
    if plain.mode != "RGBA":
        return plain.convert("RGB")
    return _on_white(plain.convert("RGB"), plain.getchannel("A"))


def _on_white(colours: Image.Image, mask: Image.Image) -> Image.Image:
    flat = Image.new("RGB", colours.size, "white")
    flat.paste(colours, mask=mask)
    return flat
