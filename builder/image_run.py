"""Running the built image with podman, without network: a first job, a platform's job, its end."""

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from builder.image_build import IMAGE
from builder.image_shop import CheckFailed, Shop
from builder.manifest import load

PYTHON: Final = "/opt/worker/bin/python"
MOST_TO_END_S: Final = 10.0
_START_TIMEOUT_S: Final = 60
_ORPHANS: Final = """
import pathlib
for status in pathlib.Path("/proc").glob("[0-9]*/status"):
    fields = dict(line.split(":\\t", 1) for line in status.read_text().splitlines())
    if fields["State"].startswith("Z"):
        print("zombie", fields["Name"])
print("first", pathlib.Path("/proc/1/comm").read_text().strip())
"""
_NO_TORCH: Final = """
import importlib.util, sys
import runpod
sys.exit(importlib.util.find_spec("torch") is not None)
"""
_JOB: Final = """
import json, sys
import requests
job = json.load(open("/app/test_input.json"))
answer = requests.post("http://127.0.0.1:8000/v2/local/runsync", json=job, timeout=60).json()
for output in (answer.get("output") or {}).get("outputs", ()):
    output["fetched"] = len(requests.get(output["url"], timeout=20).content)
print(json.dumps(answer))
"""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """A bucket and a platform, up in a container whose network the worker shares."""

    shop: Shop
    container: str
    storage: dict[str, str]
    platform: dict[str, str]

    def worker(self, name: str, *, on_platform: bool, detached: bool = False) -> str:
        """Run the image as it is, with its own entrypoint; returns what it printed, or its id."""
        environment = self.storage | (self.platform if on_platform else {})
        argv = ["podman", "run", "--name", name, *(["--detach"] if detached else [])]
        argv += [*_PLAIN, "--network", f"container:{self.container}"]
        argv += ["--volume", f"{self.shop.home / 'volume'}:/runpod-volume:ro"]
        for variable, text in environment.items():
            argv += ["--env", f"{variable}={text}"]
        return self.shop.run([*argv, IMAGE], log=name, timeout_s=120)


_PLAIN: Final = ("--no-healthcheck",)  # the runtime is containers.conf's


@contextmanager
def surroundings(shop: Shop) -> Iterator[Surroundings]:
    """Start them, wait until they are up, and remove every container at the end."""
    _remove_containers(shop)
    shared = shop.home / "shared"
    shared.mkdir(exist_ok=True)
    shared.chmod(0o777)  # the container's user is another one
    (shared / "environment.json").unlink(missing_ok=True)
    _lay_out_volume(shop.home / "volume")
    mounts = {
        shop.root / "local": "/app/local:ro",
        shop.root / "builder" / "image_surroundings.py": "/app/builder/image_surroundings.py:ro",
        shop.tools / "weed": "/opt/worker/bin/weed:ro",
        shared: "/shared",
    }
    argv = ["podman", "run", "--detach", "--name", "around", *_PLAIN, "--network", "none"]
    for source, place in mounts.items():
        argv += ["--volume", f"{source}:{place}"]
    argv += ["--entrypoint", "/usr/bin/tini", IMAGE, "--", PYTHON]
    try:
        shop.run([*argv, "-m", "builder.image_surroundings", "/shared"], log="around")
        document = _wait_for(shop, shared / "environment.json")
        yield Surroundings(shop, "around", document["storage"], document["platform"])
    finally:
        _remove_containers(shop)


def check_configuration(shop: Shop) -> str:
    """User, entrypoint, health check and labels as promised; no secret in the environment."""
    said = shop.run(["podman", "image", "inspect", IMAGE], log="inspect")
    image = json.loads(said)[0]
    config = image["Config"]
    problems = []
    if config.get("User", "") in {"", "0", "root", "0:0"}:
        problems.append("it runs as root")
    if config["Entrypoint"][0] != "/usr/bin/tini":
        problems.append("its first process is not an init")
    if not (image.get("Healthcheck") or config.get("Healthcheck")):
        problems.append("it has no health check")
    labels = config.get("Labels") or {}
    if "org.opencontainers.image.version" not in labels:
        problems.append("it has no OCI labels")
    secret = [line for line in config["Env"] if any(word in line for word in ("SECRET", "_KEY="))]
    problems += [f"it carries {line.partition('=')[0]}" for line in secret]
    if problems:
        raise CheckFailed("; ".join(problems))
    return f"{image['Size'] / 1e6:.0f} MB, user {config['User']}"


