"""Parts of one transfer in threads of their own, while the calling thread watches over them."""

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Final, Self, TypeVar

T = TypeVar("T")
CheckCancelled = Callable[[], None]

_CHECK_S: Final = 0.1
_GRACE_S: Final = 0.4


class TransferPool:
    """A pool for one transfer; leaving it never waits for a request that hangs.

    A thread that hangs in a request finds `stop` set when its timeout ends it, and does no more.

    Args:
        check_cancelled: called between parts, ten times a second; what it raises ends the transfer.
    """

    def __init__(self, threads: int, check_cancelled: CheckCancelled | None = None) -> None:
        self.stop = threading.Event()
        self._check_cancelled = check_cancelled
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="transfer")
        self._stragglers: set[Future[Any]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def run(self, requests: Sequence[Callable[[], T]]) -> list[T]:
        """The answers in order; raises the first failure, or what `check_cancelled` raises."""
        futures = [self._pool.submit(request) for request in requests]
        pending = set(futures)
        try:
            while pending:
                if self._check_cancelled is not None:
                    self._check_cancelled()
                done, pending = wait(pending, timeout=_CHECK_S, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
        except BaseException:
            self._end(pending)
            raise
        return [future.result() for future in futures]

    def clean_up(self, undo: Callable[[], None]) -> None:
        """Call `undo` now, and once more when a part that still hangs has ended.

        It runs beside the caller, who waits for it no longer than half a second.
        """
        for straggler in self._stragglers:
            straggler.add_done_callback(lambda _: undo())
        thread = threading.Thread(target=undo, name="transfer-undo")
        thread.start()
        thread.join(_GRACE_S)

    def _end(self, pending: Iterable[Future[Any]]) -> None:
        self.stop.set()
        running = {future for future in pending if not future.cancel()}
        self._stragglers = wait(running, timeout=_GRACE_S).not_done
