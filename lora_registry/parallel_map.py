"""Many small requests side by side, in order, in memory that does not grow with their number."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Final, TypeVar

WORKERS: Final = 16
_IN_FLIGHT: Final = 2 * WORKERS

T = TypeVar("T")
R = TypeVar("R")


def parallel_map(action: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Like `map`, sixteen at a time and never more than 32 ahead of the one that consumes.

    What an action raises is raised in its place; the ones under way are waited for then.
    """
    remaining = iter(items)
    with ThreadPoolExecutor(WORKERS) as workers:
        flying: deque[Future[R]] = deque(
            workers.submit(action, item) for item in islice(remaining, _IN_FLIGHT)
        )
        try:
            while flying:
                yield flying.popleft().result()
                flying.extend(workers.submit(action, item) for item in islice(remaining, 1))
        finally:
            for future in flying:
                future.cancel()
