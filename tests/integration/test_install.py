"""`make`'s install: what the lock files name and nothing else, whatever the index has by now.

A small index of our own stands for the years: it has newer releases than the pins, and a package
that asks for another one with an extra, which is what ended the install on pip before 24.
"""

import hashlib
import http.server
import os
import shutil
import subprocess
import sys
import threading
import venv
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INSTALL = ROOT / "local" / "install.py"
OLDEST = "pip==23.0.1"  # Debian 12's
pytestmark = pytest.mark.process


def run(*argv: str | Path, **changes: str) -> "subprocess.CompletedProcess[str]":
    plain = {name: text for name, text in os.environ.items() if not name.startswith("PIP_")}
    return subprocess.run(
        [str(word) for word in argv],
        env={**plain, **changes},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def wheel(folder: Path, name: str, version: str, *fields: str) -> str:
    """A package without content; returns its line in a lock file."""
    path = folder / name / f"{name}-{version}-py3-none-any.whl"
    path.parent.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    metadata = "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *fields])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", f"VERSION = {version!r}\n")
        archive.writestr(f"{info}/METADATA", f"{metadata}\n")
        tag = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{info}/WHEEL", tag)
        archive.writestr(f"{info}/RECORD", "")
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def index(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Its address, and a lock file that was compiled before the newer releases came out."""
    folder = tmp_path / "index"
    asks = ("Requires-Dist: inner[more]>=1.0",)
    extra = ("Provides-Extra: more", 'Requires-Dist: email >=1.0 ; extra == "more"')
    lines = [
        wheel(folder, "outer", "1.0", *asks),
        wheel(folder, "inner", "1.0", *extra),
        wheel(folder, "email", "1.0"),
    ]
    wheel(folder, "outer", "2.0", *asks)
    wheel(folder, "inner", "1.1", *extra)
    wheel(folder, "email", "1.1")
    lock = tmp_path / "lock.txt"
    lock.write_text("".join(lines))
    handler = partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", lock
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module", params=[OLDEST, "pip"], ids=["oldest pip", "newest pip"])
def environment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean environment with that pip in it."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(folder, with_pip=True)
    argv = [str(folder / "bin" / "python"), "-m", "pip", "install", "-qU", str(request.param)]
    had = subprocess.run(argv, capture_output=True, text=True, timeout=180, check=False)
    if had.returncode:
        pytest.skip(f"no package index to have {request.param} from: {had.stderr[-200:]}")
    return folder


def installed(environment: Path) -> set[str]:
    listed = run(environment / "bin" / "python", "-m", "pip", "list", "--format=freeze")
    return {
        line for line in listed.stdout.split() if not line.startswith(("pip==", "setuptools=="))
    }


def test_newer_releases_in_the_index_change_nothing(
    environment: Path, index: tuple[str, Path], tmp_path: Path
) -> None:
    address, lock = index
    place = tmp_path / "venv"
    shutil.copytree(environment, place, symlinks=True)
    done = run(sys.executable, INSTALL, place, lock, PIP_INDEX_URL=address)
    assert done.returncode == 0, done.stderr
    assert installed(place) == {"outer==1.0", "inner==1.0", "email==1.0"}
    assert len(done.stdout.splitlines()) == 2


def test_the_oldest_pip_would_fail_without_no_deps(
    index: tuple[str, Path], tmp_path: Path, environment: Path
) -> None:
    """So that the test above is known to be able to fail."""
    address, lock = index
    place = tmp_path / "venv"
    shutil.copytree(environment, place, symlinks=True)
    python = place / "bin" / "python"
    version = run(python, "-m", "pip", "--version").stdout.split()[1]
    argv = (python, "-m", "pip", "install", "-q", "--require-hashes", "-r", lock)
    done = run(*argv, PIP_INDEX_URL=address)
    assert (done.returncode != 0) == (version == OLDEST.partition("==")[2]), done.stderr


def test_a_person_s_own_pip_settings_do_not_lead_elsewhere(
    index: tuple[str, Path], tmp_path: Path
) -> None:
    address, lock = index
    place = tmp_path / "venv"
    odd = {"PIP_USER": "1", "PIP_TARGET": str(tmp_path / "elsewhere"), "PYTHONPATH": str(tmp_path)}
    done = run(sys.executable, INSTALL, place, lock, PIP_INDEX_URL=address, **odd)
    assert done.returncode == 0, done.stderr
    assert installed(place) == {"outer==1.0", "inner==1.0", "email==1.0"}
    assert not (tmp_path / "elsewhere").exists()


def test_an_index_that_does_not_answer_is_named_in_one_sentence(
    index: tuple[str, Path], tmp_path: Path
) -> None:
    _, lock = index
    refused = {"PIP_INDEX_URL": "http://127.0.0.1:9", "PIP_RETRIES": "0", "PIP_TIMEOUT": "2"}
    done = run(sys.executable, INSTALL, tmp_path / "venv", lock, **refused)
    assert done.returncode == 1
    assert "see that this machine reaches its package index" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_the_locks_are_complete() -> None:
    """Without dependencies being resolved, a lock that lacks one would show only at an import."""
    done = run(sys.executable, "-m", "pip", "check")
    assert done.returncode == 0, done.stdout


def shim(folder: Path, code: str) -> Path:
    """A `python3` that behaves like one of another machine."""
    path = folder / "python3"
    path.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{code}' \"$@\"\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("import sys; sys.version_info = (3, 9, 2)", "Python 3.11 or newer is needed"),
        ('import sys; sys.modules["ensurepip"] = None', "apt-get install python3-venv"),
    ],
)
def test_a_python_that_will_not_do_is_one_sentence(
    tmp_path: Path, code: str, sentence: str
) -> None:
    code += "; import runpy; sys.argv = sys.argv[1:]; "
    code += 'runpy.run_path(sys.argv[0], run_name="__main__")'
    done = run("make", "run", f"PYTHON={shim(tmp_path, code)}", f"VENV={tmp_path / 'venv'}")
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert len(said) == 1, done.stderr
    assert sentence in said[0]
    assert not (tmp_path / "venv").exists()


def test_no_python_at_all_is_one_sentence(tmp_path: Path) -> None:
    done = run("make", "run", "PYTHON=python9.9", f"VENV={tmp_path / 'venv'}")
    said = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert len(said) == 1
    assert "There is no python9.9 here" in said[0]


def test_the_readme_says_how_to_have_make() -> None:
    assert "apt-get install make python3-venv" in (ROOT / "README.md").read_text("utf-8")
