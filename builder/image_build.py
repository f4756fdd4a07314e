"""Building the Dockerfile for real, with buildah; GitHub's part stands in a build context."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from builder import image_base
from builder.image_shop import CheckFailed, Shop

IMAGE: Final = "localhost/image-test-worker"
_BUILD_TIMEOUT_S: Final = 900
_STEPS_OF_OUR_CODE: Final = 8  # from COPY handler.py on, and what follows it in the last stage
_STEP: Final = re.compile(r"^\[\d+/\d+\] STEP \d+/\d+: (?!FROM )", re.MULTILINE)
_CACHED: Final = re.compile(r"^--> Using cache", re.MULTILINE)
_LEFT_OUT: Final = (".venv", ".git", ".image-test", ".*_cache", "__pycache__", "out")
_MAIN: Final = """import sys

from local.comfyui.__main__ import main

sys.exit(main())
"""


@dataclass(frozen=True, slots=True)
class Built:
    """What a build did: its steps, and how many of them came from the cache."""

    steps: int
    cached: int


def make_context(shop: Shop) -> None:
    """A folder laid out as the stage `comfyui` leaves it, with the stand-in for ComfyUI."""
    context = shop.home / "comfyui"
    shutil.rmtree(context, ignore_errors=True)
    for folder in ("opt/torch", "opt/comfyui", "comfyui"):
        (context / folder).mkdir(parents=True)
    for folder in ("opt/torch", "opt/comfyui"):
        (context / folder / "README").write_text("The stand-in needs nothing of this.\n")
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(shop.root / "local", context / "comfyui" / "local", ignore=skipped)
    (context / "comfyui" / "main.py").write_text(_MAIN)


def copy_source(shop: Shop) -> Path:
    """The project as the build sees it, in a folder where the test may change a file."""
    source = shop.home / "source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(shop.root, source, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    return source


def build(shop: Shop, source: Path, *, log: str) -> Built:
    """Build variant `base` of the Dockerfile in `source` as `IMAGE`.

    Raises:
        CheckFailed: with the end of the build's log.
    """
    argv = ["buildah", "build", "--isolation", "chroot", "--format", "docker", "--network", "host"]
    argv += ["--layers" if shop.overlay else "--layers=false"]
    argv += ["--build-arg", f"BASE_IMAGE={image_base.NAME}", "--build-arg", "VARIANT=base"]
    argv += ["--build-context", f"comfyui={shop.home / 'comfyui'}"]
    said = shop.run([*argv, "-t", IMAGE, str(source)], log=log, timeout_s=_BUILD_TIMEOUT_S)
    return Built(len(_STEP.findall(said)), len(_CACHED.findall(said)))


def rebuild(shop: Shop, source: Path) -> str:
    """Build again after a change of the handler; returns how much came from the cache.

    Raises:
        CheckFailed: a change of the handler rebuilt more than our code's own steps.
    """
    handler = source / "handler.py"
    handler.write_text(handler.read_text("utf-8") + "# changed\n", "utf-8")
    built = build(shop, source, log="rebuild")
    share = f"{built.cached} of {built.steps} steps cached"
    if built.steps - built.cached > _STEPS_OF_OUR_CODE:
        raise CheckFailed(f"only {share}")
    return share
