"""The emulator with real worker processes under the real SDK's own loop, running tiny handlers."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.platform.client import EndpointClient
from local.platform.jobs import Policy
from local.platform.pods import PodOptions
from local.platform.running import RunningPlatform, running
from local.platform.server import PlatformOptions

pytestmark = pytest.mark.process

IN_PROGRESS = frozenset({"IN_PROGRESS"})

HANDLER = """
import asyncio, os, subprocess, sys
from pathlib import Path
import runpod

NOTES = Path(os.environ["NOTES"])

def note(text):
    with NOTES.open("a") as notes:
        notes.write(text + "\\n")

async def handler(job):
    wish = job["input"]
    match wish.get("do"):
        case "sleep":
            try:
                await asyncio.sleep(wish["seconds"])
            except asyncio.CancelledError:
                note("cancelled " + job["id"])
                raise
        case "raise":
            raise ValueError("broken")
        case "refuse":
            return {"error": "no", "code": "invalid_input"}
        case "progress":
            runpod.serverless.progress_update(job, "half")
            await asyncio.sleep(wish["seconds"])
        case "die":
            os._exit(3)
        case "die once":
            note("tried " + job["id"])
            if NOTES.read_text().count("tried " + job["id"]) == 1:
                os._exit(3)
        case "refresh":
            return {"refresh_worker": True, "pid": os.getpid()}
        case "leave child":
            child = subprocess.Popen(["sleep", "600"], start_new_session=True)
            note(f"child {child.pid}")
            os._exit(3)
    return {"pid": os.getpid(), "worker": os.environ["RUNPOD_POD_ID"], "wish": wish}

runpod.serverless.start({"handler": handler, "concurrency_modifier": lambda _: 2})
"""

STREAMER = """
import runpod

async def handler(job):
    for number in range(3):
        yield {"number": number}

