"""The seeds of candidates."""

import itertools

from worker.generation.likeness import MAX_SEED, seeds
from workflows.template import Limits


def first(count: int, seed: int, limits: Limits | None = None) -> list[int]:
    return list(itertools.islice(seeds(seed, limits), count))


def test_seeds_follow_one_another() -> None:
    assert first(3, 41) == [41, 42, 43]


def test_after_the_largest_comes_the_smallest() -> None:
    assert first(3, MAX_SEED) == [MAX_SEED, 0, 1]
    assert first(4, 9, Limits(minimum=1, maximum=10)) == [9, 10, 1, 2]


def test_a_seed_that_a_job_gave_is_kept() -> None:
    assert first(2, 2**64 - 1) == [2**64 - 1, 0]
