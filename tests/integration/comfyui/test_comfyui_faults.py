"""What happens in production, caused for real: deaths, hangs, lost sockets, lost history."""

import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import requests

from worker.comfyui.client import ComfyUIClient
from worker.comfyui.process import ComfyUIProcess
from worker.errors import (
    Cancelled,
    DiskFull,
    EngineCrashed,
    ExecutionFailed,
    OutOfMemory,
    TimedOut,
)

Graph = dict[str, dict[str, Any]]


def pid_of(engine: ComfyUIProcess) -> int:
    assert engine.pid is not None
    return engine.pid


def kill(engine: ComfyUIProcess) -> None:
    os.kill(pid_of(engine), signal.SIGKILL)


def test_killed_while_idle(engine: ComfyUIProcess, job: Any, plain: Callable[[], Graph]) -> None:
    seen = engine.generation
    kill(engine)
    while engine.alive:
        time.sleep(0.01)
    assert not engine.ready
    assert job.run(plain()).files["2"]
    assert engine.generation == seen + 1


def test_killed_in_a_job(
    engine: ComfyUIProcess, job: Any, sampled: Callable[..., Graph], faults: Any
) -> None:
    faults(step_latency_s=0.12)
    seen = engine.generation
    at = 0.0

    def kill_at_step_two(step: Any) -> None:
        nonlocal at
        if step.step == 2:
            kill(engine)
            at = time.monotonic()

    job.on_step = kill_at_step_two
    with pytest.raises(EngineCrashed):
        job.run(sampled(steps=20))
    assert time.monotonic() - at < 2
    job.on_step = lambda _: None
    engine.restart(seen)
    assert job.run(sampled(steps=1)).files["9"]


def test_restarted_behind_a_jobs_back(
    engine: ComfyUIProcess, job: Any, sampled: Callable[..., Graph], faults: Any
) -> None:
    """Two jobs in flight, one of them restarts the engine: the other's prompt is lost."""
    faults(step_latency_s=0.2)
    seen = engine.generation
    restart = threading.Thread(target=engine.restart, args=(seen,))
    job.on_step = lambda step: restart.start() if step.step == 1 else None
    with pytest.raises(EngineCrashed):
        job.run(sampled(steps=100))
    restart.join(20)


def test_hangs(
    engine: ComfyUIProcess, job: Any, sampled: Callable[..., Graph], faults: Any
) -> None:
    faults(hang_at="executing:VAEDecode")
    seen = engine.generation
    with pytest.raises(TimedOut):
        job.run(sampled(), timeout_s=0.5)
    assert not engine.ready
    assert job.run(sampled()).files["9"]
    assert engine.generation == seen + 1


def test_hangs_while_it_is_cancelled(
    engine: ComfyUIProcess, job: Any, sampled: Callable[..., Graph], faults: Any
) -> None:
    faults(hang_at="executing:VAEDecode")
    threading.Timer(0.3, job.cancel.cancel).start()
    with pytest.raises(Cancelled):
        job.run(sampled())
    assert not engine.ready
    engine.ensure_ready()


def test_frozen_without_an_answer_to_anything(
    engine: ComfyUIProcess, job: Any, sampled: Callable[..., Graph], faults: Any
) -> None:
    faults(step_latency_s=0.12)
    freeze = partial(os.kill, pid_of(engine), signal.SIGSTOP)
    job.on_step = lambda step: freeze() if step.step == 1 else None
    with pytest.raises(TimedOut):
        job.run(sampled(steps=50), timeout_s=1.0)
    job.on_step = lambda _: None
    assert job.run(sampled(steps=1)).files["9"]


def test_a_listener_that_fails_leaves_no_hanging_prompt_behind(
    engine: ComfyUIProcess, job: Any, sampled: Callable[..., Graph], faults: Any
) -> None:
    """Whatever ends the wait: what ComfyUI does not give up is ended with it."""
    faults(step_latency_s=0.12)
    seen = engine.generation
    freeze = partial(os.kill, pid_of(engine), signal.SIGSTOP)

    def fail(step: Any) -> None:
        if step.step == 1:
            freeze()
            raise KeyError(step.node)

    job.on_step = fail
    with pytest.raises(KeyError):
        job.run(sampled(steps=50))
    engine.ensure_ready()
    assert engine.generation == seen + 1


