"""A worker under the real SDK's loop with a stand-in ComfyUI that fails on demand."""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import requests

from local.faults import FaultProxy
from local.platform import containers
from local.platform.jobs import Policy
from local.platform.pods import PodOptions
from local.platform.running import RunningPlatform, running
from local.platform.server import PlatformOptions
from local.ports import free_ports
from local.stack import ROOT, Stack
from worker.storage import ObjectStore

IN_PROGRESS: Final = frozenset({"IN_PROGRESS"})
WORKER: Final = "local-1"
HANDLER: Final = (sys.executable, "-u", str(ROOT / "handler.py"))


class PlatformHarness:
    """One worker, its platform, its ComfyUI and its bucket, with what a test does to them."""

    def __init__(
        self,
        stack: Stack,
        platform: RunningPlatform,
        proxy: FaultProxy,
        comfyui_port: int,
        logs: Path,
    ) -> None:
        self.stack = stack
        self.platform = platform
        self.proxy = proxy
        self.client = platform.client
        self.work = work_folder(stack, comfyui_port)
        self._comfyui_port = comfyui_port
        self._faults_file = faults_file(logs)
        self._comfyui = f"http://127.0.0.1:{comfyui_port}"

    # -- jobs ------------------------------------------------------------------------------------

    def image(self, *, policy: Mapping[str, int] | None = None, **fields: Any) -> str:
        """Submit an image job of the demo character; answers its id."""
        job = {"task": "image", "prompt": "a portrait", "character_id": "demo", "steps": 2}
        job_input = {**job, "width": 256, "height": 256, **fields}
        return self.client.run(job_input, **({"policy": policy} if policy else {}))

    def finished(self, job_id: str, *, timeout_s: float = 60.0) -> dict[str, Any]:
        """The status of a job when it has ended."""
        return self.client.wait(job_id, timeout_s=timeout_s)

    def completed(self, job_id: str, *, timeout_s: float = 60.0) -> dict[str, Any]:
        """The output of a job that must succeed, its objects fetched and checked."""
        status = self.finished(job_id, timeout_s=timeout_s)
        assert status["status"] == "COMPLETED", status
        output: dict[str, Any] = status["output"]
        assert output["outputs"], status
        for each in output["outputs"]:
            assert len(requests.get(each["url"], timeout=10).content) == each["bytes"]
        return output

    def failed(self, job_id: str, code: str, *, timeout_s: float = 60.0) -> dict[str, Any]:
        """The output of a job that must fail with this code."""
        status = self.finished(job_id, timeout_s=timeout_s)
        assert status["status"] == "FAILED", status
        output: dict[str, Any] = status["output"]
        assert (output["code"], bool(status["error"])) == (code, True), status
        return output

    def running_at(self, job_id: str, stage: str, *, timeout_s: float = 20.0) -> None:
        """Wait until the job reports this stage."""

        def reached() -> bool:
            output = self.client.status(job_id).get("output")
            return isinstance(output, dict) and output.get("stage") == stage

        assert eventually(reached, timeout_s), self.client.status(job_id)

    # -- ComfyUI ---------------------------------------------------------------------------------

    def faults(self, **given: Any) -> None:
        """Switch faults of the stand-in on."""
        url = f"{self._comfyui}/stand-in/faults"
        requests.post(url, json=given, timeout=5).raise_for_status()

    def make_well(self) -> None:
        """No fault switched on, ComfyUI up, the worker idle.

        A ComfyUI that died behind the last job is started by the next one.
        """
        self.proxy.clear()
        if not self._cleared():
            self._faults_file.unlink(missing_ok=True)
            self.completed(self.image())
            assert self._cleared()

    def _cleared(self) -> bool:
        try:
            requests.delete(f"{self._comfyui}/stand-in/faults", timeout=5)
        except requests.ConnectionError:
            return False
        return True

    def armed(self) -> dict[str, Any]:
        """The faults that have not happened yet."""
        held = json.loads(self._faults_file.read_text()) if self._faults_file.exists() else []
        left = {name: at for given in held for name, at in given.items()}
        return {name: at for name, at in left.items() if name != "times" and name[-2:] != "_s"}

    def gpu_is_free(self) -> bool:
        """Whether ComfyUI answers and has nothing queued or running."""
        try:
            queue = requests.get(f"{self._comfyui}/queue", timeout=5).json()
        except requests.ConnectionError:
            return False
        return not queue["queue_running"] and not queue["queue_pending"]

    def is_sampling(self) -> bool:
        """Whether a prompt runs."""
        queue = requests.get(f"{self._comfyui}/queue", timeout=5).json()
        return bool(queue["queue_running"])

    def comfyui_pid(self) -> int:
        """The process that listens as our ComfyUI."""
        wanted = f"--port\0{self._comfyui_port}\0".encode()
        for pid in self.processes():
            if wanted in _read(Path(f"/proc/{pid}/cmdline")):
                return pid
        raise LookupError("ComfyUI is not running")

    def kill_comfyui(self) -> None:
        """SIGKILL to ComfyUI's own process."""
        os.kill(self.comfyui_pid(), signal.SIGKILL)

    # -- what is left behind ---------------------------------------------------------------------

    def processes(self) -> list[int]:
        """Every process of the worker's container."""
        pid = self.platform.pid(WORKER)
        environment = _read(Path(f"/proc/{pid}/environ")).split(b"\0")
        marks = [line for line in environment if line.startswith(containers.MARK.encode())]
        return containers.processes(marks[0].decode().split("=", 1)[1]) if marks else []

    def files(self) -> set[str]:
        """Every file of the worker but whole LoRAs, and what their cache keeps about them."""
        walk = os.walk(self.work)  # unlike rglob, calm about folders that go meanwhile
        paths = [
            Path(folder, name).relative_to(self.work) for folder, _, names in walk for name in names
        ]
        return {
            re.sub(r"(model-folders)-\w+", r"\1", str(path))  # one, named anew by each life
            for path in paths
            if "loras" not in path.parts or "parts" in path.parts or ".tmp" in path.name
        }

    def objects(self, job_id: str) -> list[str]:
        """The keys in the bucket that carry a job's id."""
        with ObjectStore(self.stack.s3.options()) as store:
            return [info.key for info in store.list("") if job_id in info.key]

    @contextmanager
    def nothing_left(self, *, within_s: float = 3.0) -> Iterator[None]:
        """After the block: the GPU free, and no file or process more than before, in time."""
        files, processes = self.files(), len(self.processes())
        yield

        def clean() -> bool:
            fewer = self.files() <= files and len(self.processes()) <= processes
            return fewer and self.gpu_is_free()

        assert eventually(clean, within_s), (self.files() - files, len(self.processes()))


