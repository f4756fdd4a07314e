from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from worker.errors import ExecutionFailed
from worker.generation.clips import finish_clip


def written(path: Path, codec: str, frames: int = 5, fps: int = 8) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(frames):
            pixels = np.full((64, 96, 3), number * 40, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(("name", "codec"), [("mp4", "libx264"), ("webm", "libvpx-vp9")])
def test_facts_come_from_the_file(tmp_path: Path, name: str, codec: str) -> None:
    clip, poster = finish_clip(written(tmp_path / f"a.{name}", codec))
    assert clip.facts == {"width": 96, "height": 64, "fps": 8.0, "frames": 5, "duration_s": 0.625}
    assert poster.kind == "poster"
    with Image.open(poster.path) as image:
        assert (image.format, image.size) == ("WEBP", (96, 64))


def test_an_animated_webp_is_measured_frame_by_frame(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    frames = [Image.new("RGB", (40, 20), (number * 50, 0, 0)) for number in range(4)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=250)
    clip, _ = finish_clip(path)
    assert clip.facts == {"width": 40, "height": 20, "fps": 4.0, "frames": 4, "duration_s": 1.0}


@pytest.mark.parametrize("name", ["mp4", "webm", "webp"])
@pytest.mark.parametrize("body", [b"", b"not a video", b"\x00\x00\x00\x18ftypmp42" + b"\x00" * 64])
def test_what_does_not_open_is_a_failure(tmp_path: Path, name: str, body: bytes) -> None:
    path = tmp_path / f"a.{name}"
    path.write_bytes(body)
    with pytest.raises(ExecutionFailed):
        finish_clip(path)


def test_a_file_cut_in_half_is_a_failure(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mp4", "libx264")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ExecutionFailed):
        finish_clip(path)
