"""The real SDK's loop ends promptly at SIGTERM, however long the platform holds its polls."""

import contextlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
WORKER = """
import asyncio, contextlib
import runpod
from worker.stopping import ShutdownHook

end = ShutdownHook()

def concurrency(_current):
    end.install()
    return 2

async def handler(job):
    await asyncio.sleep(job["input"]["seconds"])
    return {"slept": job["input"]["seconds"]}

with contextlib.suppress(asyncio.CancelledError):
    runpod.serverless.start({"handler": handler, "concurrency_modifier": concurrency})
print("ended by itself", flush=True)
"""


@dataclass
class HoldingPlatform:
    """Hands out what is in `jobs`, then holds every poll until the test is over."""

    jobs: list[dict[str, Any]] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)
    polled: threading.Event = field(default_factory=threading.Event)
    taken: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    url: str = ""


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        pass

    def do_GET(self) -> None:
        platform: HoldingPlatform = self.server.platform  # type: ignore[attr-defined]
        if "job-take" in self.path and platform.jobs:
            jobs, platform.jobs = platform.jobs, []
            self._answer(200, json.dumps(jobs).encode())
            platform.taken.set()
        elif "job-" in self.path:
            if "job-take" in self.path:
                platform.polled.set()
            platform.over.wait(60)
        else:
            self._answer(200, b"")

    def do_POST(self) -> None:
        platform: HoldingPlatform = self.server.platform  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        platform.results.append(json.loads(body))
        self._answer(200, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def platform() -> Iterator[HoldingPlatform]:
    held = HoldingPlatform()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.platform = held  # type: ignore[attr-defined]
        held.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield held
        held.over.set()
        server.shutdown()
        thread.join(5)


@contextlib.contextmanager
def working(platform: HoldingPlatform) -> Iterator["subprocess.Popen[str]"]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "RUNPOD_WEBHOOK_GET_JOB": f"{platform.url}/job-take/$ID?gpu=none",
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{platform.url}/job-done/$ID?gpu=none",
        "RUNPOD_WEBHOOK_PING": f"{platform.url}/ping?gpu=none",
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "RUNPOD_SKIP_GPU_CHECK": "true",
    }
    with subprocess.Popen(
        [sys.executable, "-c", WORKER], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def stopped(worker: "subprocess.Popen[str]") -> tuple[float, str]:
    started = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    said, _ = worker.communicate(timeout=30)
    return time.monotonic() - started, said


def test_idle_worker_ends_at_once(platform: HoldingPlatform) -> None:
    with working(platform) as worker:
        assert platform.polled.wait(30)
        took_s, said = stopped(worker)
    assert "ended by itself" in said
    assert worker.returncode == 0
    assert took_s < 5


def test_running_job_is_finished_and_delivered_first(platform: HoldingPlatform) -> None:
    platform.jobs = [{"id": "job-1", "input": {"seconds": 1.5}}]
    with working(platform) as worker:
        assert platform.taken.wait(30)
        assert platform.polled.wait(30)  # for the second of its two jobs
        took_s, said = stopped(worker)
    assert platform.results == [{"output": {"slept": 1.5}}]
    assert "ended by itself" in said
    assert took_s < 6
