"""What a photo is worth for training: measured on its pixels, judged by rules that a user can read.

Pure but for Pillow's and numpy's arithmetic; nothing here opens a file.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from PIL import Image

MIN_SHORT_SIDE: Final = 512  # below it the upscaled photo teaches its own blur
GOOD_SHORT_SIDE: Final = 768
MAX_ASPECT: Final = 2.5
NEAR_DUPLICATE_BITS: Final = 4  # of a 64-bit difference hash
BLURRED_BELOW: Final = 40.0  # variance of the Laplacian at `_BLUR_SIDE`; photos in focus have 100s
_BLUR_SIDE: Final = 640
_ENOUGH_PIXELS: Final = 1.15  # of the resolution's side: room for the trainer's own resampling

Kind = Literal["kept", "warned", "rejected"]
ReasonCode = Literal[
    "small",
    "extreme_aspect",
    "near_duplicate",
    "blurred",
    "too_small",
    "duplicate",
    "unreadable",
    "unreachable",
    "too_large",
    "another_person",
    "unlike",
    "no_face",
    "face_unclear",
    "small_face",
    "other_people",
]
_REJECTING: Final = frozenset(
    {
        "too_small",
        "duplicate",
        "unreadable",
        "unreachable",
        "too_large",
        "another_person",
        "no_face",
    }
)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a photo was warned about or rejected; the message is for the user."""

    code: ReasonCode
    message: str


@dataclass(frozen=True, slots=True)
class PhotoFacts:
    """What was measured; sides in pixels after EXIF rotation and before scaling."""

    sha256: str
    width: int
    height: int
    fingerprint: int
    sharpness: float


@dataclass(frozen=True, slots=True)
class FaceFacts:
    """What was seen of faces in a photo.

    Attributes:
        count: of all faces.
        side: of the subject's face, in pixels of the photo as it came.
        likeness: of that face to the subject's in the other photos, 0 to 1.
        cropped: what of the photo is trained on: left, top, right, bottom in its pixels.
    """

    count: int
    side: int | None = None
    likeness: float | None = None
    cropped: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one photo; `index` counts from 0 in the order they were given."""

    index: int
    name: str
    reasons: tuple[Reason, ...] = ()
    facts: PhotoFacts | None = None
    faces: FaceFacts | None = None

    @property
    def kind(self) -> Kind:
        """Rejected by any rejecting reason, warned by any other."""
        if any(reason.code in _REJECTING for reason in self.reasons):
            return "rejected"
        return "warned" if self.reasons else "kept"

    @property
    def usable(self) -> bool:
        """Whether it is trained on."""
        return self.kind != "rejected"

    def as_json(self) -> dict[str, Any]:
        """As the result and the report show it."""
        shown: dict[str, Any] = {
            "index": self.index,
            "name": self.name,
            "verdict": self.kind,
            "reasons": [{"code": each.code, "message": each.message} for each in self.reasons],
        }
        if self.facts is not None:
            shown |= {
                "width": self.facts.width,
                "height": self.facts.height,
                "sha256": self.facts.sha256,
            }
        if self.faces is not None:
            shown |= {
                "faces": self.faces.count,
                "face_side": self.faces.side,
                "likeness": self.faces.likeness,
                "cropped": self.faces.cropped,
            }
        return shown


def rejected(index: int, name: str, code: ReasonCode, message: str) -> Verdict:
    """The verdict on a photo that could not even be measured."""
    return Verdict(index, name, (Reason(code, message),))


def fingerprint(image: Image.Image) -> int:
    """64-bit difference hash: each bit says whether a pixel of 9x8 is darker than its right one."""
    small = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    bits = (small[:, 1:] > small[:, :-1]).flatten()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def sharpness(image: Image.Image) -> float:
    """Variance of the Laplacian with the long side brought to 640 px, so that sizes compare."""
    gray = image.convert("L")
    gray.thumbnail((_BLUR_SIDE, _BLUR_SIDE), Image.Resampling.BOX)
    pixels = np.asarray(gray, dtype=np.float32)
    if min(pixels.shape) < 3:  # noqa: PLR2004 - the kernel is 3x3
        return 0.0
    centre = pixels[1:-1, 1:-1]
    around = pixels[:-2, 1:-1] + pixels[2:, 1:-1] + pixels[1:-1, :-2] + pixels[1:-1, 2:]
    return float((around - 4 * centre).var())


def enough_pixels(resolution: int) -> int:
    """The area to keep a photo at: enough for the trainer's, none of a camera's 24 MP more.

    It stays above `resolution` squared, so a trainer that never upscales loses nothing.
    """
    return math.ceil((resolution * _ENOUGH_PIXELS) ** 2)


def size_problem(width: int, height: int, resolution: int) -> Reason | None:
    """The rejection of a photo that is too small; decided on the header, before any decoding."""
    limit = min(MIN_SHORT_SIDE, resolution)
    if min(width, height) >= limit:
        return None
    message = f"Its short side is {min(width, height)} px; at least {limit} px are needed."
    return Reason("too_small", message)


def judge(measured: Sequence[tuple[int, str, PhotoFacts]], resolution: int) -> list[Verdict]:
    """Verdicts on photos that decoded, each as (index, name, facts), compared with those before.

    A photo is a duplicate of an earlier one, never of a later, so the first of equals is kept.
    """
    verdicts: list[Verdict] = []
    for index, name, facts in measured:
        earlier = [verdict for verdict in verdicts if verdict.usable]
        reasons = [*_size_reasons(facts, resolution), *_likeness_reasons(facts, earlier)]
        if facts.sharpness < BLURRED_BELOW:
            reasons.append(Reason("blurred", "It looks blurred, and the character would too."))
        verdicts.append(Verdict(index, name, tuple(reasons), facts))
    return verdicts


def _size_reasons(facts: PhotoFacts, resolution: int) -> list[Reason]:
    problem = size_problem(facts.width, facts.height, resolution)
    if problem is not None:
        return [problem]
    reasons = []
    short, long = sorted((facts.width, facts.height))
    good = min(GOOD_SHORT_SIDE, resolution)
    if short < good:
        message = f"Its short side is {short} px; {good} px or more give a sharper character."
        reasons.append(Reason("small", message))
    if long / short > MAX_ASPECT:
        message = f"It is {long / short:.1f} times as long as wide; crop it to the subject."
        reasons.append(Reason("extreme_aspect", message))
    return reasons


def _likeness_reasons(facts: PhotoFacts, earlier: Sequence[Verdict]) -> list[Reason]:
    for verdict in earlier:
        if verdict.facts is None:
            continue
        if verdict.facts.sha256 == facts.sha256:
            return [Reason("duplicate", f"It is the same file as photo {verdict.index}.")]
    for verdict in earlier:
        if verdict.facts is None:
            continue
        bits = (verdict.facts.fingerprint ^ facts.fingerprint).bit_count()
        if bits <= NEAR_DUPLICATE_BITS:
            message = f"It is nearly the same as photo {verdict.index}; varied photos teach more."
            return [Reason("near_duplicate", message)]
    return []
