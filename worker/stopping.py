"""A quick end at SIGTERM.

The SDK (runpod 1.12.0, `rp_scale.JobScaler`) finishes the running jobs at SIGTERM and takes no new
one, but then waits for its two open polls, which the platform may hold for longer than a container
is given to end (20.7 s in the image test; the SDK allows 90 s). They are ended here as soon as no
job runs any more.
"""

import asyncio
import logging
import signal
from collections.abc import Callable
from typing import Any, Final

log = logging.getLogger(__name__)

_RUNS_JOBS: Final = "JobScaler.run_jobs"
_POLLS: Final = frozenset({"JobScaler.get_jobs", "JobScaler.monitor_stop_signals"})


class ShutdownHook:
    """Ends the SDK's polls once its jobs are done; `runpod.serverless.start` is then cancelled."""

    def __init__(self, on_stop: Callable[[], None] = lambda: None) -> None:
        self._on_stop = on_stop
        self._installed = False
        self._ending: asyncio.Task[None] | None = None

    def install(self) -> None:
        """Take over SIGTERM; the SDK's own handler still runs first. A second call does nothing.

        Called from the SDK's loop, thus in the main thread and behind the SDK's own set-up; its
        `concurrency_modifier` is the only place that is.
        """
        before = signal.getsignal(signal.SIGTERM)
        if self._installed or not callable(before):
            return
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._begin, before)
        self._installed = True

    def _begin(self, before: Callable[[int, Any], Any]) -> None:
        log.info("stopping")
        self._on_stop()
        before(signal.SIGTERM, None)
        self._ending = asyncio.get_running_loop().create_task(_end_polls())


async def _end_polls() -> None:
    tasks = {_name(task): task for task in asyncio.all_tasks()}
    if runs_jobs := tasks.get(_RUNS_JOBS):
        await asyncio.wait([runs_jobs])
    for name in _POLLS & tasks.keys():
        tasks[name].cancel()


def _name(task: "asyncio.Task[Any]") -> str:
    return getattr(task.get_coro(), "__qualname__", "")
