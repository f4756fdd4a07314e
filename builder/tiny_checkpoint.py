"""Small checkpoints of random weights that the real ComfyUI loads: `… tiny_checkpoint sdxl FILE`.

For tests that want a real picture and have neither a GPU nor the 6.9 GB of SDXL: 2.0 GB (sdxl) or
1.9 GB (svd), a U-Net of the right kind with fewer channels. What comes out is noise. Run as
`python -m builder.tiny_checkpoint`, with numpy alone.
"""

import gzip
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

SHAPES: Final = Path(__file__).with_name("tiny_shapes.json.gz")
_SCALE: Final = 0.02
_BYTES: Final = 2  # of a float16


def shapes(kind: str) -> dict[str, list[int]]:
    """Tensor names and shapes of `sdxl` or `svd`."""
    found: dict[str, dict[str, list[int]]] = json.loads(gzip.decompress(SHAPES.read_bytes()))
    return found[kind]


def header(tensors: Mapping[str, Sequence[int]]) -> bytes:
    """A safetensors file's beginning: its length, and where each float16 tensor lies."""
    entries, end = {}, 0
    for name, shape in tensors.items():
        start, end = end, end + math.prod(shape) * _BYTES
        entries[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write(kind: str, path: Path) -> None:
    """Write one, whole or not at all; the same weights every time."""
    random = np.random.default_rng(7)
    tensors = shapes(kind)
    fresh = path.with_name(f"{path.name}.new")
    with fresh.open("wb") as file:
        file.write(header(tensors))
        for name, shape in tensors.items():
            if len(shape) > 1:
                values = random.standard_normal(math.prod(shape), dtype=np.float32) * _SCALE
            else:  # norms and biases that leave their input as it is
                values = np.full(math.prod(shape), 0 if name.endswith("bias") else 1, np.float32)
            file.write(values.astype(np.float16).tobytes())
    fresh.replace(path)


def main(kind: str, place: str) -> int:
    """The command."""
    path = Path(place)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(kind, path)
    print(f"{path}: {path.stat().st_size / 1e9:.1f} GB of random weights ({kind})")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
