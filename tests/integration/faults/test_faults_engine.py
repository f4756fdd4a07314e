"""ComfyUI dies, hangs, forgets, runs out of memory: the job is saved where it can be."""

import time

import pytest

from tests.integration.faults.rig import IN_PROGRESS, WORKER, Rig, eventually

pytestmark = pytest.mark.process


def test_killed_while_idle(rig: Rig) -> None:
    rig.kill_comfyui()
    rig.completed(rig.image(seed=1))


def test_killed_in_a_job(rig: Rig) -> None:
    rig.faults(step_latency_s=1)
    job_id = rig.image(seed=2)
    assert eventually(rig.is_sampling, 20)
    rig.kill_comfyui()
    output = rig.completed(job_id)
    assert len(rig.objects(job_id)) == len(output["outputs"]) + 1  # and the manifest


@pytest.mark.parametrize(
    "moment", ["executing:KSampler", "step:1", "executed:SaveImage", "success"]
)
def test_crash_at(rig: Rig, moment: str) -> None:
    rig.faults(crash_at=moment)
    rig.completed(rig.image())


def test_killed_in_a_job_and_again_in_its_start(rig: Rig) -> None:
    rig.faults(crash_at="step:1", start_fail=True)
    rig.completed(rig.image())


def test_crashing_every_time_is_worth_a_retry_on_a_fresh_worker(rig: Rig) -> None:
    before = rig.platform.pid(WORKER)
    rig.faults(crash_at="step:1", times=2)
    output = rig.failed(rig.image(), "engine_crashed")
    assert output["retryable"] is True
    rig.completed(rig.image())
    assert rig.platform.pid(WORKER) != before


def test_a_hang_is_a_timeout_and_the_next_job_works(rig: Rig) -> None:
    rig.faults(hang_at="step:1")
    started = time.monotonic()
    rig.failed(rig.image(timeout_s=2), "timeout")
    assert time.monotonic() - started < 20
    rig.completed(rig.image())


@pytest.mark.parametrize(
    "moment", ["start", "executing:KSampler", "step:1", "executed:SaveImage", "success"]
)
def test_socket_lost(rig: Rig, moment: str) -> None:
    rig.faults(drop_socket_at=moment)
    rig.completed(rig.image())


def test_history_that_comes_late(rig: Rig) -> None:
    rig.faults(history_delay_s=0.6, drop_socket_at="step:1")
    rig.completed(rig.image())


def test_finished_but_not_in_history(rig: Rig) -> None:
    rig.faults(lose_history=True, drop_socket_at="step:1")
    rig.completed(rig.image())


def test_out_of_memory_once(rig: Rig) -> None:
    rig.faults(oom_at_node="KSampler")
    rig.completed(rig.image())


def test_out_of_memory_twice(rig: Rig) -> None:
    rig.faults(oom_at_node="KSampler", times=2)
    rig.failed(rig.image(), "out_of_memory")
    rig.completed(rig.image())


def test_a_node_that_fails(rig: Rig) -> None:
    rig.faults(fail_at_node="VAEDecode")
    output = rig.failed(rig.image(), "execution_failed")
    assert "VAEDecode" in str(output["details"])


@pytest.mark.parametrize("fault", ["truncate_output", "empty_output", "missing_output"])
def test_an_output_that_is_broken_is_never_delivered(rig: Rig, fault: str) -> None:
    rig.faults(**{fault: True})
    job_id = rig.image()
    rig.failed(job_id, "execution_failed")
    assert rig.objects(job_id) == []


def test_the_neighbour_of_a_crashed_job_succeeds_too(rig: Rig) -> None:
    rig.faults(crash_at="step:2", step_latency_s=0.5)
    jobs = [rig.image(seed=seed) for seed in (1, 2)]
    for job_id in jobs:
        rig.client.wait(job_id, until=IN_PROGRESS | {"COMPLETED"})
    for job_id in jobs:
        rig.completed(job_id)
