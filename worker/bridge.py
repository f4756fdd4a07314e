"""Between RunPod's event loop and the worker's threads: cancels reach jobs, updates keep order."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from worker.cancel import CancelToken
from worker.service import Worker
from worker.settings import Settings

log = logging.getLogger(__name__)

Post = Callable[[dict[str, Any], dict[str, Any]], Awaitable[None]]
"""Delivers one progress update of a job: `await post(job, update)`."""

SEND_TIMEOUT_S: Final = 4.0
STOP_TIMEOUT_S: Final = 30.0


def job_handler(
    worker: Worker, post: Post, on_replace: Callable[[], None] = lambda: None
) -> Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]:
    """The handler for `runpod.serverless.start`: async, since only such a one can be cancelled.

    A sync handler would block the SDK's loop, stop signals included, until it returns (measured
    with runpod 1.12.0).

    Args:
        worker: serves the jobs.
        post: delivers progress.
        on_replace: called as a result asks the platform for another worker.
    """

    async def handle(job: dict[str, Any]) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        cancel = CancelToken()

        def send(update: dict[str, Any]) -> None:
            future = asyncio.run_coroutine_threadsafe(_posted(post, job, update), loop)
            future.result(SEND_TIMEOUT_S + 1)

        running = asyncio.ensure_future(
            asyncio.to_thread(
                worker.run, str(job.get("id", "")), job.get("input"), cancel=cancel, send=send
            )
        )
        try:
            result = await asyncio.shield(running)
        except asyncio.CancelledError:
            cancel.cancel()
            await asyncio.wait([running], timeout=STOP_TIMEOUT_S)
            log.info("job cancelled", extra={"job_id": job.get("id"), "ended": running.done()})
            raise
        if result.get("refresh_worker"):
            on_replace()
        _keep_locally(worker.settings, result)
        return result

    return handle


def _keep_locally(settings: Settings, result: dict[str, Any]) -> None:
    if settings.local_result_file is not None and not settings.on_platform:
        settings.local_result_file.write_text(json.dumps(result), encoding="utf-8")


async def _posted(post: Post, job: dict[str, Any], update: dict[str, Any]) -> None:
    await asyncio.wait_for(post(job, update), SEND_TIMEOUT_S)
