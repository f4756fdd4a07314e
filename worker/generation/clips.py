"""Clips that ComfyUI made: opened, measured as they are (not as they were asked for), a poster."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import av
from PIL import Image, UnidentifiedImageError

from worker.errors import OutputDamaged
from worker.generation.products import Finished

POSTER_QUALITY: Final = 85
_DEFAULT_FRAME_MS: Final = 100  # of an animated picture that says nothing
_FRAMES: Final = frozenset({".webp", ".gif", ".png"})


@dataclass(frozen=True, slots=True)
class _Clip:
    width: int
    height: int
    fps: float
    frames: int
    duration_s: float
    first: Image.Image

    def facts(self) -> dict[str, Any]:
        return {
            "width": self.width,
            "height": self.height,
            "fps": round(self.fps, 3),
            "frames": self.frames,
            "duration_s": round(self.duration_s, 3),
        }


def finish_clip(path: Path) -> tuple[Finished, Finished]:
    """Read a clip back and take its first frame as the poster.

    Args:
        path: the file as ComfyUI wrote it; it goes out unchanged.

    Returns:
        The clip with `width`, `height`, `fps`, `frames`, `duration_s`, and the poster (webp).

    Raises:
        OutputDamaged: the file is empty, does not open, or has no frame.
    """
    with _unreadable_is_failure():
        clip = _read_frames(path) if path.suffix in _FRAMES else _read_stream(path)
        poster = path.with_name(f"{path.stem}.poster.webp")
        clip.first.save(poster, "WEBP", quality=POSTER_QUALITY)
    size = {"width": clip.width, "height": clip.height}
    return Finished(path, "video", clip.facts()), Finished(poster, "poster", size)


def _read_stream(path: Path) -> _Clip:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        first = _picture(next(container.decode(stream)))
        rate = float(stream.average_rate or 0)
    frames = _count_frames(path)
    return _Clip(first.width, first.height, rate, frames, frames / rate, first)


def _picture(frame: av.VideoFrame) -> Image.Image:
    return Image.fromarray(frame.to_ndarray(format="rgb24"))


def _count_frames(path: Path) -> int:
    """Packets with data: webm names no count in its header."""
    with av.open(str(path)) as container:
        return sum(packet.size > 0 for packet in container.demux(video=0))


def _read_frames(path: Path) -> _Clip:
    with Image.open(path, formats=["WEBP", "GIF", "PNG"]) as image:
        first = image.convert("RGB")
        frames = getattr(image, "n_frames", 1)
        milliseconds = 0
        for number in range(frames):
            image.seek(number)
            image.load()  # a webp knows a frame's duration once it is decoded
            milliseconds += image.info.get("duration") or _DEFAULT_FRAME_MS
    seconds = milliseconds / 1000
    return _Clip(first.width, first.height, frames / seconds, frames, seconds, first)


@contextlib.contextmanager
def _unreadable_is_failure() -> Iterator[None]:
    broken = (av.FFmpegError, UnidentifiedImageError, EOFError, IndexError, StopIteration)
    try:
        yield
    except (*broken, ZeroDivisionError, ValueError) as error:
        raise OutputDamaged(
            "ComfyUI wrote a video that does not open; try the job again.",
            details={"reason": type(error).__name__},
        ) from error
