"""The soak's books notice what is wrong."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from local.soak import audit
from local.soak.jobs import JobMaker
from local.soak.load_generator import Order
from lora_registry.store import ObjectMissing, StoredObject
from worker.contract import parse_job
from worker.storage import ObjectStore

BODY = b"a picture"
STATED = {"key": "k", "bytes": len(BODY), "sha256": hashlib.sha256(BODY).hexdigest()}
JOB = {"task": "image"}


def order(status: str, *, cancelled: bool = False, **facts: Any) -> Order:
    return Order("j", JOB, cancelled=cancelled, status={"status": status, **facts})


def failed(code: str) -> Order:
    return order("FAILED", error="no", output={"code": code})


@pytest.mark.parametrize(
    ("ended", "announced"),
    [
        (order("COMPLETED", output={}), ["COMPLETED"]),
        (order("CANCELLED", cancelled=True), ["CANCELLED"]),
        (failed("engine_crashed"), ["FAILED"]),
        (order("FAILED", error="job timed out after 3 retries"), ["FAILED"]),
    ],
)
def test_what_is_sound(ended: Order, announced: list[str]) -> None:
    assert list(audit.unsound([ended], {"j": announced})) == []


@pytest.mark.parametrize(
    ("ended", "announced"),
    [
        (Order("j", JOB), []),
        (order("IN_PROGRESS"), []),
        (order("COMPLETED"), []),
        (order("COMPLETED"), ["COMPLETED", "COMPLETED"]),
        (order("COMPLETED"), ["FAILED"]),
        (order("CANCELLED"), ["CANCELLED"]),
        (failed("internal"), ["FAILED"]),
        (failed("invalid_input"), ["FAILED"]),
        (order("FAILED", error="Traceback"), ["FAILED"]),
    ],
)
def test_what_is_unsound(ended: Order, announced: list[str]) -> None:
    assert len(list(audit.unsound([ended], {"j": announced}))) == 1


class OneObject(ObjectStore):
    """A bucket that holds `body`, or nothing, under `k`."""

    def __init__(self, body: bytes | None) -> None:
        self._body = body

    def get(self, key: str) -> StoredObject:
        if self._body is None:
            raise ObjectMissing(key)
        return StoredObject(key, self._body, "etag")


@pytest.mark.parametrize(("body", "broken"), [(BODY, 0), (b"another", 1), (b"", 1), (None, 1)])
def test_objects_are_held_against_what_was_stated(body: bytes | None, broken: int) -> None:
    completed = order("COMPLETED", output={"outputs": [STATED]})
    assert len(list(audit.broken_objects([completed], OneObject(body)))) == broken


def test_left_files_are_temporary_ones(tmp_path: Path) -> None:
    for name in (
        "job-1/a.png",
        "comfyui/output/b.png",
        "loras/c.safetensors",
        "comfyui/model.json",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert sorted(audit.left_files([tmp_path])) == ["comfyui/output/b.png", "job-1/a.png"]


def test_outcomes_name_the_codes() -> None:
    counted = audit.outcomes([order("COMPLETED"), failed("timeout"), failed("timeout")])
    assert counted == {"image": {"COMPLETED": 1, "FAILED timeout": 2}}


def test_what_customers_order_is_always_a_job() -> None:
    maker = JobMaker(seed=5)
    tasks = {parse_job(maker.draw()).task for _ in range(300)}
    assert tasks == {"image", "video", "train", "characters", "health"}
