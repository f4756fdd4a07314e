"""Saying what a LoRA file is, from its header: CPU time and memory for a file of 10,000 keys.

    python -m benchmarks.recognition

Limits: 5 ms for recognition once the families' names are indexed, whatever the file's size, since
no tensor is read. The header itself is read and checked before, and the index built once a worker;
both are told beside it.
"""

import json
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from safetensors.numpy import save_file

from families.family import Family, literal_patterns
from families.library import load_families
from families.recognition import Recogniser
from lora_registry.tensorfile import read_header

KEYS: Final = 10_000
LIMIT_MS: Final = 5.0
_RUNS: Final = 15
_FAMILIES: Final = Path(__file__).resolve().parent.parent / "families"


def write(path: Path, family: Family, keys: int) -> None:
    """A LoRA of rank 1 for every matrix of a family, filled up with text-encoder alphas."""
    layout = next(each for each in family.lora.layouts if each.remedy is None)
    tensors: dict[str, np.ndarray] = {}
    matrices = family.modules[layout.names[0]].items()
    for pattern, shape in ((name, shape) for name, shape in matrices if len(shape) == 2):  # noqa: PLR2004
        for name in literal_patterns(pattern):
            key = layout.prefix + (name.replace(".", "_") if layout.underscores else name)
            tensors[f"{key}.lora_up.weight"] = np.zeros((shape[0], 1), np.float16)
            tensors[f"{key}.lora_down.weight"] = np.zeros((1, shape[1]), np.float16)
            tensors[f"{key}.alpha"] = np.zeros((), np.float16)
    for number in range(keys - len(tensors)):
        tensors[f"lora_te3_{number}.alpha"] = np.zeros((), np.float16)
    save_file(tensors, path)


def median_ms(action: Callable[[], object]) -> float:
    """Of some runs, in milliseconds."""
    times = []
    for _ in range(_RUNS):
        begun = time.process_time()
        action()
        times.append(time.process_time() - begun)
    return round(sorted(times)[_RUNS // 2] * 1000, 2)


def main() -> int:
    """Print the figures; exit status 1 above the limit."""
    families = load_families(_FAMILIES)
    recogniser = Recogniser(families)
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, keys in (("ltx2", KEYS), ("sdxl", 0), ("z_image", 0)):
            path = Path(folder) / f"{name}.safetensors"
            write(path, families[name], keys)
            file = read_header(path)
            shapes = {key: tensor.shape for key, tensor in file.tensors.items()}
            begun = time.process_time()
            found = recogniser.facts(shapes, {}, size=file.size, base_model=name)
            first = round((time.process_time() - begun) * 1000, 1)
            tracemalloc.start()
            recogniser.facts(shapes, {}, size=file.size, base_model=name)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            figures[name] = {
                "keys": len(shapes),
                "recognised": found.base_model,
                "first_ms": first,  # with the index, in the first line alone
                "recognition_ms": median_ms(
                    lambda shapes=shapes, name=name: recogniser.facts(  # type: ignore[misc]
                        shapes, {}, size=1, base_model=name
                    )
                ),
                "header_ms": median_ms(lambda path=path: read_header(path)),  # type: ignore[misc]
                "peak_mb": round(peak / 1e6, 1),
            }
    print(json.dumps(figures, indent=1))
    slowest = max(each["recognition_ms"] for each in figures.values())  # type: ignore[index]
    return int(slowest > LIMIT_MS)


if __name__ == "__main__":
    sys.exit(main())
