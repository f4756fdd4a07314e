"""The servers of the suite: the stand-in always, a real ComfyUI where COMFYUI_DIR names one."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from local.ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINTS = ("tiny_sdxl.safetensors", "tiny_svd.safetensors")
REAL_FOLDER = os.environ.get("COMFYUI_DIR", "")
REAL_PYTHON = os.environ.get("COMFYUI_PYTHON", sys.executable)

_OPTIONS = (
    "--cpu",
    "--disable-auto-launch",
    "--disable-api-nodes",
    "--disable-all-custom-nodes",
    "--database-url=sqlite:///:memory:",
)
_START_TIMEOUT_S = {"stand-in": 15.0, "real": 180.0}


@dataclass(frozen=True)
class Server:
    """One that answers."""

    kind: str
    address: str
    output: Path
    input: Path
    loras: Path
    pid: int
    log: Path

    @property
    def real(self) -> bool:
        return self.kind == "real"

    def get(self, path: str, **query: str) -> requests.Response:
        return requests.get(f"http://{self.address}{path}", params=query, timeout=30)

    def post(self, path: str, body: Any = None) -> requests.Response:
        data = json.dumps(body)  # NaN too, as Python clients send it
        headers = {"Content-Type": "application/json"}
        url = f"http://{self.address}{path}"
        return requests.post(url, data=data, headers=headers, timeout=30)

    def faults(self, **faults: Any) -> None:
        """Switch faults of the stand-in on."""
        self.post("/stand-in/faults", faults).raise_for_status()


@contextlib.contextmanager
def running(kind: str, folder: Path, options: Sequence[str] = ()) -> Iterator[Server]:
    """Start a server whose files all lie below a folder; end it after use."""
    places = {name: folder / name for name in ("output", "input", "temp", "user", "loras")}
    for place in places.values():
        place.mkdir(parents=True, exist_ok=True)
    config = folder / "extra_model_paths.yaml"
    config.write_text(f"characters:\n  base_path: {folder}\n  loras: loras\n")
    [port] = free_ports(1)
    given = [
        *("--listen", "127.0.0.1", "--port", str(port), "--extra-model-paths-config", str(config)),
        *(f"--{name}-directory={places[name]}" for name in ("output", "input", "temp", "user")),
        *_OPTIONS,
        *options,
    ]
    log = folder / "server.log"
    argv, cwd = _command(kind, folder)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*argv, *given], cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            address = f"127.0.0.1:{port}"
            _wait_ready(process, address, log, _START_TIMEOUT_S[kind])
            yield Server(
                kind,
                address,
                places["output"],
                places["input"],
                places["loras"],
                process.pid,
                log,
            )
        finally:
            process.kill()
            process.wait()


def _command(kind: str, folder: Path) -> tuple[list[str], Path]:
    if kind == "real":
        return [REAL_PYTHON, "main.py"], Path(REAL_FOLDER)
    checkpoints = folder / "models" / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    for name in CHECKPOINTS:
        (checkpoints / name).touch()
    # As a worker starts it: `python main.py` in the folder that COMFYUI_DIR names.
    argv = [sys.executable, "main.py", f"--models-directory={folder / 'models'}"]
    return argv, ROOT / "local" / "comfyui"


def _wait_ready(
    process: "subprocess.Popen[bytes]", address: str, log: Path, timeout_s: float
) -> None:
    deadline = time.monotonic() + timeout_s
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(requests.ConnectionError):
            if requests.get(f"http://{address}/system_stats", timeout=30).ok:
                return
        time.sleep(0.05)
    raise RuntimeError(f"no server: {log.read_text(errors='replace')[-2000:]}")
