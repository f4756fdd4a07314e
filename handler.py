"""The door: start ComfyUI, read the settings, open the Worker, hand it to RunPod's loop."""

import asyncio
import contextlib
import logging
import signal
import sys
from typing import Any, Literal

from lora_registry.store import StoreError
from worker import bridge, logs
from worker.admission import Admission
from worker.errors import InvalidSettings, WorkerError
from worker.service import Worker
from worker.settings import Settings
from worker.stopping import ShutdownHook
from workflows.errors import WorkflowError


def main() -> int:
    """Run the worker until RunPod ends it; 2 when it cannot start, with one line per reason."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the SDK puts its own here later
    try:
        settings = Settings.from_environment()
        secret = settings.s3_secret_access_key.get_secret_value()
        logs.configure(log_style(settings), settings.log_level, secrets=(secret,))
        with Worker(settings) as worker:
            serve(worker)
    except InvalidSettings as error:
        sys.stderr.write(f"The worker cannot start:\n{error}\n")
        return 2
    except (WorkerError, WorkflowError, StoreError) as error:
        sys.stderr.write(f"The worker cannot start: {error}\n")
        return 2
    return 0


def log_style(settings: Settings) -> Literal["json", "text"]:
    """Text for a person at a terminal, JSON lines for everything else."""
    if settings.log_format != "auto":
        return settings.log_format
    return "text" if sys.stderr.isatty() else "json"


def serve(worker: Worker) -> None:
    """Import the SDK while ComfyUI starts (2 to 3 s of it), then take jobs once it is ready."""
    with worker.boot_phase("sdk"):
        import runpod  # noqa: PLC0415 - after ComfyUI's start, which takes longer
        from runpod.http_client import AsyncClientSession  # noqa: PLC0415
        from runpod.serverless.modules import rp_scale  # noqa: PLC0415
        from runpod.serverless.modules.rp_http import send_result  # noqa: PLC0415
        from runpod.serverless.modules.rp_logger import RunPodLogger  # noqa: PLC0415

    async def post(job: dict[str, Any], update: dict[str, Any]) -> None:
        if not worker.settings.on_platform:
            logging.getLogger("progress").info("progress", extra=update)
            return
        async with AsyncClientSession() as session:
            await send_result(session, {"status": "IN_PROGRESS", "output": update}, job)

    RunPodLogger().set_level(worker.settings.runpod_log_level)
    worker.wait_ready()
    admission = Admission(worker.schedule)
    slots = (
        admission.slots
        if admission.install(rp_scale, runpod.__version__)
        else worker.settings.concurrency
    )
    shutdown = ShutdownHook(on_stop=admission.close)

    def concurrency(_current: int) -> int:
        shutdown.install()  # the SDK calls this in its loop, behind its own signal handler
        return slots

    with contextlib.suppress(asyncio.CancelledError):  # the end that SIGTERM makes
        runpod.serverless.start(
            {
                "handler": bridge.job_handler(worker, post, on_replace=admission.close),
                "concurrency_modifier": concurrency,
            }
        )


if __name__ == "__main__":
    sys.exit(main())
