"""A job that is cancelled, wherever it is: within 3 s the GPU is free and nothing is left."""

import time

import pytest

from local.faults import Rule
from local.registering import register_characters
from tests.integration.faults.rig import IN_PROGRESS, Rig, eventually

pytestmark = pytest.mark.process


def cancelled(rig: Rig, job_id: str) -> None:
    """Cancel, and see that the job leaves nothing, in the bucket either."""
    assert rig.client.cancel(job_id)["status"] == "CANCELLED"
    assert rig.client.status(job_id)["status"] == "CANCELLED"


def test_in_the_queue(rig: Rig) -> None:
    rig.faults(step_latency_s=0.5)
    busy = [rig.image(steps=4) for _ in range(2)]
    for job_id in busy:
        rig.client.wait(job_id, until=IN_PROGRESS)
    waiting = rig.image()
    cancelled(rig, waiting)
    for job_id in busy:
        rig.completed(job_id)
    assert "executionTime" not in rig.client.status(waiting)
    assert rig.objects(waiting) == []


def test_in_the_download_of_a_lora(rig: Rig) -> None:
    register_characters(rig.stack, ["slow"], rank=2)
    held = rig.proxy.add(Rule("delay", "GET", r"characters/slow/loras/", seconds=8))
    with rig.nothing_left():
        job_id = rig.image(character_id="slow")
        assert eventually(lambda: held.hits == 1, 10)
        cancelled(rig, job_id)
    assert rig.objects(job_id) == []
    rig.completed(rig.image(character_id="slow"))


def test_in_sampling(rig: Rig) -> None:
    rig.faults(step_latency_s=0.5)
    with rig.nothing_left():
        job_id = rig.image(steps=60)
        rig.running_at(job_id, "sampling")
        cancelled(rig, job_id)
    assert rig.objects(job_id) == []


def test_in_comfyuis_queue_behind_another(rig: Rig) -> None:
    rig.faults(step_latency_s=0.5)
    first, second = rig.image(steps=6), rig.image(steps=6)
    for job_id in (first, second):
        rig.client.wait(job_id, until=IN_PROGRESS)
    rig.running_at(first, "sampling")
    cancelled(rig, second)
    rig.completed(first)
    assert rig.objects(second) == []


def test_in_the_upload(rig: Rig) -> None:
    held = rig.proxy.add(Rule("delay", "PUT", r"/outputs/", seconds=8))
    with rig.nothing_left():
        job_id = rig.image()
        assert eventually(lambda: held.hits == 1, 15)
        cancelled(rig, job_id)
    assert rig.objects(job_id) == []


def test_with_comfyui_hanging(rig: Rig) -> None:
    rig.faults(hang_at="step:1")
    with rig.nothing_left(within_s=20):  # an interrupt has 5 s, then ComfyUI is started again
        job_id = rig.image()
        assert eventually(rig.is_sampling, 10)
        assert eventually(lambda: rig.armed() == {}, 10)
        cancelled(rig, job_id)
    rig.completed(rig.image())


def test_the_execution_timeout_is_a_cancel(rig: Rig) -> None:
    rig.faults(step_latency_s=0.5)
    with rig.nothing_left():
        job_id = rig.image(steps=60, policy={"executionTimeout": 5000})
        status = rig.finished(job_id, timeout_s=15)
        assert status["status"] == "TIMED_OUT"
    assert rig.objects(job_id) == []


def test_twenty_in_a_row_leave_the_worker_well(rig: Rig) -> None:
    rig.faults(step_latency_s=0.05)
    with rig.nothing_left():
        for number in range(20):
            job_id = rig.image(steps=60)
            time.sleep(number * 0.02)
            cancelled(rig, job_id)
    rig.completed(rig.image())
