import threading
from collections.abc import Iterator
from itertools import count, islice

import pytest

from lora_registry.parallel_map import parallel_map


def test_order_is_kept() -> None:
    assert list(parallel_map(lambda number: number * 2, range(200))) == list(range(0, 400, 2))


def test_it_never_runs_far_ahead() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in count():
            taken.append(number)
            yield number

    consumed = list(islice(parallel_map(lambda number: number, items()), 100))
    assert len(consumed) == 100
    assert len(taken) <= 100 + 32


def test_what_an_action_raises_is_raised_in_its_place() -> None:
    def action(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        return number

    before = threading.active_count()
    results = parallel_map(action, range(10))
    assert list(islice(results, 3)) == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert threading.active_count() <= before
