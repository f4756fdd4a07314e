"""Faces as numbers: how alike two are, whose face is whose. Pure.

A face is a point in a space of 128 numbers, made so that pictures of one person lie close together.
**Likeness** is 1 minus the distance of two points, not below 0: 1 is the same picture. Measured on
18 photos of six people: a photo's likeness to the centre of the same person's others is 0.51 or
more, to the centre of another's 0.32 or less (`benchmarks/likeness.py` measures again).
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

Embedding = tuple[float, ...]

SAME_PERSON: Final = 0.45
"""From this likeness on a face is that of the centre's person."""
OTHER_PERSON: Final = 0.36
"""Below this likeness it clearly is not; between the two a person has to look."""
SMALLEST_FACE: Final = 40
"""Pixels; below, a face says little: likeness falls by 0.26 from 269 to 37 pixels."""


@dataclass(frozen=True, slots=True)
class Face:
    """One face; the box is left, top, right, bottom in pixels, and may leave the picture."""

    box: tuple[int, int, int, int]
    embedding: Embedding

    @property
    def side(self) -> int:
        """The box's width in pixels; it is a square."""
        return self.box[2] - self.box[0]

    @property
    def judged(self) -> bool:
        """Whether it is large enough to say whose it is."""
        return self.side >= SMALLEST_FACE


@dataclass(frozen=True, slots=True)
class Sight:
    """What was found in one picture: its sides in pixels, its faces, the largest first.

    `faint` counts further places that remind of a face: turned away, half hidden, or none at all.
    """

    width: int
    height: int
    faces: tuple[Face, ...]
    faint: int = 0


def likeness(one: Embedding, other: Embedding) -> float:
    """How alike two faces are, 0 to 1."""
    return max(0.0, 1.0 - math.dist(one, other))


def centre_of(embeddings: Sequence[Embedding]) -> Embedding:
    """The mean of one or more faces."""
    return tuple(math.fsum(numbers) / len(embeddings) for numbers in zip(*embeddings, strict=True))


def left_out_likeness(embeddings: Sequence[Embedding], index: int) -> float | None:
    """A face's likeness to the centre of all the others; None where there is no other.

    A centre that the face itself is part of would flatter it, the more the fewer there are.
    """
    others = [*embeddings[:index], *embeddings[index + 1 :]]
    return likeness(embeddings[index], centre_of(others)) if others else None


def matched(centres: Sequence[Embedding], faces: Sequence[Face]) -> tuple[float | None, ...]:
    """Each person's likeness in one picture, no face counted for two: the best such matching.

    None for a person for whom no face is left. Mixed-up people score low: one face between two
    people is like neither, and a face twice leaves the other person the unlike one.
    """
    if not faces:
        return (None,) * len(centres)
    table = [[likeness(centre, face.embedding) for face in faces] for centre in centres]
    # At most 4 people and 12 faces: 11,880 ways. Where faces are too few, some have none.
    places: list[int | None] = [*range(len(faces)), *[None] * max(0, len(centres) - len(faces))]
    best = max(
        itertools.permutations(places, len(centres)),
        key=lambda way: math.fsum(
            row[place] for row, place in zip(table, way, strict=True) if place is not None
        ),
    )
    return tuple(
        None if place is None else row[place] for row, place in zip(table, best, strict=True)
    )
