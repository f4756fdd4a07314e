"""`python -m local serve` and `python -m local.soak`, as a person starts them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from local.platform.client import EndpointClient
from local.ports import free_ports
from local.stack import ROOT

pytestmark = pytest.mark.process


def test_serve_answers_a_job_and_ends_at_sigterm_with_all_it_started(tmp_path: Path) -> None:
    port, page_port = free_ports(2)
    log = tmp_path / "serve.log"
    with log.open("wb") as output:
        serve = subprocess.Popen(
            [
                *(sys.executable, "-m", "local", "serve"),
                *("--port", str(port), "--page-port", str(page_port)),
            ],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(tmp_path)},
            stdout=output,
            stderr=output,
        )
    try:
        client = EndpointClient(f"http://127.0.0.1:{port}/v2/local")
        wait_until_up(client, serve)
        job = {"task": "image", "prompt": "portrait", "character_id": "demo", "width": 256}
        answer = client.post("runsync", {"input": {**job, "height": 256, "steps": 2}})
        assert answer["status"] == "COMPLETED", answer
        for each in answer["output"]["outputs"]:
            assert requests.get(each["url"], timeout=10).ok
        assert "curl -s" in log.read_text()
        assert f"Page and API     http://127.0.0.1:{page_port}" in log.read_text()
        assert requests.get(f"http://127.0.0.1:{page_port}/characters/demo", timeout=10).ok
    finally:
        serve.send_signal(signal.SIGTERM)
        assert serve.wait(40) == 0
    assert processes_in(tmp_path) == []
    assert [path for path in tmp_path.iterdir() if path != log] == []


def wait_until_up(client: EndpointClient, serve: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while True:
        assert serve.poll() is None, "serve ended"
        try:
            client.get("health")
        except requests.ConnectionError:
            assert time.monotonic() < deadline, "serve does not answer"
            time.sleep(0.1)
        else:
            return


def processes_in(folder: Path) -> list[str]:
    """Processes that work in a folder below this one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"={folder}/".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found


def test_serve_says_when_its_port_is_taken() -> None:
    port = free_ports(1)[0]
    holder = subprocess.Popen([sys.executable, "-m", "http.server", str(port), "-b", "127.0.0.1"])
    try:
        deadline = time.monotonic() + 20
        while not answers(port):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        done = subprocess.run(
            [sys.executable, "-m", "local", "serve", "--port", str(port)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
    finally:
        holder.terminate()
        holder.wait(10)
    assert (done.returncode, "--port" in done.stderr) == (1, True)
    assert "Traceback" not in done.stderr


def answers(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/", timeout=1).ok
    except requests.ConnectionError:
        return False


def test_a_short_soak_is_sound(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "local.soak", "--seconds", "6", "--workers", "2"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    report = json.loads(done.stdout)
    assert report["wrong"] == [], report
    assert done.returncode == 0
    assert report["accepted"] >= 2
    assert list(tmp_path.iterdir()) == []
