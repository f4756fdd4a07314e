"""Whom a set of photos shows: the person who recurs in it. Pure."""

import statistics
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final

from worker.likeness.faces import (
    SAME_PERSON,
    Embedding,
    Face,
    Sight,
    centre_of,
    left_out_likeness,
    likeness,
)

_EQUALLY: Final = 0.8  # of the subject's photos: as often as that, somebody else is no bystander
_REFINEMENTS: Final = 3

Place = tuple[int, int]
"""A face of a set: the photo's index, and the face's in it."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The person who recurs.

    Attributes:
        centre: the mean of the faces.
        faces: by photo, the index of the subject's face; photos without one are left out.
        likenesses: by photo, likeness to the centre of all the other ones.
    """

    centre: Embedding
    faces: Mapping[int, int]
    likenesses: Mapping[int, float]

    @property
    def typical(self) -> float | None:
        """The median of the likenesses: what the photos themselves reach."""
        return statistics.median(self.likenesses.values()) if self.likenesses else None


@dataclass(frozen=True, slots=True)
class NoPerson:
    """Nobody recurs: a pet, a thing, a drawing, or people who are nobody in particular."""

    reason: str


@dataclass(frozen=True, slots=True)
class TwoPeople:
    """Two people recur about equally; by photo, the index of each one's face."""

    first: Mapping[int, int]
    second: Mapping[int, int]


def subject_of(sights: Sequence[Sight | None]) -> Subject | NoPerson | TwoPeople:
    """Find the person of a set.

    Args:
        sights: what was found in each photo; None where nobody could look.
    """
    looked = [sight for sight in sights if sight is not None]
    showing = sum(bool(sight.faces) for sight in looked)
    if showing * 2 < len(looked) or not showing:
        return NoPerson(f"{showing} of {len(looked)} photos show a face")
    faces = {
        (photo, index): face
        for photo, sight in enumerate(sights)
        if sight is not None
        for index, face in enumerate(sight.faces)
    }
    first = _recurring(faces, set())
    second = _recurring(faces, set(first.items()))
    if len(second) >= max(2, _EQUALLY * len(first)):
        return TwoPeople(first, second)
    if len(first) * 2 < showing:
        return NoPerson(f"nobody is seen in more than {len(first)} of {showing} photos with faces")
    embeddings = [faces[place].embedding for place in first.items()]
    left_out = (left_out_likeness(embeddings, index) for index in range(len(embeddings)))
    return Subject(
        centre_of(embeddings),
        first,
        {photo: value for photo, value in zip(first, left_out, strict=True) if value is not None},
    )


def _recurring(faces: Mapping[Place, Face], taken: Set[Place]) -> dict[int, int]:
    """The largest group of like faces, one a photo: photo to face."""
    # A face too small to judge belongs to whom it may; it does not say who there is.
    seeds = [place for place, face in faces.items() if place not in taken and face.judged]
    if not seeds:
        return {}
    groups = [_like(faces[seed].embedding, faces, taken) for seed in seeds]
    group = max(groups, key=lambda one: (len(one), _closeness(one, faces)))
    for _ in range(_REFINEMENTS):
        centre = centre_of([faces[place].embedding for place in group.items()])
        group = _like(centre, faces, taken) or group
    return group


def _like(centre: Embedding, faces: Mapping[Place, Face], taken: Set[Place]) -> dict[int, int]:
    """By photo, the face most like the centre, where one is like it at all."""
    best: dict[int, tuple[float, int]] = {}
    for (photo, index), face in faces.items():
        alike = likeness(centre, face.embedding)
        if (photo, index) in taken or alike < SAME_PERSON:
            continue
        best[photo] = max(best.get(photo, (0.0, 0)), (alike, index))
    return {photo: index for photo, (_, index) in best.items()}


def _closeness(group: Mapping[int, int], faces: Mapping[Place, Face]) -> float:
    embeddings = [faces[place].embedding for place in group.items()]
    centre = centre_of(embeddings)
    return sum(likeness(centre, embedding) for embedding in embeddings)
