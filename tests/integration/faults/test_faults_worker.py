"""The worker itself is ended, politely or not: its job is finished, or done again, exactly once."""

import threading
from pathlib import Path

import pytest

from local.faults import Rule
from tests.integration.faults.rig import WORKER, Rig, eventually

pytestmark = pytest.mark.process


def ends(pid: int, *, within_s: float) -> bool:
    return eventually(lambda: not Path(f"/proc/{pid}").exists(), within_s)


def pid_of(rig: Rig) -> int:
    pid = rig.platform.pid(WORKER)
    assert pid is not None
    return pid


def left_behind(rig: Rig) -> list[str]:
    left: list[str] = rig.client.get("metrics")["pods"][WORKER]["left_behind"]
    return left


def test_sigterm_lets_the_job_finish_and_ends_comfyui(rig: Rig) -> None:
    rig.faults(step_latency_s=0.5)
    before = pid_of(rig)
    job_id = rig.image(steps=6)
    rig.running_at(job_id, "sampling")
    stopping = threading.Thread(target=rig.platform.stop, args=(WORKER,))
    stopping.start()
    waiting = rig.image()
    output = rig.completed(job_id)
    assert "retries" not in rig.client.status(job_id)
    assert len(rig.objects(job_id)) == len(output["outputs"]) + 1
    stopping.join(10)
    assert ends(before, within_s=1)
    rig.completed(waiting)  # by the next life
    assert pid_of(rig) != before
    assert left_behind(rig) == []


def test_sigterm_while_idle(rig: Rig) -> None:
    before = pid_of(rig)
    rig.platform.stop(WORKER)
    assert ends(before, within_s=1)
    rig.completed(rig.image())
    assert left_behind(rig) == []


def test_kill_9_in_a_job_gives_the_same_outputs_once(rig: Rig) -> None:
    rig.faults(step_latency_s=0.5)
    job_id = rig.image(steps=4, seed=11)
    rig.running_at(job_id, "sampling")
    comfyui = rig.comfyui_pid()
    rig.platform.kill(WORKER)
    assert ends(comfyui, within_s=5)
    output = rig.completed(job_id)
    assert rig.client.status(job_id)["retries"] == 1
    assert rig.objects(job_id) == sorted(
        [*(each["key"] for each in output["outputs"]), output["manifest"]["key"]]
    )
    assert output["seed"] == 11
    assert left_behind(rig) == []
    assert rig.client.get("metrics")["ignored_results"] == 0


def test_kill_9_in_an_upload(rig: Rig) -> None:
    held = rig.proxy.add(Rule("delay", "PUT", r"manifest\.json", seconds=8))
    job_id = rig.image(count=2)
    assert eventually(lambda: held.hits == 1, 20)
    assert len(rig.objects(job_id)) == 2
    rig.platform.kill(WORKER)
    output = rig.completed(job_id)
    assert rig.client.status(job_id)["retries"] == 1
    assert set(rig.objects(job_id)) == {
        *(each["key"] for each in output["outputs"]),
        output["manifest"]["key"],
    }


def test_files_of_a_killed_life_are_swept_by_the_next(rig: Rig) -> None:
    files = rig.files()
    rig.faults(step_latency_s=0.5)
    job_id = rig.image(steps=60)
    rig.running_at(job_id, "sampling")
    rig.platform.kill(WORKER)
    assert eventually(lambda: rig.client.status(job_id)["status"] == "IN_QUEUE", 10)
    rig.client.cancel(job_id)
    rig.completed(rig.image())
    assert rig.files() <= files
