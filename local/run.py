"""`python -m local run`: one job, start to finish, as RunPod's local test runs it."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import requests

from local.stack import ROOT, Stack

OUT: Final = ROOT / "out"
LOG: Final = OUT / "handler.log"
_TAIL_LINES: Final = 20
_JOB_TIMEOUT_S: Final = 1800
_STOP_TIMEOUT_S: Final = 30


class Steps:
    """Tells a person what happens, each line with the seconds since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def say(self, what: str, text: object) -> None:
        """One line, at once."""
        print(f"{time.monotonic() - self._started:5.1f} s  {what:<10} {text}", flush=True)


def main(job: Path | None = None, *, verbose: bool = False) -> int:
    """Run one job, fetch its outputs by their URLs into `out/`; the exit status.

    The handler's own log goes to `out/handler.log`; its end is shown when the job fails. The last
    line of a success is the first output's address.

    Args:
        job: a file like `test_input.json`, which is the default.
        verbose: show the handler's log as it comes.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    steps = Steps()
    try:
        with Stack.from_environment() as stack:
            steps.say("S3 server", stack.s3.endpoint_url)
            steps.say("Engine", stack.engine)
            stack.register_demo()
            steps.say("Character", "demo registered")
            environment = stack.environment(
                LOCAL_RESULT_FILE=str(stack.folder / "result.json"), LOG_FORMAT="text"
            )
            folder = ROOT if job is None else placed(job, stack.folder / "job")
            steps.say("Job", f"{job or 'test_input.json'}, through python handler.py ...")
            result = run_handler(environment, folder, None if verbose else LOG)
            if result is None:
                return _failed(verbose=verbose)
            paths = fetch(result, OUT)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    (OUT / "result.json").write_text(json.dumps(result, indent=2, ensure_ascii=False), "utf-8")
    steps.say("Done", described(result))
    print(f"\n{(paths[0] if paths else OUT / 'result.json').as_uri()}")
    return 0


def described(result: dict[str, Any]) -> str:
    """A result in a line: its outputs, how long they took, where the rest stands."""
    outputs = [
        f"{output['kind']} {output.get('width', '?')}x{output.get('height', '?')}, "
        f"{output['bytes'] / 1e6:.1f} MB"
        for output in result.get("outputs", ())
    ]
    took = result.get("timings_ms", {}).get("total", 0) / 1000
    return f"{'; '.join(outputs) or result['task']} in {took:.2f} s (out/: result, manifest, log)"


def _failed(*, verbose: bool) -> int:
    if not verbose:
        lines = LOG.read_text("utf-8", "replace").splitlines()[-_TAIL_LINES:]
        print("\n".join(lines), file=sys.stderr)
    print(f"The job failed; the handler's last lines are above, all in {LOG}.", file=sys.stderr)
    return 1


def placed(job: Path, folder: Path) -> Path:
    """A folder with the job as its `test_input.json`, where the SDK looks for it."""
    folder.mkdir()
    shutil.copy(job, folder / "test_input.json")
    return folder


def run_handler(environment: dict[str, str], folder: Path, log: Path | None) -> Any:
    """Run `handler.py` in the SDK's local mode; its result, or None when the job failed.

    What it prints goes to `log`, or with None to our own output.
    """
    answer = Path(environment["LOCAL_RESULT_FILE"])
    with contextlib.ExitStack() as held:
        output = held.enter_context(log.open("wb")) if log else None
        handler = subprocess.Popen(
            [sys.executable, str(ROOT / "handler.py")],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
        )
        held.callback(_end, handler)
        failed = handler.wait(_JOB_TIMEOUT_S) != 0
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
    manifest = [result["manifest"]] if result.get("manifest") else []
    urls = [output["url"] for output in (*result.get("outputs", ()), *manifest)]
    paths = []
    for url in urls:
        answer = requests.get(url, timeout=60)
        answer.raise_for_status()
        path = folder / Path(urlsplit(url).path).name
        path.write_bytes(answer.content)
        paths.append(path)
    return paths
