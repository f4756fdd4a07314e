"""Pictures from strangers, made harmless: bounded decode, upright, sRGB, and encoded anew.

Formats are what phones, cameras and the web make. This decodes in the process that it runs in;
what strangers send goes through `worker.pictures`, where time and memory have an end.
"""

import contextlib
import functools
import io
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import pillow_heif
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from worker import jpeg
from worker.colours import to_srgb
from worker.errors import ImageRejected
from worker.nature import nature_of

ImageFormat = Literal["png", "jpeg", "webp"]
Alpha = Literal["white", "keep"]

MAX_PIXELS: Final = 50_000_000  # 48 MP of a phone, as HEIC, take 370 MB to decode (measured)
READ_FORMATS: Final = ("JPEG", "PNG", "WEBP", "HEIF", "AVIF", "TIFF", "BMP", "GIF")
FORMAT_NAMES: Final = "JPEG, PNG, WebP, HEIC, AVIF, TIFF, BMP or GIF"
# A JPEG is scaled while it is decoded, so only its bytes cost; a progressive one is kept whole as
# coefficients first, of 3 bytes a pixel or more.
_JPEG_FACTOR: Final = 5.0
_PROGRESSIVE_FACTOR: Final = 2.5
_QUALITY: Final[Mapping[ImageFormat, int]] = {"png": 0, "jpeg": 92, "webp": 90}
_FULL_CHROMA_QUALITY: Final = 90
_ORIENTATION: Final = 0x0112  # EXIF
_SIDEWAYS: Final = frozenset({5, 6, 7, 8})
_HEAD_BYTES: Final = 512
_MISSING_SHARE: Final = 0.03  # of a picture's rows that viewers show grey and nobody sees
_MCU_ROWS: Final = 32  # a JPEG's smallest unit has 16 rows, and the decoder reads one ahead
# What Pillow's decoders raise for bytes that are broken.
_BROKEN: Final = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    RuntimeError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What may be decoded, and how small it gets.

    Attributes:
        max_pixels: of what must really be decoded.
        max_side: scale down to this longest side, never up.
        max_area: scale down to about so many pixels, never up and never below.
        alpha: flatten transparency on white (RGB), or keep it (RGBA where there is any).
    """

    max_pixels: int = MAX_PIXELS
    max_side: int | None = None
    max_area: int | None = None
    alpha: Alpha = "white"

    def wanted(self, size: tuple[int, int]) -> tuple[int, int]:
        """What a picture of this size is scaled to."""
        factor = 1.0
        if self.max_side is not None:
            factor = min(factor, self.max_side / max(size))
        if self.max_area is not None:
            factor = min(factor, math.sqrt(self.max_area / (size[0] * size[1])))
        return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture; `width` and `height` as a viewer showed it, before any scaling."""

    image: Image.Image
    width: int
    height: int


def decode(
    body: bytes | Path,
    *,
    field: str,
    max_pixels: int = MAX_PIXELS,
    max_side: int | None = None,
    alpha: Alpha = "white",
) -> Image.Image:
    """The picture alone of `picture_of`, for files of our own."""
    return picture_of(body, field, Bounds(max_pixels, max_side, None, alpha)).image


def picture_of(body: bytes | Path, field: str, bounds: Bounds) -> Picture:
    """The first frame of a file: EXIF rotation applied, in sRGB, without metadata.

    Memory is near 8 bytes a pixel; a JPEG is scaled while it is decoded, which takes a small part
    of that.

    Args:
        body: the file's bytes, or the file.
        field: the job's field, for the errors.
        bounds: judged by the header, before a pixel is decoded.

    Raises:
        ImageRejected: not one of the formats, too large, truncated or broken.
    """
    _teach_pillow()
    data = body if isinstance(body, bytes) else body.read_bytes()
    try:
        try:
            return _read(data, field, bounds)
        except _BROKEN:
            if not (jpeg.lacks_end(data) and _nearly_whole(data)):
                raise
            return _read(data.rstrip(b"\xff") + jpeg.END, field, bounds)
    except UnidentifiedImageError:
        raise _not_a_picture(data, field) from None
    except MemoryError:
        raise _rejected(field, "needs more memory than a picture may take") from None
    except _BROKEN as error:
        raise ImageRejected(
            f"{field}: the picture is truncated or damaged.", field=field
        ) from error


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


@functools.cache
def _teach_pillow() -> None:
    # One thread: the picture's child process is one of two, and decodes are not what is slow.
    pillow_heif.register_heif_opener(thumbnails=False, decode_threads=1)
    Image.MAX_IMAGE_PIXELS = None  # its own limit knows no scaled decoding; `_check_size` does


def _read(data: bytes, field: str, bounds: Bounds) -> Picture:
    with Image.open(io.BytesIO(data), formats=READ_FORMATS) as image:
        given = image.size
        wanted = bounds.wanted(given)
        _check_size(image, data, field, bounds.max_pixels, wanted)
        if image.format in {"JPEG", "MPO"}:
            image.draft(None, wanted)
        # Nothing of the metadata is asked for before this: Pillow decodes a whole PNG for it.
        image.load()
        exif = _exif(image)
        width, height = given[::-1] if exif.get(_ORIENTATION, 1) in _SIDEWAYS else given
        smaller = _scaled(image, wanted)
        with contextlib.suppress(*_BROKEN):  # damaged EXIF turns no picture
            smaller.info["exif"] = image.info.get("exif", b"")
            ImageOps.exif_transpose(smaller, in_place=True)
        profile = image.info.get("icc_profile")
        return Picture(_harmless(smaller, profile, exif, bounds.alpha), width, height)