def check_no_torch(shop: Shop) -> str:
    """The handler's interpreter imports the SDK and finds no torch."""
    argv = ["podman", "run", "--rm", *_PLAIN, "--network", "none", "--entrypoint", PYTHON, IMAGE]
    shop.run([*argv, "-c", _NO_TORCH], log="no-torch")
    return ""


def check_first_job(around: Surroundings) -> str:
    """`test_input.json` through the entrypoint, ComfyUI's stand-in and the bucket."""
    said = around.worker("first-job", on_platform=False)
    for needed in ("linked /tmp/worker/models/checkpoints/", "STAND-IN", "'kind': 'image'"):
        if needed not in said:
            raise CheckFailed(f"{needed!r} is not in what it printed:\n{said[-2000:]}")
    return ""


def check_platform_job(around: Surroundings) -> str:
    """A worker that stays: healthy, serves a job of the queue, its picture can be fetched."""
    around.worker("worker", on_platform=True, detached=True)
    healthy_s = _wait_healthy(around.shop)
    said = around.shop.run(
        ["podman", "exec", "around", PYTHON, "-c", _JOB], log="platform-job", timeout_s=90
    )
    answer = json.loads(said.splitlines()[-1])
    outputs = (answer.get("output") or {}).get("outputs", ())
    if answer.get("status") != "COMPLETED" or not outputs:
        raise CheckFailed(f"the job was not served: {said[-2000:]}")
    if any(output["fetched"] != output["bytes"] for output in outputs):
        raise CheckFailed("a picture fetched by its URL is not the picture")
    return f"healthy after {healthy_s:.1f} s"


def check_end(around: Surroundings) -> str:
    """No zombie while it runs; after SIGTERM it is gone in time and by itself."""
    shop = around.shop
    said = shop.run(["podman", "exec", "worker", PYTHON, "-c", _ORPHANS], log="processes")
    if "zombie" in said or "first tini" not in said:
        raise CheckFailed(said)
    started = time.monotonic()
    shop.run(["podman", "stop", "--time", "60", "worker"], log="stop")
    took_s = time.monotonic() - started
    state = json.loads(shop.run(["podman", "inspect", "worker"], log="state"))[0]["State"]
    logs = shop.run(["podman", "logs", "worker"], log="worker-log")
    if state["ExitCode"] not in {0, 143} or "Traceback" in logs:
        raise CheckFailed(f"it ended with {state['ExitCode']}:\n{logs[-2000:]}")
    if took_s > MOST_TO_END_S:
        raise CheckFailed(f"it took {took_s:.1f} s to end, {MOST_TO_END_S:g} s are allowed")
    return f"ended {took_s:.1f} s after SIGTERM with {state['ExitCode']}"


def _wait_healthy(shop: Shop) -> float:
    started = time.monotonic()
    probe = ["podman", "exec", "worker", PYTHON, "builder/healthcheck.py"]
    while time.monotonic() - started < _START_TIMEOUT_S:
        if (
            subprocess.run(
                probe, env=dict(shop.environment), capture_output=True, check=False
            ).returncode
            == 0
        ):
            return time.monotonic() - started
        _still_running(shop, "worker")
        time.sleep(0.2)
    raise CheckFailed(f"not healthy after {_START_TIMEOUT_S} s")


def _wait_for(shop: Shop, file: Path) -> Any:
    started = time.monotonic()
    while time.monotonic() - started < _START_TIMEOUT_S:
        if file.exists():
            return json.loads(file.read_text("utf-8"))
        _still_running(shop, "around")
        time.sleep(0.1)
    raise CheckFailed(f"the surroundings were not up after {_START_TIMEOUT_S} s")


def _still_running(shop: Shop, container: str) -> None:
    state = ["podman", "inspect", "--format", "{{.State.Running}}", container]
    if "true" not in shop.run(state, log=f"{container}-running"):
        raise CheckFailed(shop.run(["podman", "logs", container], log=f"{container}-log")[-3000:])


def _remove_containers(shop: Shop) -> None:
    for container in ("worker", "first-job", "around"):
        argv: Sequence[str] = ["podman", "rm", "--force", "--time", "0", "--ignore", container]
        shop.run(argv, log=f"remove-{container}")


def _lay_out_volume(volume: Path) -> None:
    """A network volume with SDXL on it: a sparse file of its real size, for links go by that."""
    for model in load():
        if model.folder == "checkpoints":
            path = volume / "models" / model.relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            with path.open("r+b") as file:
                file.truncate(model.bytes)
