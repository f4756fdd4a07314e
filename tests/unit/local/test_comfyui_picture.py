"""The stand-in's pictures: the same for the same request, other ones for any other."""

import io
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from local.comfyui.picture import Painter
from local.comfyui.png import PngEncoder
from local.comfyui.values import Conditioning, Latent, Lora, Model, Request

_REQUEST = Request(
    model=Model("base.safetensors"),
    positive=Conditioning("mira woman in a greenhouse"),
    negative=Conditioning("blurry"),
    seed=7,
    steps=20,
    cfg=5.0,
    sampler="euler normal",
    denoise=1.0,
)
_LATENT = Latent(256, 256, 1, request=_REQUEST)


def _pixels(latent: Latent) -> bytes:
    return b"".join(image.tobytes() for image in Painter().paint(latent))


def _asked(**changes: object) -> Latent:
    return replace(_LATENT, request=replace(_REQUEST, **changes))  # type: ignore[arg-type]  # any field


def test_the_same_request_gives_the_same_picture() -> None:
    assert _pixels(_LATENT) == _pixels(_asked())


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 8},
        {"positive": Conditioning("mira woman on a beach")},
        {"negative": Conditioning("sharp")},
        {"model": Model("base.safetensors", (Lora("mira", 0.8),))},
        {"steps": 21},
        {"cfg": 5.5},
    ],
)
def test_another_request_gives_another_picture(changes: dict[str, object]) -> None:
    """Not only the words on the card differ, but what is above them."""
    first, second = (
        np.asarray(Painter().paint(latent)[0].crop((0, 0, 256, 80)), np.int16)
        for latent in (_LATENT, _asked(**changes))
    )
    assert np.abs(first - second).mean() > 1


def test_pictures_of_a_batch_differ() -> None:
    first, second = Painter().paint(replace(_LATENT, count=2))
    assert first.tobytes() != second.tobytes()


def test_a_lora_of_strength_zero_changes_nothing() -> None:
    assert Model("base").with_lora(Lora("mira", 0.0)) == Model("base")


def test_the_start_picture_shows_the_more_the_less_is_denoised() -> None:
    start = Image.new("RGB", (256, 256), (0, 255, 0))
    distances = []
    for denoise in (0.2, 0.5, 0.9):
        latent = replace(_asked(denoise=denoise), origin=(start,))
        ground = np.asarray(Painter().paint(latent)[0].crop((0, 180, 256, 256)), np.int16)
        distances.append(np.abs(ground - np.array([0, 255, 0])).mean())
    assert distances == sorted(distances)
    assert distances[0] < 0.5 * distances[2]


def test_frames_of_a_video_move() -> None:
    start = Image.effect_noise((256, 256), 80).convert("RGB")
    latent = replace(_LATENT, count=3, video=True, origin=(start,))
    frames = Painter().paint(latent)
    assert len({frame.tobytes() for frame in frames}) == 3
    assert {frame.size for frame in frames} == {(256, 256)}


@pytest.mark.parametrize("text", ["", "\0\x1b[31m", "😀" * 2000, "x" * 100_000, "a\n\n\tb", "漢字"])
@pytest.mark.parametrize("size", [(16, 16), (64, 512), (512, 256)])
def test_any_prompt_fits_any_size(text: str, size: tuple[int, int]) -> None:
    latent = Latent(*size, 1, request=replace(_REQUEST, positive=Conditioning(text)))
    assert Painter().paint(latent)[0].size == size


def test_the_benchmark_picture_has_about_the_bytes_asked_for() -> None:
    painter, encoder = Painter(1_500_000), PngEncoder()
    latent = replace(_LATENT, width=1024, height=1024, count=2)
    first, second = painter.paint(latent)
    assert first is second
    body = encoder.encode(first, {"prompt": "{}"})
    assert 1_400_000 < len(body) < 1_650_000
    with Image.open(io.BytesIO(body)) as image:
        image.load()
        assert image.size == (1024, 1024)


def test_png_text_chunks_are_whole() -> None:
    body = PngEncoder().encode(Image.new("RGB", (8, 8)), {"prompt": '{"text": "\\u00e9"}'})
    start = body.index(b"tEXt")
    size = int.from_bytes(body[start - 4 : start], "big")
    checksum = int.from_bytes(body[start + 4 + size : start + 8 + size], "big")
    assert checksum == zlib.crc32(body[start : start + 4 + size])
    with Image.open(io.BytesIO(body)) as image:
        assert image.info["prompt"] == '{"text": "\\u00e9"}'
