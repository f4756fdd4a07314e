"""`python3 local/install.py .venv LOCK…`: an environment of exactly what the lock files name.

Runs before anything is installed and on any Python from 3.6 on, for it is what tells a too old one.

`--no-deps` is what makes it hold: the locks are complete (uv resolves every extra into them), and
pip before 24 takes `name[extra]` from the index all the same, where a release that is newer than
the pin ends the install ("must have their versions pinned with ==").
"""

import os
import subprocess
import sys
import time

OLDEST = (3, 11)
_TAIL_LINES = 15
# Of a person's own pip settings these would put packages elsewhere, or leave them out.
_UNSET = ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PYTHONHOME", "PYTHONPATH")


def main(venv: str, *locks: str) -> int:
    """Make or complete the environment; the exit status, with one sentence where it fails."""
    fault = _fault(sys.version_info[:2])
    if fault:
        return _fail(fault)
    started = time.monotonic()
    print(f"Environment  {venv}, from {' and '.join(locks)} ...", flush=True)
    said = "" if _runs(venv) else _run(sys.executable, "-m", "venv", venv)
    if said:
        return _fail(f"{said}\nNo environment could be made in {venv}: remove it and try again.")
    install = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"]
    install += ["--require-hashes", *(word for lock in locks for word in ("-r", lock))]
    said = _run(_python(venv), "-m", "pip", "install", *install)
    if said:
        return _fail(
            f"{said}\nThe packages could not be installed (pip's last lines are above): "
            "see that this machine reaches its package index, and try again."
        )
    print(f"Environment  ready after {time.monotonic() - started:.0f} s", flush=True)
    return 0


def _fault(version: "tuple[int, ...]") -> str:
    """What this Python lacks and how to have it, or nothing."""
    if version < OLDEST:
        return (
            f"Python 3.11 or newer is needed and {sys.executable} is {version[0]}.{version[1]}: "
            "install a newer one and name it, as in `make run PYTHON=python3.12`."
        )
    try:
        import ensurepip  # noqa: F401, PLC0415 - Debian ships Python without it
        import venv  # noqa: F401, PLC0415 - the same
    except ImportError:
        return (
            f"{sys.executable} has no venv module: install it, on Debian or Ubuntu with "
            "`apt-get install python3-venv`."
        )
    return ""


def _python(venv: str) -> str:
    return os.path.join(venv, "bin", "python")  # noqa: PTH118 - strings all the way down


def _runs(venv: str) -> bool:
    """Whether the environment is there and its Python still is the one it was made with."""
    try:
        return not _run(_python(venv), "-m", "pip", "--version")
    except OSError:
        return False


def _run(*argv: str) -> str:
    """Run to the end in silence; the last lines it printed when it failed, else nothing."""
    environment = {name: text for name, text in os.environ.items() if name not in _UNSET}
    ran = subprocess.Popen(
        argv,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )
    said, _ = ran.communicate()
    if ran.returncode == 0:
        return ""
    return "\n".join(said.splitlines()[-_TAIL_LINES:]) or f"{argv[0]} ended with {ran.returncode}"


def _fail(sentence: str) -> int:
    sys.stderr.write(sentence + "\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
