"""When the next job is asked for: a gate in front of the SDK's own fetch.

The SDK (runpod 1.12.0, `rp_scale.JobScaler.get_jobs`) sleeps a second whenever its slots are full,
and fills every free slot at once, whether or not another worker is idle. So it is given more slots
than are ever used, and asks through this gate, which opens when `GpuSchedule` wants another job.
One job is asked for at a time: what cannot be parsed takes no other job with it.

`rp_scale.get_job` is a name of the SDK's inside; where it is not what it was, nothing is touched
and the SDK decides as it always did.
"""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from worker.schedule import GpuSchedule

log = logging.getLogger(__name__)

Fetch = Callable[[Any, int], Awaitable[list[dict[str, Any]] | None]]

SDK_VERSION: Final = "1.12.0"
_LOOK_S: Final = 0.01
_CLOSED_PAUSE_S: Final = 0.05


class Admission:
    """The gate of one worker. Everything but `close` runs in the SDK's event loop."""

    def __init__(self, schedule: GpuSchedule) -> None:
        self._schedule = schedule
        self._fetch: Fetch | None = None
        self._closed = False

    @property
    def slots(self) -> int:
        """What the SDK is told: more than it can ever fill, a job in its queue counting twice."""
        return 2 * self._schedule.limit + 1

    def install(self, scaler: Any, version: str) -> bool:
        """Stand in front of the SDK's fetch.

        Args:
            scaler: the module `runpod.serverless.modules.rp_scale`.
            version: the SDK's.

        Returns:
            False, with a warning, where it is not the SDK that this was written for.
        """
        fetch = getattr(scaler, "get_job", None)
        known = callable(fetch) and list(inspect.signature(fetch).parameters) == [
            "session",
            "num_jobs",
        ]
        if version != SDK_VERSION or not known:
            log.warning("jobs are taken as the SDK does", extra={"runpod": version})
            return False
        self._fetch = fetch
        scaler.get_job = self.fetch
        return True

    def close(self) -> None:
        """Ask for no further job: this worker is being replaced, or ended."""
        self._closed = True

    async def fetch(self, session: Any, _num_jobs: int = 1) -> list[dict[str, Any]] | None:
        """The next job, once it is wanted. The SDK's loop takes None for "there is none"."""
        assert self._fetch is not None  # noqa: S101 - `install` sets it, nobody calls before
        while not self._closed and not self._schedule.wants_another():
            await asyncio.sleep(_LOOK_S)
        if self._closed:
            await asyncio.sleep(_CLOSED_PAUSE_S)
            return None
        asked = asyncio.ensure_future(self._fetch(session, 1))
        try:
            while not asked.done() and not self._closed:
                await asyncio.wait([asked], timeout=_CLOSED_PAUSE_S)
            if not asked.done():
                # What came now would be lost: the SDK's loop ends with the jobs it has.
                await asyncio.sleep(_CLOSED_PAUSE_S)
                return None
            jobs = asked.result()
        finally:
            asked.cancel()
        for job in jobs or ():
            self._schedule.admit(str(job.get("id", "")), job.get("input"))
        return jobs