runpod.serverless.start({"handler": handler, "return_aggregate_stream": True})
"""


def options(
    folder: Path, source: str = HANDLER, *, ping_timeout_s: float = 60, **changes: Any
) -> PlatformOptions:
    handler = folder / "handler.py"
    handler.write_text(source)
    pods = PodOptions(
        argv=(sys.executable, str(handler)),
        environment=lambda _number: {
            **os.environ,
            "NOTES": str(folder / "notes"),
            "RUNPOD_LOG_LEVEL": "INFO",
        },
        folder=folder,
        logs=folder,
        ping_interval_s=1,
        ping_timeout_s=ping_timeout_s,
        stop_grace_s=10,
    )
    return PlatformOptions(pods=pods, **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("platform")


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[RunningPlatform]:
    (folder / "notes").touch()
    policy = Policy(execution_timeout_s=5)
    with running(options(folder, workers=1, policy=policy)) as platform:
        yield platform


@pytest.fixture
def client(served: RunningPlatform) -> EndpointClient:
    return served.client


def ended_pid(pid: int, *, within_s: float = 5.0) -> bool:
    deadline = time.monotonic() + within_s
    while Path(f"/proc/{pid}").exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def noted(folder: Path, text: str, *, within_s: float = 5.0) -> bool:
    deadline = time.monotonic() + within_s
    while text not in (folder / "notes").read_text():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_a_result(client: EndpointClient) -> None:
    answer = client.post("runsync", {"input": {"do": "echo"}})
    assert answer["status"] == "COMPLETED"
    assert answer["output"]["wish"] == {"do": "echo"}
    assert answer["workerId"] == answer["output"]["worker"] == "local-1"
    assert answer["executionTime"] < 5000


def test_an_error_that_the_handler_returns(client: EndpointClient) -> None:
    answer = client.post("runsync", {"input": {"do": "refuse"}})
    assert (answer["status"], answer["error"]) == ("FAILED", "no")
    assert answer["output"] == {"code": "invalid_input"}


def test_an_error_that_the_handler_raises(client: EndpointClient) -> None:
    answer = client.post("runsync", {"input": {"do": "raise"}})
    assert answer["status"] == "FAILED"
    assert "broken" in answer["error"]


def test_progress_shows_in_the_status(client: EndpointClient) -> None:
    job_id = client.run({"do": "progress", "seconds": 3})
    client.wait(job_id, until=IN_PROGRESS)
    deadline = time.monotonic() + 3
    while client.status(job_id).get("output") != "half":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert client.wait(job_id)["output"]["wish"]["do"] == "progress"


def test_two_jobs_run_at_once(client: EndpointClient) -> None:
    started = time.monotonic()
    ids = [client.run({"do": "sleep", "seconds": 3}) for _ in range(2)]
    statuses = [client.wait(job_id)["status"] for job_id in ids]
    assert statuses == ["COMPLETED"] * 2
    assert time.monotonic() - started < 6


def test_a_cancel_ends_the_running_handler(client: EndpointClient, folder: Path) -> None:
    job_id = client.run({"do": "sleep", "seconds": 60})
    client.wait(job_id, until=IN_PROGRESS)
    assert client.cancel(job_id)["status"] == "CANCELLED"
    assert noted(folder, f"cancelled {job_id}", within_s=3)


def test_the_execution_timeout_ends_the_running_handler(
    client: EndpointClient, folder: Path
) -> None:
    job_id = client.run({"do": "sleep", "seconds": 60})
    assert client.wait(job_id, timeout_s=15)["status"] == "TIMED_OUT"
    assert noted(folder, f"cancelled {job_id}", within_s=3)


def test_refresh_worker_starts_a_new_process(client: EndpointClient) -> None:
    before = client.post("runsync", {"input": {"do": "refresh"}})["output"]["pid"]
    after = client.post("runsync", {"input": {}})["output"]["pid"]
    assert before != after
    assert client.get("metrics")["pods"]["local-1"]["exits"][-1] == 0


def test_a_job_survives_the_death_of_its_worker(client: EndpointClient) -> None:
    status = client.wait(client.run({"do": "die once"}))
    assert (status["status"], status["retries"]) == ("COMPLETED", 1)
    assert client.get("metrics")["pods"]["local-1"]["exits"][-1] == 3


def test_a_dead_workers_children_are_ended_and_counted(
    client: EndpointClient, folder: Path
) -> None:
    job_id = client.run({"do": "leave child"})
    assert noted(folder, "child ", within_s=20)
    client.cancel(job_id)
    child = int((folder / "notes").read_text().split("child ")[1].split()[0])
    assert ended_pid(child)
    client.post("runsync", {"input": {}})
    assert client.get("metrics")["pods"]["local-1"]["left_behind"] == ["sleep 600"]


def test_a_frozen_worker_stops_pinging_and_its_job_moves_on(tmp_path: Path) -> None:
    with running(options(tmp_path, workers=1, ping_timeout_s=4)) as served:
        client = served.client
        frozen = client.post("runsync", {"input": {}})["output"]["pid"]
        for pid in processes_of(frozen):
            os.kill(pid, signal.SIGSTOP)
        job_id = client.run({})
        assert ended_pid(frozen, within_s=20)
        status = client.wait(job_id)
        assert status["status"] == "COMPLETED"
        assert status["output"]["pid"] == served.pid("local-1") != frozen


def processes_of(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def test_scale_down_lets_the_running_job_finish(tmp_path: Path) -> None:
    with running(options(tmp_path, workers=1)) as served:
        job_id = served.client.run({"do": "sleep", "seconds": 2})
        served.client.wait(job_id, until=IN_PROGRESS)
        queued = served.client.run({})
        served.scale(0)
        assert served.client.status(job_id)["status"] == "COMPLETED"
        assert served.client.status(queued)["status"] in {"IN_QUEUE", "COMPLETED"}
        assert served.client.get("metrics")["pods"] == {}


def test_a_generators_chunks_stream(tmp_path: Path) -> None:
    with running(options(tmp_path, STREAMER, workers=1)) as served:
        job_id = served.client.run({})
        chunks: list[Any] = []
        deadline = time.monotonic() + 30
        while (read := served.client.get(f"stream/{job_id}"))["status"] != "COMPLETED":
            chunks += read["stream"]
            assert time.monotonic() < deadline
        chunks += read["stream"]
        assert [chunk["output"] for chunk in chunks] == [{"number": n} for n in range(3)]
        assert served.client.status(job_id)["output"] == [{"number": n} for n in range(3)]
