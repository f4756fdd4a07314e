import wave
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from worker.errors import ExecutionFailed
from worker.generation.products import finish_picture, finish_sound, kind_of
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


def animated(path: Path, frames: int = 3) -> Path:
    pictures = [Image.new("RGB", (40, 20), (number * 50, 0, 0)) for number in range(frames)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=250)
    return path


def sound(path: Path, seconds: int = 2) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(b"\0\0" * 8000 * seconds)
    return path


@pytest.mark.parametrize("suffix", [".webp", ".gif", ".png"])
def test_a_picture_that_moves_is_a_video_whatever_its_name(tmp_path: Path, suffix: str) -> None:
    assert kind_of(animated(tmp_path / f"a{suffix}")) == "video"
    assert kind_of(saved(tmp_path / "b.png")) == "image"


def test_a_sound_is_known_and_measured(tmp_path: Path) -> None:
    path = sound(tmp_path / "a.wav")
    assert kind_of(path) == "audio"
    assert finish_sound(path).facts == {"duration_s": 2.0}


@pytest.mark.parametrize(
    ("name", "kind"), [("a.txt", "text"), ("a.json", "text"), ("a.glb", "file"), ("a", "file")]
)
def test_other_files_are_taken_as_they_are(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_bytes(b"glTF\x02")
    assert kind_of(tmp_path / name) == kind


@pytest.mark.parametrize("name", ["a.png", "a.mp4", "a.wav", "a.gif"])
@pytest.mark.parametrize("body", [b"", b"no such thing"])
def test_what_is_called_a_picture_and_is_none_is_a_failure(
    tmp_path: Path, name: str, body: bytes
) -> None:
    (tmp_path / name).write_bytes(body)
    with pytest.raises(ExecutionFailed):
        kind_of(tmp_path / name)


def test_a_picture_may_stay_as_its_node_wrote_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.new("RGB", (64, 32), "red").save(path)
    finished = finish_picture(path, None, None)
    assert (finished.path, finished.kind) == (path, "image")
