"""Faces as numbers: likeness, centres, and whose face is whose."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.likeness.faces import (
    Embedding,
    Face,
    centre_of,
    left_out_likeness,
    likeness,
    matched,
)

NUMBERS = st.tuples(*[st.floats(-0.3, 0.3)] * 4)


def face(*embedding: float) -> Face:
    return Face((0, 0, 100, 100), embedding)


@given(NUMBERS, NUMBERS)
def test_likeness_is_a_number_from_0_to_1_and_the_same_both_ways(
    one: Embedding, other: Embedding
) -> None:
    assert 0 <= likeness(one, other) <= 1
    assert likeness(one, other) == likeness(other, one)
    assert likeness(one, one) == 1


def test_a_face_does_not_flatter_itself() -> None:
    faces = [(0.0, 0.0), (0.0, 0.2), (1.0, 0.0)]
    assert left_out_likeness(faces, 2) == pytest.approx(max(0, 1 - math.hypot(1, 0.1)))
    assert left_out_likeness([(0.0, 0.0)], 0) is None
    assert centre_of(faces) == pytest.approx((1 / 3, 0.2 / 3))


def test_each_person_gets_a_face_of_their_own() -> None:
    mira, tom = (0.0, 0.0), (1.0, 0.0)
    assert matched([mira, tom], [face(1.0, 0.1), face(0.1, 0.0)]) == pytest.approx((0.9, 0.9))
    assert matched([mira], [face(1.0, 0.0), face(0.2, 0.0)]) == pytest.approx((0.8,))


def test_two_people_mixed_up_score_low() -> None:
    mira, tom = (0.0, 0.0), (1.0, 0.0)
    blend = matched([mira, tom], [face(0.5, 0.0), face(0.5, 0.0)])
    assert blend == pytest.approx((0.5, 0.5))
    twice = matched([mira, tom], [face(0.0, 0.0), face(0.1, 0.0)])
    assert min(one for one in twice if one is not None) == pytest.approx(0.1)


def test_a_person_without_a_face_has_no_likeness() -> None:
    mira, tom = (0.0, 0.0), (1.0, 0.0)
    his = matched([mira, tom], [face(0.9, 0.0)])
    assert his[0] is None
    assert his[1] == pytest.approx(0.9)
    assert matched([mira, tom], []) == (None, None)
