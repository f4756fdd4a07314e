"""ComfyUI dies, hangs, forgets, runs out of memory: the job is saved where it can be."""

import time

import pytest

from tests.integration.faults.platform_harness import (
    IN_PROGRESS,
    WORKER,
    PlatformHarness,
    eventually,
)

pytestmark = pytest.mark.process


def test_killed_while_idle(harness: PlatformHarness) -> None:
    harness.kill_comfyui()
    harness.completed(harness.image(seed=1))


def test_killed_in_a_job(harness: PlatformHarness) -> None:
    harness.faults(step_latency_s=1)
    job_id = harness.image(seed=2)
    assert eventually(harness.is_sampling, 20)
    harness.kill_comfyui()
    output = harness.completed(job_id)
    assert len(harness.objects(job_id)) == len(output["outputs"]) + 1  # and the manifest


@pytest.mark.parametrize(
    "moment", ["executing:KSampler", "step:1", "executed:SaveImage", "success"]
)
def test_crash_at(harness: PlatformHarness, moment: str) -> None:
    harness.faults(crash_at=moment)
    harness.completed(harness.image())


def test_killed_in_a_job_and_again_in_its_start(harness: PlatformHarness) -> None:
    harness.faults(crash_at="step:1", start_fail=True)
    harness.completed(harness.image())


def test_crashing_every_time_is_worth_a_retry_on_a_fresh_worker(harness: PlatformHarness) -> None:
    before = harness.platform.pid(WORKER)
    harness.faults(crash_at="step:1", times=2)
    output = harness.failed(harness.image(), "engine_crashed")
    assert output["retryable"] is True
    harness.completed(harness.image())
    assert harness.platform.pid(WORKER) != before


def test_a_hang_is_a_timeout_and_the_next_job_works(harness: PlatformHarness) -> None:
    harness.faults(hang_at="step:1")
    started = time.monotonic()
    harness.failed(harness.image(timeout_s=2), "timeout")
    assert time.monotonic() - started < 20
    harness.completed(harness.image())


@pytest.mark.parametrize(
    "moment", ["start", "executing:KSampler", "step:1", "executed:SaveImage", "success"]
)
def test_socket_lost(harness: PlatformHarness, moment: str) -> None:
    harness.faults(drop_socket_at=moment)
    harness.completed(harness.image())


def test_history_that_comes_late(harness: PlatformHarness) -> None:
    harness.faults(history_delay_s=0.6, drop_socket_at="step:1")
    harness.completed(harness.image())


def test_finished_but_not_in_history(harness: PlatformHarness) -> None:
    harness.faults(lose_history=True, drop_socket_at="step:1")
    harness.completed(harness.image())


def test_out_of_memory_once(harness: PlatformHarness) -> None:
    harness.faults(oom_at_node="KSampler")
    harness.completed(harness.image())


def test_out_of_memory_twice(harness: PlatformHarness) -> None:
    harness.faults(oom_at_node="KSampler", times=2)
    harness.failed(harness.image(), "out_of_memory")
    harness.completed(harness.image())


def test_a_node_that_fails(harness: PlatformHarness) -> None:
    harness.faults(fail_at_node="VAEDecode")
    output = harness.failed(harness.image(), "execution_failed")
    assert "VAEDecode" in str(output["details"])


@pytest.mark.parametrize("fault", ["truncate_output", "empty_output"])
def test_an_output_that_is_broken_once_is_made_again(harness: PlatformHarness, fault: str) -> None:
    harness.faults(**{fault: True})
    job_id = harness.image()
    output = harness.completed(job_id)
    assert len(harness.objects(job_id)) == len(output["outputs"]) + 1


@pytest.mark.parametrize(
    ("fault", "times"),  # a damaged file is made once more, one that is not there fails at once
    [("truncate_output", 2), ("empty_output", 2), ("missing_output", 1)],
)
def test_an_output_that_is_broken_is_never_delivered(
    harness: PlatformHarness, fault: str, times: int
) -> None:
    harness.faults(**{fault: True, "times": times})
    job_id = harness.image()
    harness.failed(job_id, "execution_failed")
    assert harness.objects(job_id) == []


def test_the_neighbour_of_a_crashed_job_succeeds_too(harness: PlatformHarness) -> None:
    harness.faults(crash_at="step:2", step_latency_s=0.5)
    jobs = [harness.image(seed=seed) for seed in (1, 2)]
    for job_id in jobs:
        harness.client.wait(job_id, until=IN_PROGRESS | {"COMPLETED"})
    for job_id in jobs:
        harness.completed(job_id)
