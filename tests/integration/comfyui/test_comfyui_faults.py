"""What happens in production, caused for real: deaths, hangs, lost sockets, lost history."""

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from worker.comfyui.client import ComfyUIClient
from worker.comfyui.process import ComfyUIProcess
from worker.errors import (
    Cancelled,
    DiskFull,
    EngineCrashed,
    EngineUnavailable,
    ExecutionFailed,
    OutOfMemory,
    TimedOut,
)

Graph = dict[str, dict[str, Any]]


def kill(engine: ComfyUIProcess) -> None:
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)


def test_killed_while_idle(engine: ComfyUIProcess, job: Any, plain: Callable[[], Graph]) -> None:
    seen = engine.generation
    kill(engine)
    with pytest.raises((EngineUnavailable, EngineCrashed)):
        job.run(plain())
    engine.ensure_ready()
    assert engine.generation == seen + 1
    assert job.run(plain()).files["2"]


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
    with pytest.raises(TimedOut) as caught:
        job.run(sampled(), timeout_s=0.5)
    assert caught.value.details == {"hung": True}
    engine.restart(seen)
    assert job.run(sampled()).files["9"]


def test_hangs_while_it_is_cancelled(
    engine: ComfyUIProcess, job: Any, sampled: Callable[..., Graph], faults: Any
) -> None:
    faults(hang_at="executing:VAEDecode")
    threading.Timer(0.3, job.cancel.cancel).start()
    with pytest.raises(Cancelled) as caught:
        job.run(sampled())
    assert caught.value.details == {"hung": True}
    engine.restart()


def test_frozen_without_an_answer_to_anything(
    engine: ComfyUIProcess, job: Any, sampled: Callable[..., Graph], faults: Any
) -> None:
    faults(step_latency_s=0.12)
    assert engine.pid is not None
    pid = engine.pid
    job.on_step = lambda step: os.kill(pid, signal.SIGSTOP) if step.step == 1 else None
    with pytest.raises(TimedOut) as caught:
        job.run(sampled(steps=50), timeout_s=1.0)
    assert caught.value.details == {"hung": True}
    engine.restart()


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
    job: Any, client: ComfyUIClient, sampled: Callable[..., Graph], faults: Any
) -> None:
    faults(step_latency_s=0.12)
    job.on_step = lambda step: client.interrupt("") if step.step == 2 else None
    with pytest.raises(ExecutionFailed, match="interrupted"):
        job.run(sampled(steps=50))
