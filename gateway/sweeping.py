"""What nobody asks about is looked after all the same: every open job, again and again.

A job whose gateway died before it was sent, whose callback was lost, or whose webhook is due is
found by its open marker. Any number of gateways may sweep at once: each step is a compare-and-swap.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Final

from errors import CodedError
from gateway.jobs import Jobs, Presign, view, was_refused
from gateway.webhooks import Webhooks
from lora_registry.job_records import JobNotFound

log = logging.getLogger(__name__)

INTERVAL_S: Final = 5.0
_PAUSE_S: Final = 0.02  # between two jobs: callers come first
_ORPHANED_S: Final = 600.0  # a marker whose record was never written


class Sweep:
    """One gateway's share of the looking after."""

    def __init__(self, jobs: Jobs, webhooks: Webhooks, presign: Presign) -> None:
        self._jobs = jobs
        self._webhooks = webhooks
        self._presign = presign

    async def run(self, interval_s: float = INTERVAL_S) -> None:
        """Sweep until cancelled; a failing bucket or RunPod is tried again."""
        while True:
            try:
                await self.once()
            except CodedError as error:
                log.warning("sweep failed", extra={"reason": str(error)})
            await asyncio.sleep(interval_s)

    async def once(self) -> None:
        """Look at every open job once."""
        for job_id, since in await asyncio.to_thread(lambda: list(self._jobs.records.open_ids())):
            await asyncio.sleep(_PAUSE_S)
            try:
                await self.visit(job_id)
            except JobNotFound:
                if time.time() - since > _ORPHANED_S:
                    await asyncio.to_thread(self._jobs.records.settle, job_id)
            except CodedError as error:
                log.warning("job not settled", extra={"job_id": job_id, "reason": str(error)})

    async def visit(self, job_id: str) -> None:
        """Take the next step of one job. Raises JobNotFound, EndpointUnavailable, StoreError."""
        record, _ = await self._jobs.look(await self._jobs.get(job_id))
        if not record.final:
            return
        if record.webhook is not None and not was_refused(record):
            body = {
                "type": f"job.{record.state}",
                "timestamp": datetime.now(UTC).isoformat(),
                "data": view(record, None, self._presign),
            }
            record = await self._webhooks.deliver(record, body)
            if record.webhook is not None and record.webhook.next_at is not None:
                return
        await asyncio.to_thread(self._jobs.records.settle, job_id)


@contextlib.asynccontextmanager
async def sweeping(sweep: Sweep) -> AsyncIterator[None]:
    """Sweep while the block runs."""
    task = asyncio.create_task(sweep.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
