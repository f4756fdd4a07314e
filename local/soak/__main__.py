"""`python -m local.soak`: run it, audit it, print the counts as JSON; 1 when something is wrong."""

import argparse
import io
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from local.faults import FaultProxy
from local.lora_file import write_demo_lora
from local.platform.pods import PodOptions
from local.platform.running import RunningPlatform, running
from local.platform.server import PlatformOptions
from local.ports import free_ports
from local.registering import register_characters
from local.soak import audit
from local.soak.fault_injector import FaultInjector, Target
from local.soak.jobs import CHARACTERS, LORA, PHOTOS, TIMEOUT_S
from local.soak.load_generator import LoadGenerator
from local.soak.receiver import WebhookReceiver
from local.soak.resource_monitor import ResourceMonitor
from local.stack import ROOT, Stack
from worker.storage import ObjectStore

CACHE_BYTES: Final = 60_000_000  # eleven LoRAs of the seventeen and more
READY_TIMEOUT_S: Final = 180.0
MUST_BE_EMPTY: Final = (
    "unsound_jobs",
    "broken_objects",
    "left_files",
    "left_processes",
    "left_behind",
    "complaints",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the command line says."""

    seconds: float
    workers: int
    seed: int
    logs: Path | None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the soak; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m local.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--logs", type=Path, help="keep the workers' logs in this folder")
    given = parser.parse_args(argv)
    report = soak(Plan(given.seconds, given.workers, given.seed, given.logs))
    wrong = [name for name in MUST_BE_EMPTY if report[name]]
    if not report["resources"]["flat"]:
        wrong.append("resources")
    print(json.dumps(report | {"wrong": wrong}, indent=2))
    return 1 if wrong else 0


def soak(plan: Plan) -> dict[str, Any]:
    """The whole of it: stack, workers, customers, injector; then the audit."""
    with Stack() as stack, FaultProxy(stack.s3.endpoint_url) as proxy:
        fill(stack)
        ports = free_ports(plan.workers)
        targets = [
            Target(f"local-{number}", port, stack.folder / f"trainer-faults-{number}")
            for number, port in enumerate(ports, start=1)
        ]
        options = platform_options(plan, stack, proxy, targets)
        with WebhookReceiver() as receiver:
            with running(options) as platform:
                wait_ready(platform, plan.workers)
                load = LoadGenerator(platform.client, receiver.url, plan.seed)
                injector = FaultInjector(platform, targets, proxy, plan.seed)
                facts = live_through(plan.seconds, platform, load, injector)
            return audited(stack, plan.workers, load, receiver) | facts


def fill(stack: Stack) -> None:
    """Characters, photos and a LoRA to register, as the jobs name them."""
    register_characters(stack, CHARACTERS)
    lora = stack.folder / "lora.safetensors"
    write_demo_lora(lora, rank=1, seed=1000)
    with ObjectStore(stack.s3.options()) as store:
        store.upload(lora, LORA, "application/octet-stream")
        for number, key in enumerate(PHOTOS):
            store.put(key, photo(number), "image/jpeg")


def photo(number: int) -> bytes:
    """A sharp picture that is like no other."""
    dice = np.random.default_rng(number)
    shapes = Image.fromarray(dice.integers(0, 255, (8, 7, 3), dtype=np.uint8)).resize((560, 640))
    grain = dice.normal(0, 20, (640, 560, 1))
    body = io.BytesIO()
    pixels = np.clip(np.asarray(shapes) + grain, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(body, "JPEG")
    return body.getvalue()


def platform_options(
    plan: Plan, stack: Stack, proxy: FaultProxy, targets: Sequence[Target]
) -> PlatformOptions:
    """Workers that serve every task, each with a folder, a ComfyUI and a trainer of its own."""
    logs = plan.logs or stack.folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)

    def environment(number: int) -> Mapping[str, str]:
        target = targets[number - 1]
        return stack.environment(
            WORK_DIR=str(worker_folder(stack, number)),
            S3_ENDPOINT_URL=proxy.url,
            LORA_CACHE_BYTES=str(CACHE_BYTES),
            JOB_TIMEOUT_S=str(TIMEOUT_S),
            COMFYUI_PORT=str(target.comfyui_port),
            KOHYA_FAULTS=str(target.trainer_faults),
            RUNPOD_LOG_LEVEL="WARN",
        )

    argv = (sys.executable, "-u", str(ROOT / "handler.py"))
    pods = PodOptions(argv=argv, environment=environment, folder=ROOT, logs=logs)
    return PlatformOptions(pods=pods, workers=plan.workers, webhook_delay_s=1.0)


def worker_folder(stack: Stack, number: int) -> Path:
    """Where a worker keeps its files."""
    return stack.folder / f"worker-{number}"


def wait_ready(platform: RunningPlatform, workers: int) -> None:
    """Return when every worker waits for jobs."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while platform.client.get("health")["workers"]["idle"] < workers:
        if time.monotonic() > deadline:
            raise TimeoutError(f"workers not ready: {platform.client.get('metrics')['pods']}")
        time.sleep(0.1)


def live_through(
    seconds: float, platform: RunningPlatform, load: LoadGenerator, injector: FaultInjector
) -> dict[str, Any]:
    """The soak itself; answers what is known only while the platform runs."""
    lasting = platform.worker_ids[-1]
    monitor = ResourceMonitor(lambda: platform.pid(lasting))
    monitor.begin()
    load.open()
    injector.begin()
    time.sleep(seconds)
    injector.end()
    load.close()
    monitor.end()
    metrics = platform.client.get("metrics")
    return {
        "seconds": seconds,
        "faults": dict(injector.caused),
        "resources": monitor.report(),
        "platform": {name: metrics[name] for name in ("jobs", "retries", "ignored_results")},
        "worker_exits": {name: pod["exits"] for name, pod in metrics["pods"].items()},
        "left_behind": [name for pod in metrics["pods"].values() for name in pod["left_behind"]],
    }


def audited(
    stack: Stack, workers: int, load: LoadGenerator, receiver: WebhookReceiver
) -> dict[str, Any]:
    """The books: what is wrong, in words; nothing, if all is well."""
    orders = load.orders
    with ObjectStore(stack.s3.options()) as store:
        broken = list(audit.broken_objects(orders, store))
    folders = [worker_folder(stack, number) for number in range(1, workers + 1)]
    return {
        "accepted": len(orders),
        "outcomes": audit.outcomes(orders),
        "objects": sum(1 for order in orders for _ in audit.objects_of(order)),
        "unsound_jobs": list(audit.unsound(orders, receiver.ends)),
        "broken_objects": broken,
        "left_files": audit.left_files(folders),
        "left_processes": audit.left_processes(stack.folder),
        "complaints": load.complaints,
    }


if __name__ == "__main__":
    sys.exit(main())
