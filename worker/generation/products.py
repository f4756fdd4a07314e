"""Files that ComfyUI made: known by their content, checked to be whole, re-encoded where asked."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import av
from PIL import Image, UnidentifiedImageError

from worker import media
from worker.errors import OutputDamaged
from worker.media import ImageFormat

Kind = Literal["image", "video", "audio", "text", "file"]

SUFFIXES: Final[dict[ImageFormat, str]] = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
DEFAULT_QUALITY: Final = 90
_PNG_END: Final = b"IEND\xaeB`\x82"  # a PNG's last chunk: type and CRC
_HEAD_BYTES: Final = 64
# How files begin: offset, bytes, and whether it is a picture or what PyAV opens.
_PICTURES: Final = (
    (0, b"\x89PNG\r\n\x1a\n"),
    (0, b"\xff\xd8\xff"),
    (0, b"GIF8"),
    (8, b"WEBP"),
)
_STREAMS: Final = (
    *((4, b"ftyp"), (0, b"\x1aE\xdf\xa3"), (8, b"WAVE"), (0, b"fLaC"), (0, b"OggS"), (0, b"ID3")),
    *((0, b"\xff\xfb"), (0, b"\xff\xf3"), (8, b"AVI ")),
)
# A file that is called so and does not begin so is broken.
_MEDIA: Final = frozenset(
    {
        *(".png", ".jpg", ".jpeg", ".webp", ".gif", ".mp4", ".webm", ".mov", ".mkv", ".avi"),
        *(".wav", ".flac", ".mp3", ".opus", ".ogg", ".m4a"),
    }
)
_TEXTS: Final = frozenset({".txt", ".json", ".csv", ".srt", ".vtt", ".md", ".xml"})


@dataclass(frozen=True, slots=True)
class Finished:
    """A file ready to be uploaded and what is known of it (`width`, `height`, …)."""

    path: Path
    kind: Kind | Literal["poster"]
    facts: dict[str, Any] = field(default_factory=dict)


def kind_of(path: Path) -> Kind:
    """What a file is, by its content; a picture that moves is a video.

    Raises:
        OutputDamaged: it is called a picture, a video or a sound and is none.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if _begins(head, _PICTURES):
        return "video" if _moves(path) else "image"
    if _begins(head, _STREAMS):
        try:
            with av.open(str(path)) as container:
                return "video" if container.streams.video else "audio"
        except (av.FFmpegError, ValueError) as error:
            raise _damaged("file", error) from error
    if path.suffix.lower() in _MEDIA:
        raise _damaged("file", None)
    return "text" if path.suffix.lower() in _TEXTS else "file"


def _begins(head: bytes, known: tuple[tuple[int, bytes], ...]) -> bool:
    return any(head[offset : offset + len(magic)] == magic for offset, magic in known)


def _moves(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return getattr(image, "n_frames", 1) > 1
    except (UnidentifiedImageError, OSError, SyntaxError, EOFError) as error:
        raise _damaged("picture", error) from error


def finish_sound(path: Path) -> Finished:
    """Check that a sound opens, and say how long it lasts.

    Raises:
        OutputDamaged: it does not open.
    """
    try:
        with av.open(str(path)) as container:
            seconds = (container.duration or 0) / av.time_base
    except (av.FFmpegError, ValueError) as error:
        raise _damaged("sound", error) from error
    return Finished(path, "audio", {"duration_s": round(seconds, 3)})


def finish_picture(path: Path, image_format: ImageFormat | None, quality: int | None) -> Finished:
    """Check a picture and bring it into the format asked for.

    One that has that format goes out as ComfyUI wrote it, with its metadata; anything else is
    encoded anew beside it.

    Args:
        path: as ComfyUI wrote it.
        image_format: None leaves it as it is.
        quality: 1 to 100, of jpeg and webp.

    Raises:
        OutputDamaged: the file is empty, cut short or no picture.
    """
    try:
        with Image.open(path) as image:
            size = {"width": image.width, "height": image.height}
            if image_format is None or (image.format == "PNG" and image_format == "png"):
                _check_whole(path, image)
                return Finished(path, "image", size)
            target = path.with_name(f"{path.stem}.finished{SUFFIXES[image_format]}")
            target.write_bytes(media.encode(image, image_format, quality or DEFAULT_QUALITY))
            return Finished(target, "image", size)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise _damaged("picture", error) from error


def _check_whole(path: Path, image: Image.Image) -> None:
    """A PNG by its end alone, since decoding it would cost what it took to encode."""
    if image.format != "PNG":
        image.load()
        return
    with path.open("rb") as file:
        file.seek(-len(_PNG_END), 2)
        if file.read() != _PNG_END:
            raise OSError("the PNG has no end")


def _damaged(what: str, error: Exception | None) -> OutputDamaged:
    return OutputDamaged(
        f"ComfyUI wrote a {what} that does not open; try the job again.",
        details={"reason": type(error).__name__ if error else "not what its name says"},
    )
