"""Where `make image-test` works: its folder, its tools, its own container storage.

Everything lies in `.image-test/`, so that a second run finds base and layers again and the
machine's own images are left alone.
"""

import hashlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_PROGRAMS: Final = ("buildah", "podman", "mmdebstrap")
_RUNTIMES: Final = ("runc", "crun")  # docker.com's containerd.io has a runc and conflicts with ours
_KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")  # Ubuntu has none
_MOST_FILES: Final = 32_768
_APT_TIMEOUT_S: Final = 300
_TAIL_LINES: Final = 25


class CheckFailed(Exception):
    """Something that the image must do and does not, or a tool that this machine cannot have."""


@dataclass(frozen=True, slots=True)
class Shop:
    """The project, the work folder in it, and the commands' environment."""

    root: Path
    home: Path
    environment: Mapping[str, str] = field(repr=False)
    overlay: bool = True
    runtime: str = _RUNTIMES[0]

    def run(
        self, argv: Sequence[str | Path], *, log: str, timeout_s: float = 120, **changes: str
    ) -> str:
        """Run a command to its end, output to `logs/{log}.log` as well; returns that output.

        Raises:
            CheckFailed: it failed or took too long, with the end of what it said.
        """
        path = self.home / "logs" / f"{log}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as output:
            try:
                code = subprocess.run(
                    [str(word) for word in argv],
                    cwd=self.root,
                    env={**self.environment, **changes},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=timeout_s,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired as error:
                raise CheckFailed(f"{argv[0]} took longer than {timeout_s:g} s ({path})") from error
        said = path.read_text("utf-8", errors="replace")
        if code:
            end = "\n".join(said.splitlines()[-_TAIL_LINES:])
            raise CheckFailed(f"{Path(argv[0]).name} ended with {code} ({path}):\n{end}")
        return said

    @property
    def tools(self) -> Path:
        """The programs of requirements-image.txt."""
        return self.home / "tools" / "bin"


def open_shop(root: Path) -> Shop:
    """Have every tool, installing what is missing.

    Raises:
        CheckFailed: they cannot be had here, and why.
    """
    home = root / ".image-test"
    home.mkdir(exist_ok=True)
    plain = Shop(root, home, dict(os.environ))
    _install_packages(plain)
    _install_tools(plain)
    return _with_storage(plain)


def _install_packages(shop: Shop) -> None:
    """What is missing, and only that: a machine's own engine stays as it is."""
    if os.geteuid() != 0:
        raise CheckFailed("The image is built and run here as root; this is another user.")
    wanted = missing_packages()
    if not wanted:
        return
    if not shutil.which("apt-get"):
        raise CheckFailed(f"{', '.join(wanted)} are needed, and there is no apt-get to get them.")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    shop.run(["apt-get", "update", "-q"], log="apt-update", timeout_s=_APT_TIMEOUT_S, **quiet)
    try:
        shop.run(install_command(wanted), log="apt-install", timeout_s=_APT_TIMEOUT_S, **quiet)
    except CheckFailed as error:
        raise CheckFailed(
            f"{error}\n{' '.join(wanted)} could not be installed without removing packages of "
            "this machine, which this test never does: install them by hand, or run it elsewhere."
        ) from error


def missing_packages() -> list[str]:
    """The Debian packages of what this machine's PATH lacks; one runtime is enough."""
    wanted = [program for program in _PROGRAMS if not shutil.which(program)]
    if not any(shutil.which(program) for program in _RUNTIMES):
        wanted.append(_RUNTIMES[0])
    if not _KEYRING.exists():
        wanted.append("debian-archive-keyring")
    return wanted


def install_command(packages: Sequence[str]) -> list[str]:
    """apt-get's command line; it fails rather than remove what is installed."""
    return ["apt-get", "install", "-qy", "--no-remove", "--no-install-recommends", *packages]


def _install_tools(shop: Shop) -> None:
    wanted = shop.root / "requirements-image.txt"
    stamp = shop.home / "tools" / ".installed"
    if stamp.exists() and stamp.read_bytes() == wanted.read_bytes():
        return
    shop.run([sys.executable, "-m", "venv", str(stamp.parent)], log="venv")
    install = [str(shop.tools / "pip"), "install", "--no-deps", "--require-hashes"]
    shop.run([*install, "-r", str(wanted)], log="pip", timeout_s=300)
    stamp.write_bytes(wanted.read_bytes())


def _with_storage(shop: Shop) -> Shop:
    """A storage of our own, overlay where the file system can; short paths for sockets."""
    overlay = _has_overlay(shop)
    runtime = next(program for program in _RUNTIMES if shutil.which(program))
    name = hashlib.sha256(str(shop.home).encode()).hexdigest()[:8]
    short = Path(tempfile.gettempdir()) / f"image-test-{name}"
    storage = shop.home / "storage.conf"
    driver = "overlay" if overlay else "vfs"
    storage.write_text(
        f'[storage]\ndriver = "{driver}"\ngraphroot = "{shop.home / "store"}"\n'
        f'runroot = "{short}"\n'
    )
    most = min(_MOST_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    containers = shop.home / "containers.conf"
    containers.write_text(
        f'[containers]\ndefault_ulimits = ["nofile={most}:{most}", "nproc={most}:{most}"]\n'
        f'[engine]\nruntime = "{runtime}"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
    )
    ours = {"CONTAINERS_STORAGE_CONF": str(storage), "CONTAINERS_CONF": str(containers)}
    return Shop(shop.root, shop.home, {**shop.environment, **ours}, overlay, runtime)


def _has_overlay(shop: Shop) -> bool:
    with tempfile.TemporaryDirectory(dir=shop.home) as scratch:
        folders = [Path(scratch) / name for name in ("lower", "upper", "work", "merged")]
        for folder in folders:
            folder.mkdir()
        lower, upper, work, merged = folders
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        mount = ["mount", "-t", "overlay", "overlay", "-o", options, str(merged)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            return False
        subprocess.run(["umount", str(merged)], check=True, capture_output=True)
    return True
