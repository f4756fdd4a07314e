"""A training under the SDK's loop: cancelled, timed out, its worker killed."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from local.stack import Stack
from tests.integration.faults.rig import WORKER, Rig, eventually, worker_rig
from tests.integration.training.studio import photo
from worker.storage import ObjectStore

pytestmark = pytest.mark.process

PHOTOS = 6


@pytest.fixture(scope="module")
def trainer(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with ObjectStore(stack.s3.options()) as store:
        for number in range(PHOTOS):
            store.put(f"inputs/{number}.jpg", photo(number), "image/jpeg")
    logs = tmp_path_factory.mktemp("training")
    with worker_rig(stack, logs, settings={"KOHYA_STEP_S": "0.05"}) as rig:
        yield rig


@pytest.fixture
def rig(trainer: Rig) -> Rig:
    """The worker, at rest."""
    trainer.make_well()
    return trainer


def training(rig: Rig, character_id: str, **fields: Any) -> str:
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
    return rig.client.run(job, **({"policy": policy} if policy else {}))


def steps_done(rig: Rig, job_id: str) -> int:
    output = rig.client.status(job_id).get("output")
    return int(output.get("step", 0)) if isinstance(output, dict) else 0


def of_character(rig: Rig, character_id: str) -> list[str]:
    with ObjectStore(rig.stack.s3.options()) as store:
        return [info.key for info in store.list(f"characters/{character_id}/")]


def new_id() -> str:
    return f"t-{uuid.uuid4().hex[:8]}"


def test_a_cancel_ends_the_trainer_and_leaves_nothing(rig: Rig) -> None:
    character_id = new_id()
    with rig.nothing_left(within_s=5):
        job_id = training(rig, character_id)
        assert eventually(lambda: steps_done(rig, job_id) >= 3, 30)
        rig.client.cancel(job_id)
    assert of_character(rig, character_id) == []


def test_the_execution_timeout_ends_the_trainer(rig: Rig) -> None:
    character_id = new_id()
    with rig.nothing_left(within_s=5):
        job_id = training(rig, character_id, policy={"executionTimeout": 5000})
        assert rig.finished(job_id)["status"] == "TIMED_OUT"
    assert of_character(rig, character_id) == []


def test_a_comfyui_that_died_before_does_not_matter(rig: Rig) -> None:
    rig.kill_comfyui()
    status = rig.finished(training(rig, new_id(), steps=8), timeout_s=60)
    assert status["status"] == "COMPLETED", status


def test_a_killed_worker_trains_one_version(rig: Rig) -> None:
    character_id = new_id()
    with rig.nothing_left(within_s=5):
        job_id = training(rig, character_id, steps=60)
        assert eventually(lambda: steps_done(rig, job_id) >= 3, 30)
        rig.platform.kill(WORKER)
        output = rig.finished(job_id, timeout_s=90)
        assert (output["status"], output.get("retries")) == ("COMPLETED", 1), output
    keys = of_character(rig, character_id)
    assert sum("/versions/" in key for key in keys) == 1
    assert sum("/loras/" in key for key in keys) == 1
    assert rig.client.get("metrics")["pods"][WORKER]["left_behind"] == []
    rig.completed(rig.image(character_id=character_id))
