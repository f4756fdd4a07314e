import contextlib
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from worker.errors import ImageRejected
from worker.media import ImageFormat, decode, encode

RED = (255, 0, 0)


def file_of(image: Image.Image, image_format: str = "PNG", **options: Any) -> bytes:
    body = io.BytesIO()
    image.save(body, image_format, **options)
    return body.getvalue()


def corners() -> Image.Image:
    """Red at the top left, black elsewhere; wider than high."""
    image = Image.new("RGB", (64, 32))
    image.paste(RED, (0, 0, 16, 16))
    return image


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its few bytes never fill."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "image_format", ["PNG", "JPEG", "WEBP", "HEIF", "AVIF", "TIFF", "BMP", "GIF", "MPO"]
)
def test_a_picture_is_decoded(image_format: str, tmp_path: Path) -> None:
    body = file_of(corners(), image_format)
    path = tmp_path / "picture"
    path.write_bytes(body)
    for source in (body, path):
        image = decode(source, field="image")
        assert (image.mode, image.size) == ("RGB", (64, 32))
        red, green, blue = image.getpixel((4, 4))  # type: ignore[misc]
        assert red > 200
        assert green + blue < 60


@pytest.mark.parametrize("image_format", ["ICO", "PPM", "PCX", "TGA"])
def test_other_formats_are_refused(image_format: str) -> None:
    with pytest.raises(ImageRejected, match="not a JPEG, PNG, WebP, HEIC"):
        decode(file_of(corners(), image_format), field="image")


@pytest.mark.parametrize("body", [b"", b"x", b"<svg/>", b"%!PS-Adobe", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_refused(body: bytes) -> None:
    with pytest.raises(ImageRejected) as caught:
        decode(body, field="init_image")
    assert caught.value.field == "init_image"
    assert caught.value.code == "image_rejected"


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_picture_is_refused(image_format: str) -> None:
    noise = Image.effect_noise((128, 128), 80).convert("RGB")
    body = file_of(noise, image_format)
    with pytest.raises(ImageRejected):
        decode(body[: len(body) * 2 // 3], field="image")


@pytest.mark.parametrize("size", [(100_000, 100_000), (10_000, 9_000), (10_000, 5_001)])
def test_a_bomb_is_refused_by_its_header(size: tuple[int, int]) -> None:
    with pytest.raises(ImageRejected, match="more than 50000000 pixels"):
        decode(png_of_size(*size), field="image")


def test_the_limit_is_the_callers() -> None:
    body = file_of(corners())
    assert decode(body, field="image", max_pixels=64 * 32).size == (64, 32)
    with pytest.raises(ImageRejected):
        decode(body, field="image", max_pixels=64 * 32 - 1)


@pytest.mark.parametrize(
    ("orientation", "corner", "size"),
    [
        (1, (4, 4), (64, 32)),
        (2, (60, 4), (64, 32)),
        (3, (60, 28), (64, 32)),
        (4, (4, 28), (64, 32)),
        (5, (4, 4), (32, 64)),
        (6, (28, 4), (32, 64)),
        (7, (28, 60), (32, 64)),
        (8, (4, 60), (32, 64)),
    ],
)
def test_exif_turns_the_picture(
    orientation: int, corner: tuple[int, int], size: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(file_of(corners(), "PNG", exif=exif), field="image")
    assert image.size == size
    assert image.getpixel(corner) == RED


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_damaged_exif_turns_nothing() -> None:
    body = file_of(corners(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xffgarbage")
    assert decode(body, field="image").size == (64, 32)


@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_of_an_animation_the_first_frame(image_format: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    body = file_of(frames[0], image_format, save_all=True, append_images=frames[1:], lossless=True)
    assert decode(body, field="image").getpixel((5, 5)) == RED


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_becomes_white_or_stays(mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 4, 8))
    body = file_of(image.convert(mode))
    flat = decode(body, field="image")
    assert flat.mode == "RGB"
    assert flat.getpixel((7, 4)) == (255, 255, 255)
    assert flat.getpixel((1, 4)) == (0, 0, 0)
    kept = decode(body, field="image", alpha="keep")
    assert kept.mode == "RGBA"
    assert kept.getchannel("A").getextrema() == (0, 255)


@pytest.mark.parametrize("mode", ["1", "L", "I;16", "CMYK"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    value: Any = {"1": 255, "L": 128, "I;16": 128 * 256, "CMYK": (0, 0, 0, 127)}[mode]
    body = file_of(Image.new(mode, (8, 8), value), "JPEG" if mode == "CMYK" else "PNG")
    image = decode(body, field="image")
    assert image.mode == "RGB"
    expected = 255 if mode == "1" else 128
    assert image.getpixel((4, 4)) == pytest.approx((expected,) * 3, abs=2)


def test_a_colour_profile_is_applied_and_gone() -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = decode(file_of(corners(), "JPEG", quality=95, icc_profile=lab), field="image")
    assert image.info == {}
    broken = decode(file_of(corners(), "PNG", icc_profile=b"no profile"), field="image")
    assert broken.getpixel((4, 4)) == RED


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
def test_a_large_photo_is_scaled_down_never_up(image_format: str) -> None:
    body = file_of(Image.new("RGB", (2000, 1000), "red"), image_format)
    assert decode(body, field="image", max_side=500).size == (500, 250)
    assert decode(body, field="image", max_side=5000).size == (2000, 1000)


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "LA"])
def test_encoding_drops_metadata(image_format: ImageFormat, mode: str) -> None:
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source = Image.open(
        io.BytesIO(file_of(corners().convert(mode), "PNG", exif=exif, icc_profile=profile))
    )
    body = encode(source, image_format)
    image = Image.open(io.BytesIO(body))
    assert image.format == image_format.upper()
    assert b"where I live" not in body
    assert not set(image.info) & {"exif", "icc_profile", "xmp", "comment"}
    assert decode(body, field="image").size == (64, 32)


def test_png_is_lossless_and_quality_counts() -> None:
    image = Image.effect_noise((64, 64), 50).convert("RGB")
    assert decode(encode(image, "png"), field="image").tobytes() == image.tobytes()
    assert len(encode(image, "jpeg", 30)) < len(encode(image, "jpeg", 95))
    assert len(encode(image, "webp", 30)) < len(encode(image, "webp", 95))


SEEDS = [
    file_of(Image.effect_noise((40, 30), 60).convert(mode), image_format)
    for mode, image_format in (("RGB", "JPEG"), ("RGBA", "PNG"), ("P", "PNG"), ("RGB", "WEBP"))
]


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow mutters about damage
@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(
        st.tuples(st.floats(0, 0.999), st.binary(min_size=1, max_size=6)), min_size=1, max_size=4
    ),
)
def test_damage_is_refused_or_decoded_but_nothing_else(
    seed: bytes, damages: list[tuple[float, bytes]]
) -> None:
    body = bytearray(seed)
    for place, damage in damages:
        at = int(place * len(body))
        body[at : at + len(damage)] = damage
    with contextlib.suppress(ImageRejected):
        assert decode(bytes(body), field="image", max_pixels=100_000).mode == "RGB"
