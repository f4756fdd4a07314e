import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from worker.cancel import CancelToken
from worker.errors import Cancelled, TrainingDiverged, TrainingFailed
from worker.training.weights import Expected, WeightsFile, check_lora, write_metadata

EXPECTED = Expected(rank=2, alpha=1.0, min_modules=3)
Tensors = dict[str, NDArray[Any]]


def lora(modules: int = 3, *, prefix: str = "lora_unet_m", rank: int = 2) -> Tensors:
    random = np.random.default_rng(0)
    tensors: Tensors = {}
    for number in range(modules):
        key = f"{prefix}{number}"
        tensors[f"{key}.lora_up.weight"] = random.normal(size=(6, rank)).astype(np.float16)
        tensors[f"{key}.lora_down.weight"] = random.normal(size=(rank, 4)).astype(np.float16)
        tensors[f"{key}.alpha"] = np.array(1.0, np.float16)
    return tensors


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lora.safetensors"


def test_a_lora_that_learned(path: Path) -> None:
    tensors = lora()
    save_file(tensors, path)
    found = check_lora(path, EXPECTED)
    products = [
        np.linalg.norm(
            tensors[f"lora_unet_m{n}.lora_up.weight"].astype(float)
            @ tensors[f"lora_unet_m{n}.lora_down.weight"].astype(float)
        )
        for n in range(3)
    ]
    assert found.mean_norm == pytest.approx(np.mean(products))
    assert (found.modules, found.modules_learned, found.bytes) == (3, 3, path.stat().st_size)


def test_the_layers_of_the_base_model_are_asked_for_by_name(path: Path) -> None:
    save_file(lora(prefix="diffusion_model.a.0.m"), path)
    names = frozenset({"a_0_m0", "a_0_m1", "a_0_m2"})
    assert check_lora(path, Expected(2, 1.0, names)).modules == 3
    with pytest.raises(TrainingFailed, match="leaves out layers") as caught:
        check_lora(path, Expected(2, 1.0, names - {"a_0_m0"} | {"b"}))
    assert caught.value.details["missing"] == ["b"]


def test_convolutions_and_plain_differences(path: Path) -> None:
    tensors = lora(prefix="diffusion_model.b.")
    tensors["diffusion_model.c.lora_up.weight"] = np.ones((8, 2, 1, 1), np.float32)
    tensors["diffusion_model.c.lora_down.weight"] = np.ones((2, 4, 3, 3), np.float32)
    tensors["diffusion_model.c.alpha"] = np.array(1.0, np.float32)
    tensors["diffusion_model.n.diff"] = np.zeros(4, np.float32)
    save_file(tensors, path)
    assert check_lora(path, EXPECTED).modules == 4


@pytest.mark.parametrize("side", ["up", "down"])
def test_one_side_alone_proves_nothing(path: Path, side: str) -> None:
    tensors = lora()
    for name in tensors:
        if f"lora_{side}" in name:
            tensors[name][...] = 0
    save_file(tensors, path)
    with pytest.raises(TrainingFailed, match="learned nothing: only 0 of 3"):
        check_lora(path, EXPECTED)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("part", ["lora_up.weight", "lora_down.weight", "alpha", "diff"])
def test_what_is_not_finite_diverged(path: Path, part: str, bad: float) -> None:
    tensors = lora()
    tensors[f"lora_unet_m1.{part}"] = tensors.get(
        f"lora_unet_m1.{part}", np.zeros(3, np.float16)
    ).copy()
    tensors[f"lora_unet_m1.{part}"].reshape(-1)[0] = bad
    save_file(tensors, path)
    with pytest.raises(TrainingDiverged):
        check_lora(path, EXPECTED)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"modules": 2}, "adapts 2 layers; 3 or more"),
        ({"prefix": "unet.m"}, "names layers as no trainer here does"),
        ({"rank": 3}, "rank 3 where 2"),
        ({"rank": 1}, "rank 1 where 2"),
    ],
)
def test_not_what_was_asked_for(path: Path, changes: dict[str, Any], sentence: str) -> None:
    save_file(lora(**changes), path)
    with pytest.raises(TrainingFailed, match=sentence):
        check_lora(path, EXPECTED)


