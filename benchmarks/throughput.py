"""GPU idle gaps and utilisation for queued jobs, through the SDK's own loop: `make harness`.

Every job uses another character, so that cold means one LoRA download a job. The stand-in ComfyUI
takes a set time for each prompt, in place of a GPU; its history says when each one began and
ended. Prints one JSON document.
"""

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import requests

from local.platform.ledger import spread
from local.platform.pods import PodOptions
from local.platform.running import RunningPlatform, running
from local.platform.server import PlatformOptions
from local.ports import free_ports
from local.registering import register_characters
from local.stack import ROOT, Stack

STEPS: Final = 4
PICTURE_BYTES: Final = 1_500_000
READY_TIMEOUT_S: Final = 120.0
ROUND_TIMEOUT_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Case:
    """One configuration: how many workers, and how many jobs each takes at a time."""

    workers: int
    in_flight: int
    tasks: str = "image,health"
    admission: bool = True


@dataclass(frozen=True, slots=True)
class Load:
    """What is queued: how many jobs, and how much GPU time each takes."""

    jobs: int
    gpu_ms: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every case, cold then warm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=50)
    parser.add_argument("--gpu-ms", type=float, default=200, help="GPU time of each job")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--in-flight", type=int, nargs="+", default=[4])
    parser.add_argument("--train", action="store_true", help="workers that serve `train` too")
    parser.add_argument("--before", action="store_true", help="jobs taken as the SDK does, first")
    given = parser.parse_args(argv)
    load = Load(given.jobs, given.gpu_ms)
    tasks = "image,train,health" if given.train else "image,health"
    cases = [
        Case(workers, flight, tasks, admission)
        for flight in given.in_flight
        for workers in given.workers
        for admission in ((False, True) if given.before else (True,))
    ]
    with Stack() as stack:
        register_characters(stack, [f"harness-{number}" for number in range(load.jobs)])
        results = [result for case in cases for result in measured(stack, case, load)]
    print(json.dumps({"jobs": load.jobs, "gpu_ms": load.gpu_ms, "cases": results}, indent=2))
    return 0


def measured(stack: Stack, case: Case, load: Load) -> Iterator[dict[str, Any]]:
    """Two rounds of the same jobs on fresh workers: an empty LoRA cache, then a full one."""
    with tempfile.TemporaryDirectory(prefix="harness-") as scratch:
        ports = free_ports(case.workers)
        options = platform_options(stack, case, load, Path(scratch), ports)
        with running(options) as platform:
            wait_ready(platform, case.workers)
            for number, cache in enumerate(("cold", "warm")):
                yield {
                    "workers": case.workers,
                    "in_flight": case.in_flight,
                    "tasks": case.tasks,
                    "admission": case.admission,
                    "cache": cache,
                    **one_round(platform, jobs_of(load, seed=number * load.jobs), ports),
                }


def platform_options(
    stack: Stack, case: Case, load: Load, scratch: Path, ports: Sequence[int]
) -> PlatformOptions:
    """Workers with folders of their own and one LoRA cache, which none of them has filled."""
    faults = scratch / "faults.json"
    faults.write_text(json.dumps({"step_latency_s": load.gpu_ms / 1000 / STEPS}))

    def environment(number: int) -> Mapping[str, str]:
        return stack.environment(
            WORK_DIR=str(scratch / f"worker-{number}"),
            LORA_CACHE_DIR=str(scratch / "loras"),
            WORKER_TASKS=case.tasks,
            JOBS_IN_FLIGHT=str(case.in_flight),
            COMFYUI_PORT=str(ports[number - 1]),
            COMFYUI_ARGS=f"--stand-in-faults {faults} --stand-in-picture-bytes {PICTURE_BYTES}",
            LOG_LEVEL="WARNING",
        )

    # Without admission it is as with an SDK that the gate does not know.
    code = (
        "import sys, handler, worker.admission as a; a.SDK_VERSION = 'x'; sys.exit(handler.main())"
    )
    before = (sys.executable, "-u", "-c", code)
    argv = (sys.executable, "-u", str(ROOT / "handler.py")) if case.admission else before
    pods = PodOptions(argv=argv, environment=environment, folder=ROOT, logs=scratch)
    return PlatformOptions(pods=pods, workers=case.workers)


def wait_ready(platform: RunningPlatform, workers: int, timeout_s: float = READY_TIMEOUT_S) -> None:
    """Return when every worker waits for jobs."""
    deadline = time.monotonic() + timeout_s
    while platform.client.get("health")["workers"]["idle"] < workers:
        if time.monotonic() > deadline:
            raise TimeoutError(f"workers not ready: {platform.client.get('metrics')['pods']}")
        time.sleep(0.1)


def one_round(
    platform: RunningPlatform, jobs: Sequence[Mapping[str, Any]], ports: Sequence[int]
) -> dict[str, Any]:
    """Queue every job, wait for all, and read from ComfyUI when its GPU was busy."""
    for port in ports:
        url = f"http://127.0.0.1:{port}/history"
        requests.post(url, json={"clear": True}, timeout=10).raise_for_status()
    started = time.monotonic()
    ids = [platform.client.run(job) for job in jobs]
    statuses = [platform.client.wait(job_id, timeout_s=ROUND_TIMEOUT_S) for job_id in ids]
    wall_s = time.monotonic() - started
    failed = [status for status in statuses if status["status"] != "COMPLETED"]
    if failed:
        raise RuntimeError(f"{len(failed)} jobs failed, the first: {failed[0]}")
    return {"wall_s": round(wall_s, 2), **usage([busy_times(port) for port in ports])}


def jobs_of(load: Load, *, seed: int) -> list[dict[str, Any]]:
    """One job of each character; a seed used before would be answered from cache."""
    return [job(number, seed + number) for number in range(load.jobs)]


def job(number: int, seed: int) -> dict[str, Any]:
    """A small picture of one character."""
    return {
        "task": "image",
        "prompt": "portrait of {trigger}",
        "character_id": f"harness-{number}",
        "steps": STEPS,
        "width": 256,
        "height": 256,
        "seed": seed,
    }


def busy_times(port: int) -> list[tuple[float, float]]:
    """When each prompt of one ComfyUI began and ended, in milliseconds, in order."""
    history = requests.get(f"http://127.0.0.1:{port}/history", timeout=10).json()
    spans = []
    for entry in history.values():
        at = {name: data["timestamp"] for name, data in entry["status"]["messages"]}
        spans.append((at["execution_start"], at["execution_success"]))
    return sorted(spans)


def usage(workers: Sequence[Sequence[tuple[float, float]]]) -> dict[str, Any]:
    """Gaps between one prompt's end and the next one's start, and the share of time in use."""
    gaps, busy, span = [], 0.0, 0.0
    for spans in filter(None, workers):
        gaps += [later[0] - earlier[1] for earlier, later in itertools.pairwise(spans)]
        busy += sum(end - start for start, end in spans)
        span += spans[-1][1] - spans[0][0]
    return {"gpu_utilisation": round(busy / span, 3) if span else 0.0, "gap_ms": spread(gaps)}


if __name__ == "__main__":
    sys.exit(main())
