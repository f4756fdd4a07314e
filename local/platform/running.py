"""A platform in a thread of its own, for callers that are not asynchronous: tests, soak, bench."""

import asyncio
import os
import signal
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

from local.platform.client import EndpointClient
from local.platform.server import Platform, PlatformOptions, platform


class RunningPlatform:
    """A platform that is up: its client, and what is done to its workers from outside.

    Args:
        inner: the platform.
        loop: the event loop it runs in, in another thread.
    """

    def __init__(self, inner: Platform, loop: asyncio.AbstractEventLoop) -> None:
        self.client = EndpointClient(inner.url)
        self._inner = inner
        self._loop = loop

    @property
    def worker_ids(self) -> list[str]:
        """The workers, oldest first."""
        return [pod.id for pod in self._inner.fleet.pods]

    def scale(self, workers: int, *, timeout_s: float = 60.0) -> None:
        """Change the number of workers; waits for those that stop."""
        scaling = self._inner.fleet.scale(workers)
        asyncio.run_coroutine_threadsafe(scaling, self._loop).result(timeout_s)

    def pid(self, worker_id: str) -> int | None:
        """The process id of a worker; None between two lives of it, or when it was retired."""
        return next((pod.pid for pod in self._inner.fleet.pods if pod.id == worker_id), None)

    def stop(self, worker_id: str, *, timeout_s: float = 60.0) -> None:
        """Stop a worker as the platform does: no more jobs, SIGTERM, the grace; it starts anew."""
        pod = next(pod for pod in self._inner.fleet.pods if pod.id == worker_id)
        stopping = self._inner.fleet.stop(pod)
        asyncio.run_coroutine_threadsafe(stopping, self._loop).result(timeout_s)

    def kill(self, worker_id: str) -> None:
        """SIGKILL to a worker's own process, as a crash would end it. It must be running."""
        pid = self.pid(worker_id)
        if pid is None:
            raise LookupError(f"{worker_id} is not running")
        os.kill(pid, signal.SIGKILL)


@contextmanager
def running(options: PlatformOptions, *, stop_timeout_s: float = 90.0) -> Iterator[RunningPlatform]:
    """Serve in a thread until the block ends. Raises what the start, or the stop, raised."""
    started: Future[tuple[RunningPlatform, asyncio.Event]] = Future()

    async def serve() -> None:
        stop = asyncio.Event()
        async with platform(options) as inner:
            started.set_result((RunningPlatform(inner, asyncio.get_running_loop()), stop))
            await stop.wait()

    with ThreadPoolExecutor(1, thread_name_prefix="platform") as pool:
        finished = pool.submit(lambda: asyncio.run(serve()))
        either: list[Future[Any]] = [started, finished]
        wait(either, return_when=FIRST_COMPLETED)
        if not started.done():
            finished.result()
        served, stop = started.result()
        try:
            yield served
        finally:
            served._loop.call_soon_threadsafe(stop.set)  # noqa: SLF001  its own module
            finished.result(stop_timeout_s)
