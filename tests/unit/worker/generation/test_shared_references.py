"""Whose photo goes where, when several characters share a workflow's places."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_registry.changes import instant_record, referring
from lora_registry.character import CharacterRecord, Reference
from worker.generation.references import shared


def character(number: int, photos: int) -> CharacterRecord:
    references = tuple(
        Reference(
            key=f"characters/c{number}/references/{photo}.jpg",
            sha256=f"{photo:064x}",
            size=1,
            content_type="image/jpeg",
            width=1,
            height=1,
        )
        for photo in range(photos)
    )
    return referring(instant_record(f"c{number}", datetime.now(UTC)), references)


def places(photos: list[int], inputs: int) -> list[list[str]]:
    records = [character(number, count) for number, count in enumerate(photos)]
    found = shared(records, [f"r{number}" for number in range(inputs)])
    return [list(found[record.character_id]) for record in records]


@pytest.mark.parametrize(
    ("photos", "inputs", "expected"),
    [
        ([5], 3, [["r0", "r1", "r2"]]),
        ([1], 3, [["r0"]]),
        ([5, 1], 4, [["r0", "r1", "r2"], ["r3"]]),
        ([5, 5], 3, [["r0", "r1"], ["r2"]]),
        ([1, 1, 1], 2, [["r0"], ["r1"], []]),
        ([0, 2], 4, [[], ["r0", "r1"]]),
        ([2], 0, [[]]),
    ],
)
def test_everybody_has_a_first_before_anybody_has_a_second(
    photos: list[int], inputs: int, expected: list[list[str]]
) -> None:
    assert places(photos, inputs) == expected


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(0, 8))
def test_no_place_is_given_twice_and_none_is_wasted(photos: list[int], inputs: int) -> None:
    taken = [name for names in places(photos, inputs) for name in names]
    assert taken == [f"r{number}" for number in range(min(inputs, sum(photos)))]
