from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from worker.errors import ExecutionFailed
from worker.generation.pictures import finish_picture
from worker.media import ImageFormat


def saved(path: Path, mode: str = "RGB") -> Path:
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", "{}")
    Image.new(mode, (64, 32), "red").save(path, pnginfo=info)
    return path


def test_a_png_goes_out_as_comfyui_wrote_it(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png")
    before = path.read_bytes()
    finished = finish_picture(path, "png", None)
    assert finished.path == path
    assert path.read_bytes() == before
    assert finished.facts == {"width": 64, "height": 32}


@pytest.mark.parametrize(("name", "suffix"), [("jpeg", ".jpg"), ("webp", ".webp")])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_other_formats_are_encoded_beside_it(
    tmp_path: Path, name: ImageFormat, suffix: str, mode: str
) -> None:
    finished = finish_picture(saved(tmp_path / "a.png", mode), name, 75)
    assert finished.path.suffix == suffix
    with Image.open(finished.path) as image:
        image.load()
        assert image.format == name.upper()
        assert image.size == (64, 32)


def test_quality_makes_a_difference(tmp_path: Path) -> None:
    path = tmp_path / "noise.png"
    Image.effect_noise((256, 256), 80).convert("RGB").save(path)
    small = finish_picture(path, "jpeg", 10).path.stat().st_size
    large = finish_picture(path, "jpeg", 95).path.stat().st_size
    assert small < large


@pytest.mark.parametrize("keep", [0, 20, 60, -1])
def test_a_file_that_is_not_whole_is_a_failure(tmp_path: Path, keep: int) -> None:
    path = saved(tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ExecutionFailed) as caught:
        finish_picture(path, "png", None)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(("name", "expected"), [("jpeg", (255, 255, 255)), ("webp", (0, 0, 0, 0))])
def test_transparency_is_kept_or_put_on_white(
    tmp_path: Path, name: ImageFormat, expected: tuple[int, ...]
) -> None:
    """As for a picture that a job brings: never black, never silently dropped."""
    path = tmp_path / "a.png"
    Image.new("RGBA", (64, 32), (0, 0, 0, 0)).save(path)
    with Image.open(finish_picture(path, name, None).path) as image:
        pixel = image.getpixel((5, 5))
    assert isinstance(pixel, tuple)
    assert len(pixel) == len(expected)
    assert pixel[-1] == expected[-1]
