"""Files of random weights: checkpoints of any shapes, and many LoRAs of the true SDXL shapes.

The values come from one pool of noise, read again and again: speed and memory do not depend on
them, and a checkpoint of 6.9 GB is written as fast as the disk takes it.
"""

import json
import math
import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.gpu.shapes import Shapes
from local.lora_file import write_demo_lora

_SPREAD: Final = 0.02  # as the encoders were initialised; larger numbers overflow fp16 on the way
_POOL: Final = 1 << 24  # values
_LAST_BUT_ALPHA: Final = -4  # bytes from a LoRA's end: its last weight, before the last alpha


def write_checkpoint(path: Path, shapes: Shapes) -> Path:
    """Write fp16 weights of these shapes unless they are there: norms 1, biases 0, noise else."""
    if path.is_file():
        return path
    header = _header(shapes)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    pool = np.random.default_rng(0).standard_normal(_POOL, np.float32) * np.float32(_SPREAD)
    noise = memoryview(pool.astype(np.float16).tobytes())
    with partial.open("wb") as file:
        file.write(struct.pack("<Q", len(header)))
        file.write(header)
        for name, shape in shapes.items():
            for piece in _values(name, shape, noise):
                file.write(piece)
    os.replace(partial, path)  # noqa: PTH105 - a whole file or none
    return path


def _values(name: str, shape: tuple[int, ...], noise: memoryview) -> Iterator[memoryview | bytes]:
    size = 2 * math.prod(shape)
    if len(shape) > 1:
        while size > 0:
            yield noise[:size]
            size -= len(noise)
    elif name.endswith("bias"):
        yield bytes(size)
    else:
        yield np.float16(1).tobytes() * (size // 2)


def _header(shapes: Shapes) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"modelspec.title": "random weights"}}
    at = 0
    for name, shape in shapes.items():
        end = at + 2 * math.prod(shape)
        entries[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    return text.ljust(-(-len(text) // 8) * 8)  # the format aligns the values to 8 bytes


def write_loras(folder: Path, count: int, *, rank: int) -> Iterator[Path]:
    """Write SDXL LoRAs that differ in one weight, so that no two have one sha256; 5.4 MB a rank."""
    folder.mkdir(parents=True, exist_ok=True)
    first = folder / f"lora-rank-{rank}.safetensors"
    if not first.is_file():
        write_demo_lora(first, rank=rank)
    for number in range(count):
        path = folder / f"lora-{number:02d}.safetensors"
        shutil.copyfile(first, path)
        with path.open("r+b") as file:
            file.seek(_LAST_BUT_ALPHA, os.SEEK_END)
            file.write(np.float16(number / 1000).tobytes())
        yield path
        path.unlink()


def make_tokenizers(comfyui: Path, folder: Path) -> Path:
    """The two CLIP tokenizers that sd-scripts wants, from the files that ComfyUI ships."""
    shipped = comfyui / "comfy" / "sd1_tokenizer"
    for name in (
        "openai_clip-vit-large-patch14",
        "laion_CLIP-ViT-bigG-14-laion2B-39B-b160k",
    ):
        target = folder / name
        if shipped.is_dir():
            shutil.copytree(shipped, target, dirs_exist_ok=True)
        target.mkdir(parents=True, exist_ok=True)  # what the stand-in looks for
    return folder
