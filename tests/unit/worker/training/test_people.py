"""Which strip of a group photo shows nobody but the subject."""

import pytest

from worker.likeness.faces import Face, Sight
from worker.training.people import strip_of


def face(left: int, top: int = 200, side: int = 100) -> Face:
    return Face((left, top, left + side, top + side), (0.0,))


def sight(*faces: Face, width: int = 1600, height: int = 1000) -> Sight:
    return Sight(width, height, faces)


def test_the_strip_reaches_from_neighbour_to_neighbour() -> None:
    subject = face(700)
    found = strip_of(sight(subject, face(100), face(1200)), subject, 512)
    assert found == (200, 0, 1200, 1000)


def test_nobody_else_is_no_reason_to_crop() -> None:
    subject = face(700)
    assert strip_of(sight(subject), subject, 512) is None
    assert strip_of(sight(subject, face(100, side=30)), subject, 512) is None


@pytest.mark.parametrize(
    ("other", "least"),
    [(face(710, top=500), 512), (face(830), 512), (face(1000), 1100)],
    ids=["below", "cheek to cheek", "too narrow to train on"],
)
def test_what_cannot_be_parted_is_left_whole(other: Face, least: int) -> None:
    subject = face(700)
    assert strip_of(sight(subject, other), subject, least) is None


def test_a_strip_is_not_much_higher_than_wide_and_has_the_face() -> None:
    subject = face(200, top=1500)
    left, top, right, bottom = strip_of(sight(subject, face(900), height=4000), subject, 512) or (
        0,
        0,
        0,
        0,
    )
    assert (left, right) == (0, 900)
    assert bottom - top == 1620
    assert (top < 1500, bottom > 1600) == (True, True)
