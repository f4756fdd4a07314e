from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_registry import layout
from lora_registry.errors import InvalidRequest

TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - the zone comes from timezones


@pytest.mark.parametrize("wrong", ["", "-a", "A", "a/b", "..", "a" * 65, "a\n", "é"])
def test_character_ids_are_checked_before_they_become_keys(wrong: str) -> None:
    with pytest.raises(InvalidRequest, match="character_id"):
        layout.record_key(wrong)


@pytest.mark.parametrize("wrong", ["", "..", "a/b", ".a", "a" * 129, "a\n"])
def test_version_ids_are_checked_before_they_become_keys(wrong: str) -> None:
    with pytest.raises(InvalidRequest, match="version"):
        layout.version_key("mira", wrong)


@given(TIMES, st.text(max_size=200))
def test_a_version_id_is_one_whatever_the_job_is_called(at: datetime, job_id: str) -> None:
    version = layout.version_id(at, job_id)
    layout.version_key("mira", version)
    assert layout.made_by(version, job_id)
    assert layout.made_at(version) == at.replace(microsecond=at.microsecond // 1000 * 1000)


@given(TIMES, st.text(max_size=100), st.text(max_size=100))
def test_two_jobs_never_share_a_version(at: datetime, one: str, other: str) -> None:
    assert layout.made_by(layout.version_id(at, one), other) == (one == other)


@given(TIMES, TIMES)
def test_version_ids_sort_by_time(one: datetime, other: datetime) -> None:
    if abs(one - other) >= timedelta(milliseconds=1):
        ids = layout.version_id(one, "z"), layout.version_id(other, "a")
        assert (ids[0] < ids[1]) == (one < other)


@given(TIMES, TIMES)
def test_markers_sort_the_newest_first(one: datetime, other: datetime) -> None:
    if abs(one - other) >= timedelta(milliseconds=1):
        keys = layout.newest_key("a", one), layout.newest_key("z", other)
        assert (keys[0] < keys[1]) == (one > other)


def test_a_marker_names_its_character() -> None:
    assert layout.newest_of(layout.newest_key("mira-2_b", datetime.now(UTC))) == "mira-2_b"


def test_an_id_that_carries_no_time_has_none() -> None:
    assert layout.made_at("v1") is None
    assert layout.made_at("20269999T999999999-job") is None
