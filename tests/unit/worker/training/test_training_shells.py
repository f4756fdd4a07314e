"""What stands around a training: the GPU's handover, the job's folder, the losses, the stages."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from safetensors.numpy import save_file

from worker.cancel import CancelToken
from worker.errors import Cancelled, DiskFull, EngineUnavailable
from worker.resources import Progress
from worker.training.handover import compute_capability, engine_restored, gpu_memory, gpu_released
from worker.training.record import warnings_of
from worker.training.trainer import TrainingStep
from worker.training.weights import find_checkpoint, trained_layers
from worker.training.work import (
    LossLog,
    TrainingFolder,
    TrainingProgress,
    bytes_needed,
    require_disk,
)
from worker.training_results import DatasetResult, PhotoResult

GIB = 2**30


class Gpu:
    """A ComfyUI as the handover sees it: models that go some looks after they are asked to."""

    def __init__(self, *, looks: int = 2, device: str = "cuda", stuck_until_restart: bool = False):
        self.looks = looks
        self.device = device
        self.stuck = stuck_until_restart
        self.generation = 1
        self.told: list[str] = []

    def free(self, *, unload_models: bool = True, free_memory: bool = True) -> None:
        assert unload_models
        assert free_memory
        self.told.append("free")

    def system_stats(self) -> Mapping[str, Any]:
        if "free" in self.told and not self.stuck:
            self.looks -= 1
        free = 23 * GIB if self.looks <= 0 else 5 * GIB
        device = {"type": self.device, "vram_total": 24 * GIB, "vram_free": free}
        return {"devices": [device]}

    def ensure_ready(self, cancel: CancelToken | None = None) -> None:
        assert cancel is None
        self.told.append("ready")

    def restart(self, generation: int | None = None, cancel: CancelToken | None = None) -> None:
        assert generation == 1
        assert cancel is not None
        self.told.append("restart")
        self.stuck = False


def test_the_training_begins_when_the_memory_is_free() -> None:
    gpu = Gpu()
    with gpu_released(gpu, gpu, CancelToken()):
        assert gpu.looks == 0
        assert gpu.told == ["free"]
    assert gpu.told == ["free", "ready"]


def test_a_comfyui_that_keeps_it_is_restarted() -> None:
    gpu = Gpu(stuck_until_restart=True)
    with gpu_released(gpu, gpu, CancelToken(), timeout_s=0.3):
        assert gpu.told == ["free", "restart"]


def test_a_comfyui_that_has_just_died_is_started_again() -> None:
    class Dead(Gpu):
        def free(self, *, unload_models: bool = True, free_memory: bool = True) -> None:
            super().free(unload_models=unload_models, free_memory=free_memory)
            raise EngineUnavailable("gone")

        def ensure_ready(self, cancel: CancelToken | None = None) -> None:
            self.told.append("ready" if cancel is None else "ready before")

    gpu = Dead()
    with gpu_released(gpu, gpu, CancelToken()):
        assert gpu.told == ["free", "ready before"]
    assert gpu.told == ["free", "ready before", "ready"]


def test_memory_that_somebody_else_holds() -> None:
    gpu = Gpu(looks=10**9)
    with (
        pytest.raises(EngineUnavailable, match="Something else"),
        gpu_released(gpu, gpu, CancelToken(), timeout_s=0),
    ):
        pytest.fail("the GPU is not free")
    assert gpu.told == ["free", "restart", "ready"]


def test_without_a_gpu_there_is_nothing_to_wait_for() -> None:
    gpu = Gpu(looks=10**9, device="cpu")
    with gpu_released(gpu, gpu, CancelToken()):
        pass
    assert gpu_memory(gpu.system_stats()) is None
    assert gpu_memory(Gpu().system_stats()) == 24 * GIB
    assert gpu_memory({}) is None


def test_a_cancel_ends_the_wait_and_comfyui_is_ready_all_the_same() -> None:
    gpu, token = Gpu(looks=10**9), CancelToken()
    token.cancel()
    with pytest.raises(Cancelled), gpu_released(gpu, gpu, token):
        pytest.fail("cancelled")
    assert gpu.told == ["free", "ready"]


def test_the_trainings_failure_is_told_even_when_comfyui_is_gone_too() -> None:
    class Gone(Gpu):
        def ensure_ready(self, cancel: CancelToken | None = None) -> None:
            raise EngineUnavailable(f"gone {cancel}")

    with pytest.raises(KeyError), engine_restored(Gone()):
        raise KeyError("the training's own")


def test_the_folder_is_the_jobs_own_and_goes_with_it(tmp_path: Path) -> None:
    root = tmp_path / "training"
    with TrainingFolder(root, "job/../1") as folder:
        assert folder.path.parent == root
        folder.save("a.json", {"x": 1})
        (folder.kept("k") / "f").touch()
        assert folder.load("a.json", dict[str, int]) == {"x": 1}
        assert folder.load("b.json", dict[str, int]) is None
        assert list(folder.kept("k").iterdir())
        assert not list(folder.fresh("k").iterdir())
        assert not [path for path in folder.path.iterdir() if path.name.endswith(".part")]
    assert not list(root.iterdir())


def test_a_killed_worker_leaves_it_to_the_same_job(tmp_path: Path) -> None:
    TrainingFolder(tmp_path, "one").__enter__().save("a.json", {"x": 1})
    with TrainingFolder(tmp_path, "two") as other:
        assert other.load("a.json", dict[str, int]) is None
    with TrainingFolder(tmp_path, "one") as same:
        assert same.load("a.json", dict[str, int]) == {"x": 1}


def test_what_nobody_came_back_for_goes(tmp_path: Path) -> None:
    old = TrainingFolder(tmp_path, "old").__enter__().path
    long_ago = time.time() - 8 * 24 * 3600
    os.utime(old, (long_ago, long_ago))
    with TrainingFolder(tmp_path, "new"):
        assert not old.exists()


def test_the_disk_is_looked_at_before(tmp_path: Path) -> None:
    require_disk(tmp_path, 1)
    with pytest.raises(DiskFull, match="GB of disk") as caught:
        require_disk(tmp_path, 10**18)
    assert caught.value.details["needed_bytes"] == 10**18
    assert 3e9 < bytes_needed(32) < 6e9
    assert bytes_needed(64) > bytes_needed(32)


def test_losses_survive_a_restart(tmp_path: Path) -> None:
    folder = TrainingFolder(tmp_path, "job").__enter__()
    log = LossLog(folder)
    for step in range(1, 1200):
        log.add(TrainingStep(step, 2000, 1 / step))
    log.add(TrainingStep(1199, 2000, 0.5))
    log.add(TrainingStep(0, 2000, 9.0))
    log.add(TrainingStep(7, 2000, None))
    log.add(TrainingStep(7, 2000, float("nan")))
    log.save()
    curve = LossLog(folder).curve()
    assert len(curve) == 500
    assert (curve[0], curve[-1]) == ((1, 1.0), (1199, 0.5))


def test_the_stages_make_up_one_percentage() -> None:
    class Kept(Progress):
        def report(self, stage: str, percent: float, **more: Any) -> None:
            kept.append((stage, percent, more))

    kept: list[tuple[str, float, dict[str, Any]]] = []
    progress = TrainingProgress(Kept(lambda _: None))
    progress.at("photos", 0.5)
    progress.step(TrainingStep(50, 100, 0.1, 2.0))
    progress.at("uploading", 7)
    assert [percent for _, percent, _ in kept] == [4, 47.5, 100]
    assert kept[1][2] == {"step": 50, "steps": 100, "eta_s": 100.0, "loss": 0.1}


def test_warnings_say_what_could_be_better() -> None:
    def photo(verdict: Literal["kept", "warned", "rejected"]) -> PhotoResult:
        return PhotoResult(index=0, name="a.jpg", verdict=verdict)

    photos = [photo("kept") for _ in range(6)] + [photo("warned"), photo("rejected")]
    assert warnings_of(DatasetResult(photos=photos, unused_count=3), "The trigger …") == [
        "The trigger …",
        "Only 7 photos were usable; 10 or more are better.",
        "1 of 8 photos were rejected.",
        "1 photos have weaknesses; dataset.photos says which.",
        "3 files were not used; dataset.unused says which and why.",
    ]
    assert warnings_of(DatasetResult(photos=[photo("kept")] * 20), None) == []


def test_the_layers_to_adapt_are_read_from_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "base.safetensors"
    block = "model.diffusion_model.input_blocks.4.1"
    matrix, vector = np.zeros((2, 2), np.float16), np.zeros(2, np.float16)
    tensors = {
        f"{block}.proj_in.weight": matrix,
        f"{block}.transformer_blocks.0.attn1.to_out.0.weight": matrix,
        f"{block}.transformer_blocks.0.norm1.weight": vector,
        "model.diffusion_model.middle_block.1.proj_out.weight": matrix,
        "model.diffusion_model.time_embed.0.weight": matrix,
        "first_stage_model.x.weight": matrix,
    }
    save_file(tensors, path)
    assert trained_layers(path) == {
        "input_blocks_4_1_proj_in",
        "input_blocks_4_1_transformer_blocks_0_attn1_to_out_0",
        "middle_block_1_proj_out",
    }
    path.write_bytes(json.dumps({}).encode())
    assert trained_layers(path) == frozenset()
    assert trained_layers(None) == frozenset()
    assert find_checkpoint(path.name, [tmp_path / "none", tmp_path]) == path
    assert find_checkpoint("other", [tmp_path]) is None


@pytest.mark.parametrize(
    ("script", "capability"),
    [
        ("echo 7.5", 7.5),
        ("echo '[N/A]'", None),
        ("echo NVIDIA-SMI has failed; exit 9", None),
        (None, None),
    ],
)
def test_the_driver_says_what_the_gpu_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, capability: float | None
) -> None:
    if script is not None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert compute_capability() == capability
