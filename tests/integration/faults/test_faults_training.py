"""A training under the SDK's loop: cancelled, timed out, its worker killed."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from local.stack import Stack
from tests.integration.faults.platform_harness import (
    WORKER,
    PlatformHarness,
    eventually,
    open_platform,
)
from tests.integration.training.training_harness import photo
from worker.storage import ObjectStore

pytestmark = pytest.mark.process

PHOTOS = 6


@pytest.fixture(scope="module")
def trainer(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformHarness]:
    with ObjectStore(stack.s3.options()) as store:
        for number in range(PHOTOS):
            store.put(f"inputs/{number}.jpg", photo(number), "image/jpeg")
    logs = tmp_path_factory.mktemp("training")
    with open_platform(stack, logs, settings={"KOHYA_STEP_S": "0.05"}) as harness:
        yield harness


@pytest.fixture
def harness(trainer: PlatformHarness) -> PlatformHarness:
    """The worker, at rest."""
    trainer.make_well()
    return trainer


def training(harness: PlatformHarness, character_id: str, **fields: Any) -> str:
    job = {
        "task": "train",
        "character_id": character_id,
        "images": [{"key": f"inputs/{number}.jpg"} for number in range(PHOTOS)],
        "steps": 400,
        "rank": 1,
        "resolution": 512,
        "preview_prompts": ["{trigger}"],
        **fields,
    }
    policy = job.pop("policy", None)
    return harness.client.run(job, **({"policy": policy} if policy else {}))


def steps_done(harness: PlatformHarness, job_id: str) -> int:
    output = harness.client.status(job_id).get("output")
    return int(output.get("step", 0)) if isinstance(output, dict) else 0


def of_character(harness: PlatformHarness, character_id: str) -> list[str]:
    with ObjectStore(harness.stack.s3.options()) as store:
        return [info.key for info in store.list(f"characters/{character_id}/")]


def new_id() -> str:
    return f"t-{uuid.uuid4().hex[:8]}"


def test_a_cancel_ends_the_trainer_and_leaves_nothing(harness: PlatformHarness) -> None:
    character_id = new_id()
    with harness.nothing_left(within_s=5):
        job_id = training(harness, character_id)
        assert eventually(lambda: steps_done(harness, job_id) >= 3, 30)
        harness.client.cancel(job_id)
    assert of_character(harness, character_id) == []


def test_the_execution_timeout_ends_the_trainer(harness: PlatformHarness) -> None:
    character_id = new_id()
    with harness.nothing_left(within_s=5):
        job_id = training(harness, character_id, policy={"executionTimeout": 5000})
        assert harness.finished(job_id)["status"] == "TIMED_OUT"
    assert of_character(harness, character_id) == []


def test_a_comfyui_that_died_before_does_not_matter(harness: PlatformHarness) -> None:
    harness.kill_comfyui()
    status = harness.finished(training(harness, new_id(), steps=8), timeout_s=60)
    assert status["status"] == "COMPLETED", status


def test_a_killed_worker_trains_one_version(harness: PlatformHarness) -> None:
    character_id = new_id()
    with harness.nothing_left(within_s=5):
        job_id = training(harness, character_id, steps=60)
        assert eventually(lambda: steps_done(harness, job_id) >= 3, 30)
        harness.platform.kill(WORKER)
        output = harness.finished(job_id, timeout_s=90)
        assert (output["status"], output.get("retries")) == ("COMPLETED", 1), output
    keys = of_character(harness, character_id)
    assert sum("/versions/" in key for key in keys) == 1
    assert sum("/loras/" in key for key in keys) == 1
    assert harness.client.get("metrics")["pods"][WORKER]["left_behind"] == []
    harness.completed(harness.image(character_id=character_id))