def test_another_alpha_or_a_missing_part(path: Path) -> None:
    tensors = lora()
    tensors["lora_unet_m0.alpha"] = np.array(4.0, np.float16)
    save_file(tensors, path)
    with pytest.raises(TrainingFailed, match="alpha 4 where 1"):
        check_lora(path, EXPECTED)
    assert check_lora(path, Expected(2, None, min_modules=3)).mean_alpha == 2.0  # a trained alpha
    tensors["lora_unet_m0.lora_down.weight"] = np.ones((1, 4), np.float16)
    save_file(tensors, path)
    with pytest.raises(TrainingFailed, match="do not fit"):
        check_lora(path, EXPECTED)
    del tensors["lora_unet_m0.alpha"]
    save_file(tensors, path)
    with pytest.raises(TrainingFailed, match="lacks a part"):
        check_lora(path, EXPECTED)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_files_that_are_cut_off(path: Path, keep: int) -> None:
    save_file(lora(), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(TrainingFailed, match="unusable"):
        check_lora(path, EXPECTED)


def test_other_tensors_and_none(path: Path) -> None:
    save_file({"lora_unet_a.lora_up.weight": np.zeros(3, np.int64)}, path)
    with pytest.raises(TrainingFailed, match="not a LoRA"):
        check_lora(path, EXPECTED)
    save_file({}, path)
    with pytest.raises(TrainingFailed, match="empty"):
        check_lora(path, EXPECTED)


def test_a_cancel_ends_the_check(path: Path) -> None:
    save_file(lora(), path)
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        check_lora(path, EXPECTED, token.check)


def test_bfloat16_is_widened_exactly(path: Path) -> None:
    values = np.array([1.0, -2.5, 3.0e38, 0.0], np.float32)
    raw = (values.view(np.uint32) >> 16).astype(np.uint16)
    save_file({"t": raw}, path)
    body = path.read_bytes().replace(b'"U16"', b'"BF16"')
    length = int.from_bytes(body[:8], "little") + 1
    padded = length + (-length % 8)
    header = body[8 : 8 + length].ljust(padded, b" ")
    path.write_bytes(padded.to_bytes(8, "little") + header + raw.tobytes())
    found = WeightsFile(path).tensor("t")
    assert found[0] == 1.0
    assert found[1] == -2.5
    assert np.isfinite(found).all()


def test_metadata_changes_no_tensor(path: Path, tmp_path: Path) -> None:
    tensors = lora()
    save_file(tensors, path, metadata={"ss_network_dim": "2", "trigger": "old"})
    target = tmp_path / "named.safetensors"
    write_metadata(path, target, {"trigger": "mrzkqv \u00e9", "steps": "12"})
    with safe_open(target, framework="numpy") as opened:
        expected = {"ss_network_dim": "2", "trigger": "mrzkqv é", "steps": "12"}
        assert opened.metadata() == expected
    loaded = load_file(target)
    assert {k: v.tobytes() for k, v in loaded.items()} == {
        k: v.tobytes() for k, v in tensors.items()
    }
    assert int.from_bytes(target.read_bytes()[:8], "little") % 8 == 0
    assert list(tmp_path.glob(".*")) == []


def test_the_same_metadata_makes_the_same_file(path: Path, tmp_path: Path) -> None:
    """A retried job must come to the same sha256, which names the file in the bucket."""
    save_file(lora(), path)
    digests = set()
    for number in range(2):
        target = tmp_path / f"{number}.safetensors"
        write_metadata(path, target, {"a": "1", "b": "2"})
        digests.add(hashlib.sha256(target.read_bytes()).hexdigest())
    assert len(digests) == 1
