import math
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from benchmarks.gpu import shapes
from benchmarks.gpu.shapes import Shapes
from benchmarks.gpu.weights import write_checkpoint, write_loras
from local.lora_file import sdxl_modules
from worker.training.weights import trained_layers


def parameters(of: Shapes, prefix: str) -> int:
    return sum(math.prod(shape) for name, shape in of.items() if name.startswith(prefix))


@pytest.mark.parametrize(
    ("checkpoint", "prefix", "count"),
    [
        (shapes.sdxl(), "model.diffusion_model.", 2_567_463_684),
        (shapes.sdxl(), "conditioner.embedders.0.", 123_060_480),
        (shapes.sdxl(), "conditioner.embedders.1.", 694_659_841),
        (shapes.sdxl(), "first_stage_model.", 83_653_863),
        (shapes.svd(), "model.diffusion_model.", 1_524_623_082),
        (shapes.svd(), "conditioner.embedders.0.", 632_076_800),
        (shapes.svd(), "first_stage_model.", 97_742_775),
    ],
)
def test_parameters_are_those_of_the_published_models(
    checkpoint: Shapes, prefix: str, count: int
) -> None:
    assert parameters(checkpoint, prefix) == count


def test_a_lora_of_sdxl_fits_every_module() -> None:
    unet = {
        name.removeprefix("model.diffusion_model.").removesuffix(".weight").replace(".", "_"): shape
        for name, shape in shapes.sdxl().items()
        if name.startswith("model.diffusion_model.") and name.endswith(".weight")
    }
    for module, inputs, outputs in sdxl_modules():
        assert unet[module] == (outputs, inputs)


def test_small_ones_have_the_same_tensors() -> None:
    def below(of: Shapes, prefix: str) -> set[str]:
        return {name for name in of if name.startswith(prefix) and "skip_connection" not in name}

    for small, full in (
        (shapes.sdxl(small=True), shapes.sdxl()),
        (shapes.svd(small=True), shapes.svd()),
    ):
        assert below(small, "first_stage_model.") == below(full, "first_stage_model.")
        assert below(small, "model.") == below(full, "model.")
        assert parameters(small, "model.") < parameters(full, "model.") / 4


def test_a_checkpoint_is_a_safetensors_file_of_finite_numbers(tmp_path: Path) -> None:
    wanted: Shapes = {
        "model.diffusion_model.a.weight": (40, 30),
        "model.diffusion_model.a.bias": (40,),
        "norm.weight": (7,),
        "logit_scale": (),
    }
    path = write_checkpoint(tmp_path / "deep" / "random.safetensors", wanted)
    tensors = load_file(path)
    assert {name: tensor.shape for name, tensor in tensors.items()} == wanted
    assert all(np.isfinite(tensor).all() for tensor in tensors.values())
    assert tensors["model.diffusion_model.a.weight"].std() == pytest.approx(0.02, rel=0.2)
    assert not tensors["model.diffusion_model.a.bias"].any()
    assert (tensors["norm.weight"] == 1).all()
    written = path.stat().st_mtime_ns
    assert write_checkpoint(path, wanted).stat().st_mtime_ns == written


def test_the_trainer_finds_its_layers_in_it(tmp_path: Path) -> None:
    unet = {name: shape for name, shape in shapes.sdxl().items() if name.startswith("model.")}
    path = write_checkpoint(
        tmp_path / "attentions.safetensors",
        {name: shape for name, shape in unet.items() if "input_blocks.4." in name},
    )
    assert len(trained_layers(path)) == 22


def test_loras_differ_in_their_bytes_and_go_when_they_were_used(tmp_path: Path) -> None:
    bodies = [path.read_bytes() for path in write_loras(tmp_path, 3, rank=1)]
    assert len(set(bodies)) == 3
    assert len({len(body) for body in bodies}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["lora-rank-1.safetensors"]
