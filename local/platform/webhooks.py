"""Telling a customer's webhook that a job ended: one POST, and two more when it is not answered."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from local.platform.jobs import Job

log = logging.getLogger(__name__)
ATTEMPTS: Final = 3  # documented: "will retry up to 2 more times with a 10-second delay"


class Webhooks:
    """Deliveries in flight; leaving the context ends what is left.

    Args:
        status: what to send of a job: the same document as `/status`.
        delay_s: pause between attempts.
        timeout_s: how long one attempt may take.
    """

    def __init__(
        self, status: Callable[[Job], dict[str, Any]], *, delay_s: float, timeout_s: float = 10.0
    ) -> None:
        self.answers: Counter[str] = Counter()
        self._status = status
        self._delay_s = delay_s
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=self._timeout)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()

    def announce(self, job: Job) -> None:
        """Start delivering the end of a job, if it asked for that."""
        if job.submission.webhook is None:
            return
        task = asyncio.create_task(self._deliver(job.submission.webhook, self._status(job)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, url: str, document: dict[str, Any]) -> None:
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(self._delay_s)
            if await self._post(url, document):
                return

    async def _post(self, url: str, document: dict[str, Any]) -> bool:
        try:
            async with self._session.post(url, json=document) as response:
                self.answers[str(response.status)] += 1
                return response.ok
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self.answers["unreachable"] += 1
            log.warning("webhook unreachable", extra={"url": url, "error": str(error)})
            return False