def work_folder(stack: Stack, comfyui_port: int) -> Path:
    """A worker's own folder, since two must not share one."""
    return stack.folder / f"work-{comfyui_port}"


def faults_file(logs: Path) -> Path:
    """Where the stand-in keeps what it is still to do."""
    return logs / "stand-in-faults.json"


@contextmanager
def open_platform(
    stack: Stack,
    logs: Path,
    *,
    settings: Mapping[str, str],
    argv: tuple[str, ...] = HANDLER,
) -> Iterator[PlatformHarness]:
    """A worker that takes jobs when the block begins, and reaches its bucket by a proxy."""
    port = free_ports(1)[0]
    with FaultProxy(stack.s3.endpoint_url) as proxy:
        given = {
            "WORK_DIR": str(work_folder(stack, port)),
            "COMFYUI_PORT": str(port),
            "COMFYUI_ARGS": f"--stand-in-faults {faults_file(logs)}",
            "S3_ENDPOINT_URL": proxy.url,
            "LOG_FORMAT": "text",
            **settings,
        }
        pods = PodOptions(
            argv=argv,
            environment=lambda _number: stack.environment(**given),
            folder=ROOT,
            logs=logs,
            stop_grace_s=30,
            ping_interval_s=1,
            ping_timeout_s=30,
        )
        options = PlatformOptions(pods=pods, policy=Policy(execution_timeout_s=30))
        with running(options) as platform:
            harness = PlatformHarness(stack, platform, proxy, port, logs)
            harness.completed(harness.image(), timeout_s=60)
            yield harness


def eventually(condition: Callable[[], bool], within_s: float) -> bool:
    """Whether the condition comes true in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it ended meanwhile
        return b""
