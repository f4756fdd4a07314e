"""What the worker adds to ComfyUI's own time, and what it holds in memory.

The stand-in at zero GPU time with pictures of 1.5 MB, a real S3 server, all on loopback. Prints
JSON. The measured process is the worker and this file, nothing else: servers run beside it.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.tuned_boto3 import tuned_boto3
from local.lora_file import write_demo_lora
from local.stack import Stack
from lora_registry.versions import NewVersion
from worker.cancel import CancelToken
from worker.service import Worker
from worker.settings import Settings
from worker.storage_settings import storage_options

PICTURE_BYTES: Final = 1_500_000
RUNS: Final = 40
UNCOUNTED: Final = 3  # the first ones open connections
MIB: Final = 1024 * 1024
JOB: Final = {"task": "image", "prompt": "harness", "character_id": "demo", "steps": 1}


def main() -> int:
    """Start the servers, measure in a process of its own, print what it says."""
    if sys.argv[1:] == ["measure"]:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(Path(folder)), indent=2))
        return 0
    with Stack() as stack:
        stack.register_demo()
        environment = stack.environment(
            COMFYUI_ARGS=f"--stand-in-picture-bytes {PICTURE_BYTES}", LOG_LEVEL="WARNING"
        )
        command = [sys.executable, "-m", "benchmarks.image", "measure"]
        return subprocess.run(command, env=environment, check=False, timeout=900).returncode


def measure(folder: Path) -> dict[str, Any]:
    """All figures of one worker."""
    settings = Settings.from_environment()
    with Worker(settings) as worker:
        worker.resources.engine.wait_ready()
        begun = time.perf_counter()
        worker.wait_ready()
        ready_s = time.perf_counter() - begun
        one, four = overhead(worker, 1), overhead(worker, 4)
        rss = rss_mib()
        return {
            "ready_after_comfyui_s": round(ready_s, 3),
            "added_ms_one_picture": one,
            "added_ms_four_pictures": four,
            "registry_warm": registry_warm(worker),
            "cache_hit_ms": cache_hit(worker),
            "cache_miss": cache_miss(worker, folder),
            "rss_mib": rss,
            "rss_rise_of_500_mib_upload_mib": upload_rise(worker, folder),
        }


def quantiles(values: list[float]) -> dict[str, float]:
    """Median and 95th percentile."""
    return {
        "p50": round(statistics.median(values), 2),
        "p95": round(statistics.quantiles(values, n=20)[18], 2),
    }


def overhead(worker: Worker, count: int) -> dict[str, float]:
    """Milliseconds of a job beyond ComfyUI's own execution; upload and manifest are in it."""
    added = []
    for number in range(-UNCOUNTED, RUNS):
        job = JOB | {"count": count, "seed": number + UNCOUNTED}
        result = worker.run(uuid.uuid4().hex, job, cancel=CancelToken(), send=lambda _: None)
        timings = result["timings_ms"]
        if number >= 0:
            added.append(timings["total"] - timings["execution"])
    return quantiles(added)


def registry_warm(worker: Worker) -> dict[str, Any]:
    """A read of a head that this worker knows: how many requests, which status, how long."""
    registry, statuses = worker.resources.registry, list[int]()
    events = worker.resources.store._client.meta.events  # noqa: SLF001 - looks, changes nothing

    def note(response_dict: dict[str, Any], **_: Any) -> None:
        statuses.append(response_dict["status_code"])

    registry.resolve("demo")
    events.register("before-parse.s3", note)
    registry.resolve("demo")
    events.unregister("before-parse.s3", note)
    return {"statuses": statuses, "ms": timed(lambda: registry.resolve("demo"))}


def cache_hit(worker: Worker) -> dict[str, float]:
    """A LoRA that is there already."""
    version = worker.resources.registry.resolve("demo")

    def hit() -> None:
        with worker.resources.loras.lease(version):
            pass

    return timed(hit)


def timed(call: Callable[[], object], runs: int = 200) -> dict[str, float]:
    """Milliseconds of a call."""
    took = []
    for _ in range(runs):
        begun = time.perf_counter()
        call()
        took.append((time.perf_counter() - begun) * 1000)
    return quantiles(took)


def cache_miss(worker: Worker, folder: Path) -> dict[str, Any]:
    """Fetching a LoRA of 172 MiB into the cache, against boto3's tuned download of the same object.

    In turns on the same server, so that the machine's mood hits both.
    """
    weights = folder / "large.safetensors"
    write_demo_lora(weights, rank=32)
    new = NewVersion("large", "harness", weights, "sdxl", "kohya", 32, "xyz")
    worker.resources.registry.add_version(new)
    version = worker.resources.registry.resolve("large")
    alone = tuned_boto3(storage_options(worker.settings))
    ours_s, boto3_s = [], []
    for number in range(6):
        for path in worker.settings.loras_folder.glob(f"{version.sha256}*"):
            path.unlink()
        begun = time.perf_counter()
        with worker.resources.loras.lease(version):
            ours_s.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        alone(version.key, folder / f"alone-{number}")
        boto3_s.append(time.perf_counter() - begun)
    ratios = [b / a for a, b in zip(ours_s, boto3_s, strict=True)]
    return {
        "bytes": weights.stat().st_size,
        "ours_s": round(statistics.median(ours_s), 3),
        "boto3_tuned_s": round(statistics.median(boto3_s), 3),
        "speed_against_boto3": round(statistics.median(ratios), 3),
        "note": "ours hashes, checks the header and renames; boto3 only downloads",
    }


def upload_rise(worker: Worker, folder: Path) -> float:
    """How much an output of 500 MiB on its way to the bucket adds to the resident memory."""
    path = folder / "clip.mp4"
    with path.open("wb") as file:
        for _ in range(500):
            file.write(b"\x00" * MIB)
    before, peak, done = rss_mib(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, rss_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    worker.resources.store.upload(path, "harness/clip.mp4", "video/mp4")
    done.set()
    watcher.join()
    return round(peak - before, 1)


def rss_mib() -> float:
    """Resident memory of this process."""
    return round(psutil.Process().memory_info().rss / MIB, 1)


if __name__ == "__main__":
    sys.exit(main())
