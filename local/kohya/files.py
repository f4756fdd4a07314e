"""The files that sd-scripts leaves: LoRAs with all 722 modules of SDXL, and saved states."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from local.lora_file import sdxl_modules


def write_lora(path: Path, *, rank: int, alpha: float, seed: int, learned: float = 0.01) -> None:
    """Write a LoRA of the true shapes; `learned` is the size of up: 0 as at a training's start."""
    random = np.random.default_rng(seed)
    tensors: dict[str, NDArray[Any]] = {}
    for module, inputs, outputs in sdxl_modules():
        key = f"lora_unet_{module}"
        tensors[f"{key}.lora_down.weight"] = _noise(random, (rank, inputs), 0.05)
        tensors[f"{key}.lora_up.weight"] = _noise(random, (outputs, rank), learned)
        tensors[f"{key}.alpha"] = np.array(alpha, np.float16)
    metadata = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(alpha),
        "ss_base_model_version": "sdxl_base_v1-0",
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "modelspec.title": "stand-in: random weights, nothing was trained",
    }
    save_file(tensors, path, metadata=metadata)


def write_state(folder: Path, *, step: int) -> None:
    """What accelerate's save_state leaves, in its order; small, since nobody reads the tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {"current_epoch": 1, "current_step": step}
    (folder / "train_state.json").write_text(json.dumps(state))
    for name in ("model.safetensors", "optimizer.bin", "scheduler.bin", "random_states_0.pkl"):
        (folder / name).write_bytes(b"stand-in " * 64)


def remove(path: Path) -> None:
    """Remove a file or a folder that may not be there."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def _noise(
    random: np.random.Generator, shape: tuple[int, int], scale: float
) -> NDArray[np.float16]:
    return (random.standard_normal(shape, np.float32) * np.float32(scale)).astype(np.float16)