def _check_size(
    image: Image.Image, data: bytes, field: str, max_pixels: int, wanted: tuple[int, int]
) -> None:
    """Refuse by what must be decoded, which for a JPEG is less than what it has."""
    width, height = image.size
    if image.format not in {"JPEG", "MPO"}:
        if width * height > max_pixels:
            raise _too_large(field, width * height, max_pixels)
        return
    if jpeg.scans(data) > jpeg.MAX_SCANS:
        raise _rejected(field, f"has more than {jpeg.MAX_SCANS} scans, as no camera makes it")
    progressive = bool(image.info.get("progressive"))
    factor = _PROGRESSIVE_FACTOR if progressive else _JPEG_FACTOR
    if width * height > max_pixels * factor:
        raise _too_large(field, width * height, int(max_pixels * factor))
    scale = jpeg.decoding_scale(image.size, wanted)
    if width * height > max_pixels * scale**2:
        raise _too_large(field, width * height, max_pixels)


def _nearly_whole(data: bytes) -> bool:
    """Whether a JPEG without its end lacks a few rows at most.

    Decoded small with the end put on, and with other bytes before it: the first row that differs
    is the first that what is missing touches. A progressive one lacks detail, no rows.
    """
    whole, other = (
        _small(data.rstrip(b"\xff") + rest + jpeg.END) for rest in (b"", b"\x55" * 1024)
    )
    if whole.info.get("progressive"):
        return True
    touched = ImageChops.difference(whole, other).getbbox()
    rows = 0 if touched is None else whole.height - touched[1]
    return rows <= max(_MCU_ROWS / 8, _MISSING_SHARE * whole.height)


def _small(data: bytes) -> Image.Image:
    """A JPEG in grey, at an eighth of its size where libjpeg can."""
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        image.draft("L", (max(1, image.width // 8), max(1, image.height // 8)))
        grey = image.convert("L")
        grey.info["progressive"] = image.info.get("progressive")
        return grey


def _exif(image: Image.Image) -> Image.Exif:
    try:
        return image.getexif()
    except _BROKEN:
        return Image.Exif()


def _scaled(image: Image.Image, wanted: tuple[int, int]) -> Image.Image:
    # In colours first: palette and 1-bit pixels can only be picked, and 16 bits not be averaged.
    plain = image if image.mode in {"L", "RGB", "CMYK", "LA", "RGBA"} else _plain(image)
    if plain.size == wanted:
        return plain.copy() if plain is image else plain
    return plain.resize(wanted, Image.Resampling.BICUBIC, reducing_gap=2.0)


def _harmless(
    image: Image.Image, profile: bytes | None, exif: Image.Exif, alpha: Alpha
) -> Image.Image:
    mask = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    plain = image.convert("L") if image.mode == "LA" else _plain(image)
    colours = to_srgb(plain.convert("RGB") if plain.mode == "RGBA" else plain, profile, exif)
    if mask is not None and alpha == "keep":
        colours.putalpha(mask)
    elif mask is not None:
        colours = _on_white(colours, mask)
    colours.info = {}
    return colours


def _plain(image: Image.Image) -> Image.Image:
    """One of L, RGB, RGBA and CMYK, 8 bits each."""
    if image.mode.startswith("I"):  # 16-bit grey; a mere conversion would clip it to white
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    if image.mode == "1":
        return image.convert("L")
    if image.mode == "F" and _share_of_white(image):
        return image.point(lambda value: value * 255).convert("L")
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image if image.mode in {"L", "RGB", "CMYK"} else image.convert("RGB")


def _share_of_white(image: Image.Image) -> bool:
    """Whether a scan's numbers are shares of white, from 0 to 1, and not 0 to 255."""
    brightest = image.getextrema()[1]
    return not isinstance(brightest, tuple) and brightest <= 1


def _flat(image: Image.Image) -> Image.Image:
    plain = _plain(image)
    if plain.mode != "RGBA":
        return plain.convert("RGB")
    return _on_white(plain.convert("RGB"), plain.getchannel("A"))


def _on_white(colours: Image.Image, mask: Image.Image) -> Image.Image:
    flat = Image.new("RGB", colours.size, "white")
    flat.paste(colours, mask=mask)
    return flat


def _too_large(field: str, pixels: int, max_pixels: int) -> ImageRejected:
    return ImageRejected(
        f"{field}: the picture has {pixels} pixels, more than {max_pixels} pixels; scale it down.",
        field=field,
        details={"pixels": pixels, "max_pixels": max_pixels},
    )


def _not_a_picture(data: bytes, field: str) -> ImageRejected:
    nature = nature_of(data[:_HEAD_BYTES])
    if nature in {"a JPEG picture", "a PNG picture"}:  # so it begins, and so little is there
        return _rejected(field, "the picture is truncated or damaged")
    found = f"is {nature}, " if nature else "is "
    return _rejected(field, f"{found}not a {FORMAT_NAMES} picture")


def _rejected(field: str, sentence: str) -> ImageRejected:
    return ImageRejected(f"{field}: {sentence}.", field=field)
