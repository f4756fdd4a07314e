"""Whom a training's photos show: strangers are left out, group photos cropped to the subject."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from PIL import Image

from lora_registry.identity import FaceIdentity
from worker.likeness.faces import OTHER_PERSON, SAME_PERSON, SMALLEST_FACE, Face, Sight, likeness
from worker.likeness.scorer import NAME, NotMeasured, Scorer
from worker.likeness.subject import NoPerson, Subject, TwoPeople, subject_of
from worker.training.dataset import Judged
from worker.training.photos import FaceFacts, Reason, Verdict

log = logging.getLogger(__name__)

_FAILURES: Final = 3  # pictures that the face finder fails at, until nobody asks it any more
_BESIDE: Final = 0.4  # of the face's side, on either side of it at least: hair and ears
_TALL: Final = 1.8  # of its width: a crop to a strip is no higher

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Looked:
    """What looking at the faces gave.

    Attributes:
        judged: the photos, with verdicts that know of faces.
        identity: the subject's; None where that is no person, or nobody could look.
        not_measured: why there is none.
        two: the people of a set that shows two about equally, by photo of `judged`.
        sights: what was found in each photo of `judged`.
        reference: the photo that is most like the others.
    """

    judged: Judged
    identity: FaceIdentity | None = None
    not_measured: str | None = None
    two: TwoPeople | None = None
    sights: tuple[Sight | None, ...] = ()
    reference: Path | None = None


def look(
    judged: Judged,
    scorer: Scorer,
    least_side: int,
    *,
    crop: bool,
    check_cancelled: Callable[[], None],
    on_share: Callable[[float], None],
) -> Looked:
    """Find the person of a set and judge each photo by it; what cannot be measured fails nothing.

    Args:
        judged: usable photos as PNGs; one that is rejected now is removed, one that is cropped
            written anew.
        scorer: finds the faces.
        least_side: shortest side in pixels that a crop may have.
        crop: whether a photo with other people in it is cropped to the subject.
        check_cancelled: called 20 times a second; what it raises ends the call.
        on_share: told the share that is done before each photo.
    """
    sights: list[Sight | None] = []
    problems: list[str] = []
    for number, photo in enumerate(judged.photos):
        on_share(number / len(judged.photos))
        try:
            sights.append(scorer.look(photo.path, thorough=True, check_cancelled=check_cancelled))
        except NotMeasured as problem:
            log.warning("faces of a photo not found", extra={"reason": str(problem)})
            problems.append(str(problem))
            sights.append(None)
        if len(problems) == _FAILURES:
            return Looked(judged, not_measured=problems[-1])
    subject = subject_of(sights)
    if isinstance(subject, NoPerson):
        return Looked(judged, not_measured=f"the subject is no person: {subject.reason}")
    if isinstance(subject, TwoPeople):
        return Looked(judged, two=subject, sights=tuple(sights))
    settled = _settled(judged, sights, subject, least_side, crop=crop)
    identity = FaceIdentity(
        scorer=NAME,
        scorer_version=scorer.version or "",
        # Finer than a face can be told from another by far, and a fifth of the digits.
        centre=tuple(round(number, 6) for number in subject.centre),
        typical=_rounded(subject.typical),
        photos=len(subject.faces),
    )
    # One photo alone has no likeness; it is the most typical all the same.
    typical = max(subject.faces, key=lambda number: subject.likenesses.get(number, 0.0))
    reference = judged.photos[typical].path
    return Looked(settled, identity, sights=tuple(sights), reference=reference)


def _settled(
    judged: Judged,
    sights: Sequence[Sight | None],
    subject: Subject,
    least_side: int,
    *,
    crop: bool,
) -> Judged:
    verdicts = {verdict.index: verdict for verdict in judged.verdicts}
    photos = []
    for number, (photo, sight) in enumerate(zip(judged.photos, sights, strict=True)):
        if sight is None:
            photos.append(photo)
            continue
        index = int(photo.path.stem)
        place = subject.faces.get(number)
        strip = None
        if crop and place is not None:
            strip = strip_of(sight, sight.faces[place], least_side)
        verdict = _verdict(verdicts[index], sight, subject, number, strip)
        verdicts[index] = verdict
        if not verdict.usable:
            photo.path.unlink()
            continue
        if strip is not None:
            _crop(photo.path, strip)
        photos.append(photo)
    return replace(judged, verdicts=tuple(verdicts.values()), photos=tuple(photos))


def _verdict(
    verdict: Verdict, sight: Sight, subject: Subject, number: int, strip: Box | None
) -> Verdict:
    """The verdict with what the faces say of the photo; boxes in pixels of the photo as it came."""
    scale = verdict.facts.width / sight.width if verdict.facts else 1.0
    place = subject.faces.get(number)
    if place is None:
        best = max((likeness(subject.centre, face.embedding) for face in sight.faces), default=None)
        facts = FaceFacts(len(sight.faces), likeness=_rounded(best))
        return replace(verdict, faces=facts, reasons=(*verdict.reasons, _stranger(sight, best)))
    face = sight.faces[place]
    facts = FaceFacts(
        count=len(sight.faces),
        side=round(face.side * scale),
        likeness=_rounded(subject.likenesses.get(number)),
        cropped=strip and _scaled(strip, scale),
    )
    reasons = list(verdict.reasons)
    if not face.judged:
        reasons.append(Reason("small_face", _too_small(face)))
    others = len(_others(sight, face))
    if others and strip is None:
        people = "another person is" if others == 1 else f"{others} other people are"
        reasons.append(Reason("other_people", f"{people.capitalize()} in it; crop it."))
    return replace(verdict, faces=facts, reasons=tuple(reasons))


def _stranger(sight: Sight, best: float | None) -> Reason:
    """Why a photo in which the subject was not found is warned about or rejected."""
    if best is None and sight.faint:
        return Reason("face_unclear", "No face is clearly seen; a character learns little of it.")
    if best is None:
        return Reason("no_face", "It shows no face.")
    if not any(face.judged for face in sight.faces):
        return Reason("small_face", _too_small(sight.faces[0]))
    alike = f"likeness {best:.2f}, the same person has {SAME_PERSON:.2f} or more"
    if best < OTHER_PERSON:
        return Reason("another_person", f"It shows somebody else than the other photos ({alike}).")
    return Reason("unlike", f"It may show somebody else than the other photos ({alike}).")


def _too_small(face: Face) -> str:
    return f"The face is {face.side} px wide; below {SMALLEST_FACE} px nobody is told by it."


def _others(sight: Sight, subject: Face) -> list[Face]:
    return [face for face in sight.faces if face is not subject and face.judged]


def strip_of(sight: Sight, subject: Face, least_side: int) -> Box | None:
    """What of a photo shows nobody but the subject: the strip between its neighbours' faces.

    None where there is nobody else, and where what would be left is too narrow.

    Args:
        sight: of the photo.
        subject: the face that stays.
        least_side: in pixels, of the strip.
    """
    others = _others(sight, subject)
    if not others:
        return None
    left, right = 0, sight.width
    for other in others:
        if other.box[2] <= subject.box[0]:
            left = max(left, other.box[2])
        elif other.box[0] >= subject.box[2]:
            right = min(right, other.box[0])
        else:  # above or below: no strip parts them
            return None
    if min(subject.box[0] - left, right - subject.box[2]) < _BESIDE * subject.side:
        return None
    top, bottom = _around(subject, right - left, sight.height)
    return (left, top, right, bottom) if min(right - left, bottom - top) >= least_side else None


def _around(subject: Face, width: int, height: int) -> tuple[int, int]:
    """Top and bottom of a strip: the face in its upper third where the photo is higher."""
    tall = min(height, round(_TALL * width))
    middle = (subject.box[1] + subject.box[3]) // 2
    top = min(max(0, middle - tall // 3), height - tall)
    return top, top + tall


def _crop(path: Path, box: Box) -> None:
    with Image.open(path) as image:
        part = image.crop(box)
    part.save(path, "PNG", compress_level=1)


def _scaled(box: Box, scale: float) -> Box:
    left, top, right, bottom = (round(side * scale) for side in box)
    return left, top, right, bottom


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def contact_sheet(looked: Looked, side: int = 160) -> Image.Image:
    """The faces of the two people of a set, a row each, at most eight of each."""
    two = looked.two or TwoPeople({}, {})
    rows = [sorted(person.items())[:8] for person in (two.first, two.second)]
    sheet = Image.new("RGB", (8 * side, 2 * side), "white")
    for row, places in enumerate(rows):
        for column, (number, place) in enumerate(places):
            sight = looked.sights[number]
            if sight is not None:
                with Image.open(looked.judged.photos[number].path) as image:
                    face = image.crop(sight.faces[place].box).resize((side, side))
                sheet.paste(face, (column * side, row * side))
    return sheet
