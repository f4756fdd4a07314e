"""ComfyUI's own command line, as far as a worker uses it, and the stand-in's few additions."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FAULTS_VARIABLE: Final = "COMFYUI_STAND_IN_FAULTS"
"""Names a faults file (see `faults.py`) where the command line is not ours to choose."""

# Options of ComfyUI 0.33 that change nothing here: there is no GPU, browser or custom node.
_IGNORED_FLAGS: Final = """
    --auto-launch --disable-auto-launch --cuda-malloc --disable-cuda-malloc --force-fp32
    --force-fp16 --fp32-unet --fp64-unet --bf16-unet --fp16-unet --fp8_e4m3fn-unet --fp8_e5m2-unet
    --fp16-vae --fp32-vae --bf16-vae --cpu-vae --fp8_e4m3fn-text-enc --fp8_e5m2-text-enc
    --fp16-text-enc --fp32-text-enc --bf16-text-enc --fp16-intermediates --force-channels-last
    --supports-fp8-compute --cache-classic --cache-none --high-ram --use-split-cross-attention
    --use-quad-cross-attention --use-pytorch-cross-attention --use-sage-attention
    --use-flash-attention --disable-xformers --force-upcast-attention --dont-upcast-attention
    --gpu-only --highvram --lowvram --novram --cpu --disable-async-offload --disable-dynamic-vram
    --enable-dynamic-vram --disable-cuda-graphs --force-non-blocking --disable-smart-memory
    --deterministic --disable-pinned-memory --mmap-torch-files --disable-mmap --dont-print-server
    --disable-all-custom-nodes --disable-api-nodes --multi-user --log-stdout
    --enable-compress-response-body --enable-assets --enable-asset-hashing
"""
_IGNORED_VALUES: Final = """
    --cuda-device --default-device --preview-method --preview-size --cache-lru --reserve-vram
    --vram-headroom --default-hashing-function --front-end-version --front-end-root
    --user-directory --comfy-api-base --database-url --feature-flag --max-upload-size
"""
_IGNORED_LISTS: Final = "--cache-ram --fast --whitelist-custom-nodes --verbose"


@dataclass(frozen=True)
class Options:
    """Where the stand-in listens and where it reads and writes."""

    host: str
    port: int
    models: Path
    output: Path
    input: Path
    temp: Path
    extra_model_paths: tuple[Path, ...] = ()
    metadata: bool = True
    faults: Path | None = None
    picture_bytes: int | None = None
    shown: Path | None = None


def parse(argv: Sequence[str]) -> Options:
    """Read a command line; exits with status 2 and a usage line like ComfyUI when it is wrong."""
    given = _parser().parse_args(argv)
    base = Path(given.base_directory).absolute() if given.base_directory else Path.cwd()
    faults = given.stand_in_faults or os.environ.get(FAULTS_VARIABLE)
    extra = [name for names in given.extra_model_paths_config for name in names]
    return Options(
        host=given.listen.split(",")[0],
        port=given.port,
        models=Path(given.models_directory or base / "models").absolute(),
        output=Path(given.output_directory or base / "output").absolute(),
        input=Path(given.input_directory or base / "input").absolute(),
        # ComfyUI puts a folder `temp` into the folder it is given.
        temp=Path(given.temp_directory or base).absolute() / "temp",
        extra_model_paths=tuple(Path(name).absolute() for name in extra),
        metadata=not given.disable_metadata,
        faults=Path(faults).absolute() if faults else None,
        picture_bytes=given.stand_in_picture_bytes,
        shown=Path(given.stand_in_shown).absolute() if given.stand_in_shown else None,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m local.comfyui",
        description="A stand-in for ComfyUI: its protocol without its models.",
        epilog="ComfyUI's other options are accepted and change nothing.",
    )
    parser.add_argument("--listen", default="127.0.0.1", nargs="?", const="0.0.0.0", metavar="IP")  # noqa: S104 - ComfyUI's meaning of the option
    parser.add_argument("--port", type=int, default=8188)
    for name in ("base", "models", "output", "input", "temp"):
        parser.add_argument(f"--{name}-directory", metavar="PATH")
    parser.add_argument(
        "--extra-model-paths-config", nargs="+", action="append", default=[], metavar="PATH"
    )
    parser.add_argument("--disable-metadata", action="store_true")
    stand_in = parser.add_argument_group("only the stand-in has these")
    stand_in.add_argument(
        "--stand-in-faults", metavar="FILE", help=f"faults to cause; also ${FAULTS_VARIABLE}"
    )
    stand_in.add_argument(
        "--stand-in-picture-bytes",
        type=int,
        metavar="N",
        help="write pictures of about N bytes at no CPU cost, for benchmarks",
    )
    stand_in.add_argument(
        "--stand-in-shown", metavar="FILE", help="show given pictures; see picture.py"
    )
    _add_ignored(parser)
    return parser


def _add_ignored(parser: argparse.ArgumentParser) -> None:
    for name in _IGNORED_FLAGS.split():
        parser.add_argument(name, action="store_true", help=argparse.SUPPRESS)
    for name in _IGNORED_VALUES.split():
        parser.add_argument(name, action="append", help=argparse.SUPPRESS)
    for name in _IGNORED_LISTS.split():
        parser.add_argument(name, nargs="*", help=argparse.SUPPRESS)
