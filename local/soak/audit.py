"""The books after the soak: one end per job, every object there, nothing left behind."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from local.platform.client import FINAL
from local.soak.load_generator import Order
from lora_registry.store import StoreError
from worker.storage import ObjectStore

EXPLAINED: Final = frozenset(
    {
        "engine_crashed",
        "engine_unavailable",
        "execution_failed",
        "out_of_memory",
        "storage_unavailable",
        "source_unreachable",
        "timeout",
        "training_failed",
        "training_diverged",
        "disk_full",
        "conflict",
    }
)
"""What a fault of the soak may end in; anything else is a defect of ours."""


def outcomes(orders: Sequence[Order]) -> dict[str, dict[str, int]]:
    """How many jobs of each task ended how; failures by code."""
    counts: dict[str, Counter[str]] = {}
    for order in orders:
        counts.setdefault(order.job["task"], Counter())[_ending(order)] += 1
    return {task: dict(sorted(count.items())) for task, count in sorted(counts.items())}


def _ending(order: Order) -> str:
    status = str(order.status.get("status", "NONE"))
    return f"{status} {_code(order)}" if status == "FAILED" else status


def _code(order: Order) -> str:
    output = order.status.get("output")
    if isinstance(output, dict):
        return str(output.get("code", "without code"))
    lost = "job timed out after" in str(order.status.get("error"))
    return "worker lost" if lost else "without code"


def unsound(orders: Sequence[Order], ends: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Jobs that did not end, ended twice, or failed for no reason that was given to them."""
    for order in orders:
        status = order.status.get("status")
        if status not in FINAL:
            yield f"{order.job_id} has no end: {order.status}"
        elif list(ends.get(order.job_id, ())) != [status]:
            yield f"{order.job_id} is {status} and was announced as {ends.get(order.job_id)}"
        elif status == "CANCELLED" and not order.cancelled:
            yield f"{order.job_id} was cancelled by nobody"
        elif status == "FAILED" and _code(order) not in EXPLAINED | {"worker lost"}:
            yield f"{order.job_id} failed unforeseen: {order.job} {order.status}"


def objects_of(order: Order) -> Iterator[dict[str, Any]]:
    """The objects that a completed job says it has delivered."""
    output = order.status.get("output")
    if order.status.get("status") == "COMPLETED" and isinstance(output, dict):
        yield from output.get("outputs", ())


def broken_objects(orders: Sequence[Order], store: ObjectStore) -> Iterator[str]:
    """Objects of completed jobs that are not there, or not what was stated."""
    for order in orders:
        for stated in objects_of(order):
            try:
                body = store.get(stated["key"]).body
            except StoreError as error:
                yield f"{order.job_id}: {stated['key']}: {error}"
                continue
            digest = hashlib.sha256(body).hexdigest()
            if (len(body), digest) != (stated["bytes"], stated["sha256"]):
                yield f"{order.job_id}: {stated['key']} is not what was stated"


def left_files(workers: Sequence[Path]) -> list[str]:
    """Temporary files that workers left, their LoRA cache excepted."""
    places = ("job-*", "training", "comfyui/output", "comfyui/input", "loras/.cache/parts")
    return [
        str(path.relative_to(worker))
        for worker in workers
        for place in places
        for folder in worker.glob(place)
        for path in folder.rglob("*")
        if path.is_file()
    ]


def left_processes(folder: Path) -> list[str]:
    """Processes whose environment names the stack's folder: workers, ComfyUIs, trainers."""
    wanted, left = f"WORK_DIR={folder}".encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (process / "environ").read_bytes():
                command = (process / "cmdline").read_bytes()
                left.append(command.replace(b"\0", b" ").decode(errors="replace"))
        except OSError:  # it ended meanwhile, or is somebody else's
            continue
    return left
