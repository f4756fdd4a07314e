"""Pictures of strangers in a process of their own: what is taken, what is refused, and how fast."""

import io
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from worker.cancel import CancelToken
from worker.errors import Cancelled, ImageRejected
from worker.media import Bounds, decode, picture_of
from worker.pictures import PictureOptions, Pictures

PICTURES = Pictures(PictureOptions())


def file_of(image: Image.Image, image_format: str, **options: Any) -> bytes:
    body = io.BytesIO()
    image.save(body, image_format, **options)
    return body.getvalue()


def scan_bomb(scans: int, size: tuple[int, int] = (6000, 6000)) -> bytes:
    """A progressive JPEG with so many scans that say nothing."""
    body = file_of(Image.new("L", size), "JPEG", progressive=True)
    last = body.rindex(b"\xff\xda")
    scan = body[last:-2]
    return body[:-2] + scan * scans + b"\xff\xd9"


def photo(size: tuple[int, int] = (640, 480)) -> Image.Image:
    grain = np.random.default_rng(1).integers(0, 255, (size[1] // 8, size[0] // 8, 3), np.uint8)
    return Image.fromarray(grain).resize(size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", [(8064, 6048), (12_000, 9_000), (16_320, 12_240)])
def test_phones_largest_jpegs_are_scaled_while_they_are_decoded(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    path = tmp_path / "photo"
    Image.new("L", size, 128).save(path, "JPEG")
    picture = PICTURES.decode(path, field="image", max_area=1_386_000)
    assert (picture.width, picture.height) == size
    assert picture.image.size[0] * picture.image.size[1] == pytest.approx(1_386_000, rel=0.01)


def test_a_large_heic_is_taken_within_its_memory(tmp_path: Path) -> None:
    body = file_of(Image.new("RGB", (8064, 6048), "red"), "HEIF", quality=30)
    picture = PICTURES.decode(body, field="image", max_side=2048)
    assert (picture.width, picture.image.size) == (8064, (2048, 1536))
    small = Pictures(PictureOptions(memory_bytes=150_000_000), tmp_path)
    with pytest.raises(ImageRejected, match=r"memory|damaged"):
        small.decode(body, field="image", max_side=2048)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("scans", [101, 40_000])
def test_scans_that_say_nothing_are_refused_at_once(scans: int) -> None:
    body = scan_bomb(scans)
    begun = time.monotonic()
    with pytest.raises(ImageRejected, match="more than 100 scans"):
        picture_of(body, "image", Bounds())
    assert time.monotonic() - begun < 1


def test_an_ordinary_progressive_photo_passes() -> None:
    body = file_of(photo(), "JPEG", progressive=True)
    assert decode(body, field="image").size == (640, 480)


def test_a_cancel_and_a_deadline_reach_a_decoder() -> None:
    body = scan_bomb(90, (7000, 7000))
    token = CancelToken()
    token.cancel()
    begun = time.monotonic()
    with pytest.raises(Cancelled):
        PICTURES.decode(body, field="image", check_cancelled=token.check)
    hurried = Pictures(PictureOptions(timeout_s=0.2))
    with pytest.raises(ImageRejected, match=r"longer than 0\.2 s"):
        hurried.decode(body, field="image")
    assert time.monotonic() - begun < 3


def test_jobs_wait_for_one_another_where_a_cancel_reaches_them() -> None:
    full = Pictures(PictureOptions(at_once=1))
    full._slots.acquire()
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        full.decode(b"", field="image", check_cancelled=token.check)


def test_a_png_is_judged_by_its_header_alone() -> None:
    body = file_of(Image.new("1", (13_000, 13_000)), "PNG")
    begun = time.process_time()
    with pytest.raises(ImageRejected, match="169000000 pixels, more than 50000000"):
        picture_of(body, "image", Bounds())
    assert time.process_time() - begun < 0.5


@pytest.mark.parametrize("missing", [1, 2, 3, 200])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_jpeg_without_its_last_bytes_is_shown_as_viewers_do(
    missing: int, options: dict[str, bool]
) -> None:
    whole = file_of(photo(), "JPEG", quality=95, **options)
    image = decode(whole[:-missing], field="image")
    shown = np.asarray(image, dtype=int)[:440]
    assert np.abs(shown - np.asarray(decode(whole, field="image"), dtype=int)[:440]).mean() < 2


def test_one_that_lacks_more_is_refused() -> None:
    whole = file_of(photo(), "JPEG", quality=95)
    with pytest.raises(ImageRejected, match="truncated"):
        decode(whole[: len(whole) * 9 // 10], field="image")


@pytest.mark.parametrize("mode", ["I;16", "P", "1"])
def test_scaling_averages_whatever_the_mode(mode: str) -> None:
    checks = np.indices((1200, 1200)).sum(0) % 2 * 255
    image = Image.fromarray(checks.astype(np.uint8))
    if mode == "I;16":
        image = Image.fromarray((checks * 257).astype(np.uint16))
    body = file_of(image.convert(mode) if mode != "I;16" else image, "PNG")
    small = decode(body, field="image", max_side=300)
    assert np.asarray(small).std() < 5  # picking pixels would leave black and white
    assert np.asarray(small).mean() == pytest.approx(127, abs=3)


def test_grey_with_alpha_keeps_its_profile_meaning() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    body = file_of(Image.new("LA", (32, 32), (100, 255)), "PNG", icc_profile=profile)
    assert decode(body, field="image").getpixel((5, 5)) == pytest.approx((100,) * 3, abs=1)


def test_adobe_rgb_by_exif_alone_becomes_srgb() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 2
    body = file_of(Image.new("RGB", (32, 32), (100, 200, 100)), "JPEG", quality=95, exif=exif)
    red, green, _blue = decode(body, field="image").getpixel((5, 5))  # type: ignore[misc]
    assert red < 60
    assert green == pytest.approx(201, abs=4)


@pytest.mark.parametrize("image_format", ["TIFF", "AVIF", "WEBP"])
def test_exif_turns_every_format_once(image_format: str) -> None:
    image = Image.new("RGB", (64, 32))
    image.paste((255, 0, 0), (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = picture_of(file_of(image, image_format, exif=exif), "image", Bounds())
    assert picture.image.size == (picture.width, picture.height) == (32, 64)
    red, green, _blue = picture.image.getpixel((28, 4))  # type: ignore[misc]
    assert red > 200
    assert green < 80


@pytest.mark.parametrize(
    ("body", "noun"),
    [
        (b"<!DOCTYPE html><html><body>hello", "a web page"),
        (b"<html><form action=/login>Sign in", "a login page"),
        (b"%PDF-1.7", "a PDF"),
        (b"<svg xmlns=", "an SVG drawing"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a git-lfs pointer"),
        (b"\0\0\0\x18ftypmp42", "a video"),
        (b"PK\x03\x04" + b"\0" * 26 + b"archive/data.pkl", "a pickle"),
        (b"PK\x03\x04" + b"\0" * 26 + b"photo.jpg", "a zip archive"),
    ],
)
def test_what_is_no_picture_is_named_for_what_it_is(body: bytes, noun: str) -> None:
    with pytest.raises(ImageRejected, match=re.escape(f"is {noun}")):
        PICTURES.decode(body, field="image")


def test_metadata_bombs_say_nothing_on_our_streams(capfd: pytest.CaptureFixture[str]) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "x" * 100_000, zip=True)
    PICTURES.decode(file_of(photo(), "PNG", pnginfo=text), field="image")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("white", [1.0, 255.0])
def test_fractions_of_white_are_not_black(white: float) -> None:
    """TIFFs of scanners and renderers hold 0 to 1, or 0 to 255."""
    body = io.BytesIO()
    Image.fromarray(np.full((60, 80), white / 2, np.float32)).save(body, "TIFF")
    image = PICTURES.decode(body.getvalue(), field="image").image
    assert abs(np.asarray(image).mean() - 127) < 1.5
