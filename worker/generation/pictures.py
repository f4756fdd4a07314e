"""Pictures that ComfyUI made: checked to be whole, measured, re-encoded where a job asks."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from PIL import Image, UnidentifiedImageError

from worker import media
from worker.errors import OutputDamaged
from worker.media import ImageFormat

SUFFIXES: Final[dict[ImageFormat, str]] = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
DEFAULT_QUALITY: Final = 90
_PNG_END: Final = b"IEND\xaeB`\x82"  # a PNG's last chunk: type and CRC


@dataclass(frozen=True, slots=True)
class Finished:
    """A file ready to be uploaded and what is known of it (`width`, `height`, …).

    `kind` is set where it is another than the output's own, such as a clip's poster.
    """

    path: Path
    facts: dict[str, Any] = field(default_factory=dict)
    kind: Literal["poster"] | None = None


def finish_picture(path: Path, image_format: ImageFormat, quality: int | None) -> Finished:
    """Check a picture and bring it into the format asked for.

    A PNG asked for as PNG goes out as ComfyUI wrote it, with its metadata chunks; anything else is
    encoded anew beside it.

    Raises:
        OutputDamaged: the file is empty, cut short or no picture.
    """
    try:
        with Image.open(path) as image:
            size = {"width": image.width, "height": image.height}
            if image.format == "PNG" and image_format == "png":
                _check_whole(path)
                return Finished(path, size)
            target = path.with_name(f"{path.stem}.finished{SUFFIXES[image_format]}")
            target.write_bytes(media.encode(image, image_format, quality or DEFAULT_QUALITY))
            return Finished(target, size)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise OutputDamaged(
            "ComfyUI wrote a picture that does not open; try the job again.",
            details={"reason": type(error).__name__},
        ) from error


def _check_whole(path: Path) -> None:
    with path.open("rb") as file:
        file.seek(-len(_PNG_END), 2)
        if file.read() != _PNG_END:
            raise OSError("the PNG has no end")
