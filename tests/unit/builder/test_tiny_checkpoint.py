import math
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from builder import tiny_checkpoint
from builder.tiny_checkpoint import header, shapes, write


@pytest.mark.parametrize(("kind", "gigabytes"), [("sdxl", 2.0), ("svd", 1.9)])
def test_checkpoints_are_small_and_have_the_parts_of_their_kind(
    kind: str, gigabytes: float
) -> None:
    tensors = shapes(kind)
    assert round(sum(map(math.prod, tensors.values())) * 2 / 1e9, 1) == gigabytes
    assert {name.partition(".")[0] for name in tensors} >= {
        "conditioner",
        "first_stage_model",
        "model",
    }


def test_the_file_is_one_that_safetensors_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small: dict[str, list[int]] = {"a.weight": [3, 4], "a.bias": [4], "norm.weight": [4], "s": []}
    monkeypatch.setattr(tiny_checkpoint, "shapes", lambda _: small)
    write("sdxl", tmp_path / "tiny.safetensors")
    with safe_open(tmp_path / "tiny.safetensors", framework="np") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    assert {name: list(tensor.shape) for name, tensor in found.items()} == small
    assert all(tensor.dtype == np.float16 for tensor in found.values())
    assert 0 < np.abs(found["a.weight"]).max() < 0.2
    assert (found["a.bias"] == 0).all()
    assert (found["norm.weight"] == 1).all()
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.safetensors"]


def test_the_data_begins_where_eight_bytes_fit() -> None:
    assert all(len(header({"x" * length: [1]})) % 8 == 0 for length in range(1, 9))
