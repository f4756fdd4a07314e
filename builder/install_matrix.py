"""`make install-test`: the two commands' install on old and new pips, Pythons and Debians.

Each Python 3.11 to 3.13 of this machine with each pip; then, as root where podman and mmdebstrap
are there, `make run` in containers of stock Debian 12 and 13. What cannot be had is named, and is
no failure.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from builder.image_base import make_base
from builder.image_build import copy_source
from builder.image_shop import CheckFailed, Shop, open_shop
from builder.image_test import ROOT, Checks

PYTHONS: Final = ("3.11", "3.12", "3.13")
PIPS: Final = ("pip==23.0.1", "pip==23.2.1", "pip==24.0", "pip")
_OF_3_11_ONLY: Final = "pip==23.0.1"  # Debian 12's; pip itself runs on 3.12 from 23.2 on
SUITES: Final = {"bookworm": "Debian 12", "trixie": "Debian 13"}
LOCKS: Final = ("requirements.txt", "requirements-dev.txt")
_INSTALL_TIMEOUT_S: Final = 900
# What Debian and Python's own installers leave out of the way: python3.12 and pyenv's.
_FOLDERS: Final = ("/usr/bin", "/usr/local/bin", "~/.pyenv/versions/{version}*/bin")
_IN_CONTAINER: Final = """
set -eu
. /etc/os-release && echo "$PRETTY_NAME, $(python3 --version)"
useradd --create-home person && cp -r /source /home/person/project
chown -R person /home/person/project && cd /home/person/project
before=$(date +%s)
su person -c 'make run'
echo "make run took $(($(date +%s) - before)) s"
"""


def main() -> int:
    """A line for each combination; the exit status."""
    checks = Checks()
    scratch = ROOT / ".image-test" / "matrix"
    shutil.rmtree(scratch, ignore_errors=True)
    shop = Shop(ROOT, ROOT / ".image-test", dict(os.environ))
    for version in PYTHONS:
        python = interpreter(version)
        if python is None:
            print(f"--    Python {version} is not on this machine", flush=True)
            continue
        for number, pip in enumerate(PIPS):
            if version != "3.11" and pip == _OF_3_11_ONLY:
                continue
            place = scratch / f"{version}-{number}"
            checks.run(f"{version}, {pip}", partial(install, shop, python, pip, place))
    for suite, name in containers():
        checks.run(f"make run on {name}", partial(run_in_container, suite))
    return checks.finish()


def interpreter(version: str) -> str | None:
    """A Python of that minor version which runs here, if there is one."""
    found = [shutil.which(f"python{version}")]
    for folder in _FOLDERS:
        pattern = Path(folder.format(version=version)).expanduser()
        found += map(str, pattern.parent.parent.glob(f"{pattern.parent.name}/bin/python{version}"))
        found += map(str, pattern.glob(f"python{version}"))
    ask = "import sys, venv, ensurepip; print(sys.version.split()[0])"
    for path in filter(None, found):
        ran = subprocess.run([path, "-c", ask], capture_output=True, text=True, check=False)
        if ran.stdout.startswith(version):
            return path
    return None


def install(shop: Shop, python: str, pip: str, place: Path) -> str:
    """The Makefile's install with that pip in a clean environment, removed again at the end."""
    log = f"matrix-{place.name}"
    own = str(place / "bin" / "python")
    shop.run([python, "-m", "venv", place], log=log, timeout_s=120)
    shop.run([own, "-m", "pip", "install", "-qU", pip], log=log, timeout_s=120)
    shop.run([python, "local/install.py", place, *LOCKS], log=log, timeout_s=_INSTALL_TIMEOUT_S)
    said = shop.run([own, "-m", "pip", "--version"], log=log)
    shop.run([own, "-m", "pip", "check"], log=log)
    shutil.rmtree(place)
    return " ".join(said.split()[:2])


def containers() -> Iterator[tuple[str, str]]:
    """The Debians that can be bootstrapped and run here; else why none can."""
    lacking = [name for name in ("podman", "buildah", "mmdebstrap") if not shutil.which(name)]
    if os.geteuid() != 0 or lacking:
        print(f"--    no containers: root is needed, and {', '.join(lacking) or 'nothing else'}")
        return
    yield from SUITES.items()


def run_in_container(suite: str) -> str:
    """`make run`, by a person who has followed README's first lines and nothing else."""
    shop = open_shop(ROOT)
    image = make_base(shop, suite, packages=("make", "python3-venv"))
    source = copy_source(shop)
    argv: Sequence[str] = ["podman", "run", "--rm", "--network", "host"]
    argv = [*argv, "--volume", f"{source}:/source:ro", image, "sh", "-c", _IN_CONTAINER]
    said = shop.run(argv, log=f"run-{suite}", timeout_s=_INSTALL_TIMEOUT_S)
    lines = said.strip().splitlines()
    if not any(line.startswith("file:///home/person/project/out/") for line in lines):
        raise CheckFailed(f"no picture's address:\n{said[-2000:]}")
    return f"{lines[0]}; {lines[-1]}, {len(lines) - 2} lines"


if __name__ == "__main__":
    sys.exit(main())
