"""What queued jobs leave of the card: through RunPod's own loop, in a process of its own."""

import sys
import time
from typing import Any, Final

from benchmarks.gpu.bench import Bench, picture_job
from benchmarks.gpu.memory import watched
from benchmarks.throughput import one_round, wait_ready
from local.platform.pods import PodOptions
from local.platform.running import running
from local.platform.server import PlatformOptions
from local.ports import free_ports
from local.stack import ROOT

_READY_TIMEOUT_S: Final = 600.0


def measure(bench: Bench) -> dict[str, Any]:
    """Seconds from a container's start to a worker that takes jobs; then the gaps between jobs.

    The worker serves every task, training too, as `worker-full` does; the first round loads models
    and is not counted.
    """
    [port] = free_ports(1)
    environment = bench.environment("queued", COMFYUI_PORT=str(port))
    pods = PodOptions(
        argv=(sys.executable, "-u", str(ROOT / "handler.py")),
        environment=lambda _number: environment,
        folder=ROOT,
        logs=bench.stack.folder,
    )
    jobs = [picture_job(bench) for _ in range(bench.sizes.jobs)]
    begun = time.monotonic()
    with running(PlatformOptions(pods=pods)) as platform:
        wait_ready(platform, 1, _READY_TIMEOUT_S)
        ready_s = round(time.monotonic() - begun, 2)
        one_round(platform, [picture_job(bench) for _ in range(2)], [port])
        with watched() as peak:
            usage = one_round(platform, jobs, [port])
    return {
        "container_to_ready_s": ready_s,
        "jobs": len(jobs),
        **usage,
        "peak_vram_mib": peak.vram,
    }
