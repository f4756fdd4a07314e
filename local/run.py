"""`python -m local run`: one job, start to finish, as RunPod's local test runs it."""

import io
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import requests

from local.stack import ROOT, Stack

OUT: Final = ROOT / "out"
_JOB_TIMEOUT_S: Final = 1800
_STOP_TIMEOUT_S: Final = 30


def main(job: Path | None = None) -> int:
    """Run one job, fetch its outputs by their URLs into `out/`; the exit status.

    Args:
        job: a file like `test_input.json`, which is the default.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # our lines before the handler's, in a pipe too
    try:
        with Stack.from_environment() as stack:
            print(f"S3 server   {stack.s3.endpoint_url}\nEngine      {stack.engine}")
            stack.register_demo()
            print(f"Character   demo registered\nJob         {job or 'test_input.json'}\n")
            environment = stack.environment(LOCAL_RESULT_FILE=str(stack.folder / "result.json"))
            folder = ROOT if job is None else placed(job, stack.folder / "job")
            result = run_handler(environment, folder)
            if result is None:
                return 1
            print(json.dumps(result, indent=2, ensure_ascii=False))
            paths = fetch(result, OUT)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    print("\nFetched by their presigned URLs:")
    for path in paths:
        print(f"  {path.relative_to(ROOT)}")
    return 0


def placed(job: Path, folder: Path) -> Path:
    """A folder with the job as its `test_input.json`, where the SDK looks for it."""
    folder.mkdir()
    shutil.copy(job, folder / "test_input.json")
    return folder


def run_handler(environment: dict[str, str], folder: Path) -> Any:
    """Run `handler.py` in the SDK's local mode; its result, or None when the job failed."""
    answer = Path(environment["LOCAL_RESULT_FILE"])
    handler = subprocess.Popen(
        [sys.executable, str(ROOT / "handler.py")], cwd=folder, env=environment
    )
    try:
        failed = handler.wait(_JOB_TIMEOUT_S) != 0
    finally:
        _end(handler)
    return None if failed or not answer.exists() else json.loads(answer.read_text())


def _end(handler: "subprocess.Popen[bytes]") -> None:
    if handler.poll() is not None:
        return
    handler.terminate()
    try:
        handler.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        handler.kill()
        handler.wait()


def fetch(result: dict[str, Any], folder: Path) -> list[Path]:
    """Download every output and the manifest of a result, by URL alone."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    urls = [output["url"] for output in result["outputs"]] + [result["manifest"]["url"]]
    paths = []
    for url in urls:
        answer = requests.get(url, timeout=60)
        answer.raise_for_status()
        path = folder / Path(urlsplit(url).path).name
        path.write_bytes(answer.content)
        paths.append(path)
    return paths