def test_frozen_while_idle(engine: ComfyUIProcess, client: Any, job: Any, plain: Any) -> None:
    """Two jobs come to a server that says nothing: it is replaced once, and both can run."""
    seen = engine.generation
    os.kill(pid_of(engine), signal.SIGSTOP)
    executions: list[Any] = []
    thread = threading.Thread(
        target=lambda: executions.append(type(job)(client).run(plain())), daemon=True
    )
    thread.start()
    executions.append(job.run(plain()))
    thread.join(20)
    assert all(execution.files["2"] for execution in executions)
    assert len(executions) == 2
    assert engine.generation == seen + 1


def test_frozen_under_a_job_while_another_comes(
    engine: ComfyUIProcess, client: Any, job: Any, sampled: Callable[..., Graph], faults: Any
) -> None:
    """Silence is judged by the job that has a prompt there; the newcomer waits for that."""
    faults(step_latency_s=0.12)
    freeze = partial(os.kill, pid_of(engine), signal.SIGSTOP)
    job.on_step = lambda step: freeze() if step.step == 1 else None
    outcomes: list[BaseException] = []

    def run() -> None:
        try:
            job.run(sampled(steps=50), timeout_s=2.0)
        except TimedOut as error:
            outcomes.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while not job.steps:
        time.sleep(0.01)
    time.sleep(0.3)
    assert type(job)(client).run(sampled(steps=1)).files["9"]
    thread.join(20)
    assert len(outcomes) == 1


@pytest.mark.parametrize(
    "moment",
    ["start", "executing:KSampler", "step:1", "executed:SaveImage", "success"],
)
@pytest.mark.parametrize("history_delay_s", [0.0, 0.4])
def test_socket_lost(
    job: Any,
    sampled: Callable[..., Graph],
    faults: Any,
    moment: str,
    history_delay_s: float,
) -> None:
    faults(step_latency_s=0.02, drop_socket_at=moment, history_delay_s=history_delay_s)
    execution = job.run(sampled())
    assert job.files == [("9", execution.files["9"])]
    assert not execution.cached


def test_socket_lost_again_and_again(job: Any, sampled: Callable[..., Graph], faults: Any) -> None:
    # True is every moment there is: the socket is cut before each node and after each step.
    faults(step_latency_s=0.12, drop_socket_at=True, times=50)
    execution = job.run(sampled(steps=4))
    assert job.files == [("9", execution.files["9"])]


def test_history_that_never_comes_does_not_matter_while_the_socket_lived(
    job: Any, plain: Callable[[], Graph], faults: Any
) -> None:
    faults(lose_history=True)
    assert job.run(plain()).files["2"]


def test_history_empty_after_the_socket_was_lost(
    job: Any, plain: Callable[[], Graph], faults: Any
) -> None:
    faults(lose_history=True)
    faults(drop_socket_at="executed:SaveImage")
    with pytest.raises(EngineCrashed) as caught:
        job.run(plain())
    assert caught.value.retryable
    assert job.run(plain()).files["2"]


def test_out_of_memory(job: Any, sampled: Callable[..., Graph], faults: Any) -> None:
    faults(oom_at_node="KSampler")
    with pytest.raises(OutOfMemory) as caught:
        job.run(sampled())
    assert caught.value.details["node_type"] == "KSampler"
    job.client.free()
    assert job.run(sampled()).files["9"]


def test_disk_full(job: Any, plain: Callable[[], Graph], faults: Any) -> None:
    faults(disk_full=True)
    with pytest.raises(DiskFull):
        job.run(plain())


def test_a_file_that_is_reported_but_not_there(
    client: ComfyUIClient, job: Any, plain: Callable[[], Graph], faults: Any
) -> None:
    faults(missing_output=True)
    file = job.run(plain()).files["2"][0]
    with pytest.raises(ExecutionFailed), client.opened(file):
        pass


def test_interrupted_from_outside(
    engine: ComfyUIProcess, job: Any, sampled: Callable[..., Graph], faults: Any
) -> None:
    faults(step_latency_s=0.12)
    interrupt = partial(requests.post, f"{engine.url}/interrupt", json={}, timeout=5)
    job.on_step = lambda step: interrupt() if step.step == 2 else None
    with pytest.raises(ExecutionFailed, match="interrupted"):
        job.run(sampled(steps=50))
