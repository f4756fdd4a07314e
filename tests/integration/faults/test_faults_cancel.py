"""A job that is cancelled, wherever it is: within 3 s the GPU is free and nothing is left."""

import time

import pytest

from local.faults import Rule
from local.registering import register_characters
from tests.integration.faults.platform_harness import IN_PROGRESS, PlatformHarness, eventually

pytestmark = pytest.mark.process


def cancelled(harness: PlatformHarness, job_id: str) -> None:
    """Cancel, and see that the job leaves nothing, in the bucket either."""
    assert harness.client.cancel(job_id)["status"] == "CANCELLED"
    assert harness.client.status(job_id)["status"] == "CANCELLED"


def test_in_the_queue(harness: PlatformHarness) -> None:
    harness.faults(step_latency_s=0.5)
    busy = [harness.image(steps=4) for _ in range(2)]
    for job_id in busy:
        harness.client.wait(job_id, until=IN_PROGRESS)
    waiting = harness.image()
    cancelled(harness, waiting)
    for job_id in busy:
        harness.completed(job_id)
    assert "executionTime" not in harness.client.status(waiting)
    assert harness.objects(waiting) == []


def test_in_the_download_of_a_lora(harness: PlatformHarness) -> None:
    register_characters(harness.stack, ["slow"], rank=2)
    held = harness.proxy.add(Rule("delay", "GET", r"characters/slow/loras/", seconds=8))
    with harness.nothing_left():
        job_id = harness.image(character_id="slow")
        assert eventually(lambda: held.hits == 1, 10)
        cancelled(harness, job_id)
    assert harness.objects(job_id) == []
    harness.completed(harness.image(character_id="slow"))


def test_in_sampling(harness: PlatformHarness) -> None:
    harness.faults(step_latency_s=0.5)
    with harness.nothing_left():
        job_id = harness.image(steps=60)
        harness.running_at(job_id, "sampling")
        cancelled(harness, job_id)
    assert harness.objects(job_id) == []


def test_in_comfyuis_queue_behind_another(harness: PlatformHarness) -> None:
    harness.faults(step_latency_s=0.5)
    first, second = harness.image(steps=6), harness.image(steps=6)
    for job_id in (first, second):
        harness.client.wait(job_id, until=IN_PROGRESS)
    harness.running_at(first, "sampling")
    cancelled(harness, second)
    harness.completed(first)
    assert harness.objects(second) == []


def test_in_the_upload(harness: PlatformHarness) -> None:
    held = harness.proxy.add(Rule("delay", "PUT", r"/outputs/", seconds=8))
    with harness.nothing_left():
        job_id = harness.image()
        assert eventually(lambda: held.hits == 1, 15)
        cancelled(harness, job_id)
    assert harness.objects(job_id) == []


def test_with_comfyui_hanging(harness: PlatformHarness) -> None:
    harness.faults(hang_at="step:1")
    with harness.nothing_left(within_s=20):  # an interrupt has 5 s, then ComfyUI is started again
        job_id = harness.image()
        assert eventually(harness.is_sampling, 10)
        assert eventually(lambda: harness.armed() == {}, 10)
        cancelled(harness, job_id)
    harness.completed(harness.image())


def test_the_execution_timeout_is_a_cancel(harness: PlatformHarness) -> None:
    harness.faults(step_latency_s=0.5)
    with harness.nothing_left():
        job_id = harness.image(steps=60, policy={"executionTimeout": 5000})
        status = harness.finished(job_id, timeout_s=15)
        assert status["status"] == "TIMED_OUT"
    assert harness.objects(job_id) == []


def test_twenty_in_a_row_leave_the_worker_well(harness: PlatformHarness) -> None:
    harness.faults(step_latency_s=0.05)
    with harness.nothing_left():
        for number in range(20):
            job_id = harness.image(steps=60)
            time.sleep(number * 0.02)
            cancelled(harness, job_id)
    harness.completed(harness.image())
