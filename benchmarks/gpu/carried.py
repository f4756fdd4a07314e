"""Unpack what `pack` packed and measure here: `python run.py [--into DIR] [more options]`.

More options are those of `python -m benchmarks.gpu`. Needs Python 3.11 with pip, and
torch for the card. When pieces are missing it names them and ends with 3, so pieces may be brought
one after another. Nothing is installed outside `--into`.
"""

import argparse
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

_INCOMPLETE = 3
_DONE = "unpacked"


def main() -> int:
    """Unpack once, then run the benchmark with what was carried."""
    here = Path(__file__).resolve().parent
    words, rest = _parser().parse_known_args()
    document = json.loads((here / "pieces.json").read_text())
    into = words.into.resolve()
    digest = hashlib.sha256(json.dumps(document).encode()).hexdigest()
    done = into / _DONE
    if not done.is_file() or done.read_text() != digest:
        pieces = [(here / piece["name"] / "part", piece) for piece in document["pieces"]]
        lacking = [piece["name"] for path, piece in pieces if not _is_whole(path, piece)]
        if lacking:
            print(f"missing or damaged: {', '.join(lacking)}", file=sys.stderr)
            return _INCOMPLETE
        shutil.rmtree(into, ignore_errors=True)
        _unpack([path for path, _ in pieces], into)
        for folder in sorted((into / "wheels").glob("*")):
            _install(folder, into / "sites" / folder.name)
        done.write_text(digest)
    return _measure(into, words.comfyui_args, rest)


def _is_whole(path: Path, piece: dict[str, str]) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == piece["sha256"]


class _Joined(io.RawIOBase):
    """The pieces, read as one file."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = list(paths)
        self._body = memoryview(b"")

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """The next bytes; none at the end."""
        if not self._body and self._paths:
            self._body = memoryview(self._paths.pop(0).read_bytes())
        size = min(len(buffer), len(self._body))
        buffer[:size] = self._body[:size]
        self._body = self._body[size:]
        return size


def _unpack(paths: list[Path], into: Path) -> None:
    into.mkdir(parents=True)
    joined = io.BufferedReader(_Joined(paths), 1 << 20)
    with tarfile.open(fileobj=joined, mode="r|gz") as archive:
        archive.extractall(into, filter="data")


def _install(wheels: Path, site: Path) -> None:
    """Unpack wheels into a folder for PYTHONPATH; the machine's own packages stay as they are."""
    argv = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile"]
    argv += ["--target", str(site), *map(str, sorted(wheels.glob("*.whl")))]
    subprocess.run(argv, check=True)


def _measure(into: Path, comfyui_args: str, rest: list[str]) -> int:
    argv = [sys.executable, "-m", "benchmarks.gpu", "--work", str(into / "work")]
    if (into / "comfyui").is_dir():
        # Its browser interface was left behind; without a folder for it ComfyUI does not start.
        (into / "no-frontend").mkdir(exist_ok=True)
        arguments = f"--front-end-root {into / 'no-frontend'} {comfyui_args}".strip()
        argv += ["--comfyui", str(into / "comfyui"), f"--comfyui-args={arguments}"]
        argv += ["--comfyui-python", str(_python(into, "comfyui"))]
    if (into / "kohya").is_dir():
        argv += ["--kohya", str(into / "kohya"), "--kohya-python", str(_python(into, "kohya"))]
    if not any(word == "--out" or word.startswith("--out=") for word in rest):
        argv += ["--out", str(Path.cwd() / "gpu")]
    paths = os.pathsep.join((str(into / "sites" / "worker"), str(into / "code")))
    environment = os.environ | {"PYTHONPATH": paths}
    return subprocess.run(
        [*argv, *rest], cwd=into / "code", env=environment, check=False
    ).returncode


def _python(into: Path, program: str) -> Path:
    """This Python, with a program's own packages before the machine's."""
    script = into / f"python-{program}"
    site = into / "sites" / program
    script.write_text(f'#!/bin/sh\nPYTHONPATH="{site}" exec "{sys.executable}" "$@"\n')
    script.chmod(0o755)
    return script


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)  # help is the benchmark's
    parser.add_argument("--into", type=Path, default=Path("gpu-bench"), help="needs up to 40 GB")
    parser.add_argument("--comfyui-args", default="", help="as for the benchmark")
    return parser


if __name__ == "__main__":
    sys.exit(main())
