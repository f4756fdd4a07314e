import wave
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from worker.errors import ExecutionFailed
from worker.generation.metadata import stripped

SECRET = "a graph with a prompt in it"


def marked_png(path: Path) -> Path:
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", SECRET)
    info.add_itxt("workflow", SECRET)
    Image.effect_noise((64, 32), 80).save(path, pnginfo=info)
    return path


def marked_webp(path: Path, frames: int) -> Path:
    pictures = [Image.new("RGB", (40, 20), (number * 50, 0, 0)) for number in range(frames)]
    exif = Image.Exif()
    exif[0x0110] = SECRET
    pictures[0].save(path, save_all=True, append_images=pictures[1:], exif=exif, duration=100)
    return path


def marked_clip(path: Path) -> Path:
    options = {"movflags": "use_metadata_tags"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", container_options=options) as container:
        container.metadata["prompt"] = SECRET
        codec = "libx264" if path.suffix == ".mp4" else "libvpx-vp9"
        stream: Any = container.add_stream(codec, rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(4):
            pixels = np.full((64, 64, 3), number * 40, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_a_png_has_the_same_pixels_and_no_text(tmp_path: Path) -> None:
    path = marked_png(tmp_path / "a.png")
    bare = stripped(path)
    assert SECRET.encode() in path.read_bytes()
    assert SECRET.encode() not in bare.read_bytes()
    with Image.open(path) as before, Image.open(bare) as after:
        assert after.tobytes() == before.tobytes()
        assert after.info == {}


@pytest.mark.parametrize("frames", [1, 3])
def test_a_webp_keeps_its_frames(tmp_path: Path, frames: int) -> None:
    path = marked_webp(tmp_path / "a.webp", frames)
    bare = stripped(path)
    assert SECRET.encode() in path.read_bytes()
    assert SECRET.encode() not in bare.read_bytes()
    with Image.open(bare) as image:
        assert getattr(image, "n_frames", 1) == frames
        assert not image.getexif()
        image.load()


@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
def test_a_clip_keeps_its_stream(tmp_path: Path, name: str) -> None:
    path = marked_clip(tmp_path / name)
    bare = stripped(path)
    assert SECRET.encode() in path.read_bytes()
    assert SECRET.encode() not in bare.read_bytes()
    with av.open(str(bare)) as container:
        assert len(list(container.decode(video=0))) == 4


def test_a_sound_keeps_its_samples(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(b"\1\2" * 8000)
    with av.open(str(stripped(path))) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) == 8000


def test_other_files_stay(tmp_path: Path) -> None:
    path = tmp_path / "m.glb"
    path.write_bytes(b"glTF")
    assert stripped(path) == path


def test_a_broken_png_is_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    with pytest.raises(ExecutionFailed):
        stripped(path)
    assert [left.name for left in tmp_path.iterdir()] == ["a.png"]
