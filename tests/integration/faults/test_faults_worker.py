"""The worker itself is ended, politely or not: its job is finished, or done again, exactly once."""

import threading
from pathlib import Path

import pytest

from local.faults import Rule
from tests.integration.faults.platform_harness import WORKER, PlatformHarness, eventually

pytestmark = pytest.mark.process


def ends(pid: int, *, within_s: float) -> bool:
    return eventually(lambda: not Path(f"/proc/{pid}").exists(), within_s)


def pid_of(harness: PlatformHarness) -> int:
    pid = harness.platform.pid(WORKER)
    assert pid is not None
    return pid


def left_behind(harness: PlatformHarness) -> list[str]:
    left: list[str] = harness.client.get("metrics")["pods"][WORKER]["left_behind"]
    return left


def test_sigterm_lets_the_job_finish_and_ends_comfyui(harness: PlatformHarness) -> None:
    harness.faults(step_latency_s=0.5)
    before = pid_of(harness)
    job_id = harness.image(steps=6)
    harness.running_at(job_id, "sampling")
    stopping = threading.Thread(target=harness.platform.stop, args=(WORKER,))
    stopping.start()
    waiting = harness.image()
    output = harness.completed(job_id)
    assert "retries" not in harness.client.status(job_id)
    assert len(harness.objects(job_id)) == len(output["outputs"]) + 1
    stopping.join(10)
    assert ends(before, within_s=1)
    harness.completed(waiting)  # by the next life
    assert pid_of(harness) != before
    assert left_behind(harness) == []


def test_sigterm_while_idle(harness: PlatformHarness) -> None:
    before = pid_of(harness)
    harness.platform.stop(WORKER)
    assert ends(before, within_s=1)
    harness.completed(harness.image())
    assert left_behind(harness) == []


def test_kill_9_in_a_job_gives_the_same_outputs_once(harness: PlatformHarness) -> None:
    harness.faults(step_latency_s=0.5)
    job_id = harness.image(steps=4, seed=11)
    harness.running_at(job_id, "sampling")
    comfyui = harness.comfyui_pid()
    harness.platform.kill(WORKER)
    assert ends(comfyui, within_s=5)
    output = harness.completed(job_id)
    assert harness.client.status(job_id)["retries"] == 1
    assert harness.objects(job_id) == sorted(
        [*(each["key"] for each in output["outputs"]), output["manifest"]["key"]]
    )
    assert output["seed"] == 11
    assert left_behind(harness) == []
    assert harness.client.get("metrics")["ignored_results"] == 0


def test_kill_9_in_an_upload(harness: PlatformHarness) -> None:
    held = harness.proxy.add(Rule("delay", "PUT", r"manifest\.json", seconds=8))
    job_id = harness.image(count=2)
    assert eventually(lambda: held.hits == 1, 20)
    assert len(harness.objects(job_id)) == 2
    harness.platform.kill(WORKER)
    output = harness.completed(job_id)
    assert harness.client.status(job_id)["retries"] == 1
    own = {*(each["key"] for each in output["outputs"]), output["manifest"]["key"]}
    # What the killed worker had sent stays: it lies below a key of its own, without a manifest,
    # and nobody can tell that its worker is not still alive.
    others = set(harness.objects(job_id)) - own
    assert own <= set(harness.objects(job_id))
    assert not [key for key in others if key.endswith("manifest.json")]


def test_files_of_a_killed_life_are_swept_by_the_next(harness: PlatformHarness) -> None:
    files = harness.files()
    harness.faults(step_latency_s=0.5)
    job_id = harness.image(steps=60)
    harness.running_at(job_id, "sampling")
    harness.platform.kill(WORKER)
    assert eventually(lambda: harness.client.status(job_id)["status"] == "IN_QUEUE", 10)
    harness.client.cancel(job_id)
    harness.completed(harness.image())
    assert harness.files() <= files
