"""`python -m local run`, as a newcomer types it; and what is left when it is stopped."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from PIL import Image

from local.stack import ROOT

pytestmark = pytest.mark.process
COMMAND = [sys.executable, "-m", "local", "run"]


def descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def environment(scratch: Path) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("COMFYUI")}
    return kept | {"TMPDIR": str(scratch)}


def test_one_command_makes_a_picture_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = subprocess.run(  # noqa: PLW1510 - a failure is shown with its output below
        COMMAND, cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with Image.open(ROOT / "out" / "0.png") as image:
        image.load()
        assert image.size == (832, 1216)
    manifest = json.loads((ROOT / "out" / "manifest.json").read_text())
    assert manifest["character"]["character_id"] == "demo"
    assert list(tmp_path.iterdir()) == []
    *steps, empty, address = done.stdout.splitlines()
    assert (empty, address) == ("", (ROOT / "out" / "0.png").as_uri())
    assert all(re.match(r" *\d+\.\d s  \S", line) for line in steps), done.stdout
    assert len(steps) < 10
    assert done.stderr == ""


def test_a_failed_job_says_why_and_where_the_rest_stands(tmp_path: Path) -> None:
    job = tmp_path / "job.json"
    job.write_text('{"input": {"task": "characters", "action": "get", "character_id": "nobody"}}')
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    done = subprocess.run(  # noqa: PLW1510 - the failure is what is tested
        [*COMMAND, str(job)],
        cwd=ROOT,
        env=environment(scratch),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "There is no character 'nobody'" in done.stderr
    assert str(ROOT / "out" / "handler.log") in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stdout + done.stderr


def test_ctrl_c_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    running = subprocess.Popen(
        COMMAND,
        cwd=ROOT,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # a terminal's Ctrl-C reaches the whole foreground group
    )
    children: list[psutil.Process] = []
    with running:
        for line in running.stdout or ():
            if "ComfyUI is ready" in line or "Character" in line:
                break
        deadline = time.monotonic() + 60
        while not any("handler.py" in " ".join(child.cmdline()) for child in children):
            assert time.monotonic() < deadline
            children = descendants(running.pid)
            time.sleep(0.05)
        os.killpg(running.pid, signal.SIGINT)
        assert running.wait(60) == 130
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []
    assert list(tmp_path.iterdir()) == []
