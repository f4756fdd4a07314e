"""LoRA files and versions for tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from safetensors.numpy import save_file

from families.library import load_families
from families.recognition import LoraFacts, Recogniser
from lora_registry.cache import LoraCache
from lora_registry.character import UsableVersion
from lora_registry.versions import NewVersion
from worker.loras import examine

FAMILIES: Final = load_families(Path(__file__).resolve().parent.parent / "families")
RECOGNISER: Final = Recogniser(FAMILIES)


def inspect(path: Path, base_model: str | None = None) -> LoraFacts:
    """What the worker says of a file, with the families that ship."""
    return examine(path, RECOGNISER, base_model=base_model)


def write_lora(path: Path, *, seed: int = 0, rank: int = 2, context: int = 2048) -> Path:
    """A LoRA of one cross-attention module, in kohya's layout; no two seeds alike."""
    random = np.random.default_rng(seed)
    name = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
    tensors = {
        f"{name}.lora_down.weight": random.random((rank, context), np.float32).astype(np.float16),
        f"{name}.lora_up.weight": random.random((640, rank), np.float32).astype(np.float16),
        f"{name}.alpha": np.array(1.0, np.float16),
    }
    save_file(tensors, path)
    return path


def new_version(path: Path, character_id: str = "mira", job_id: str = "job-1") -> NewVersion:
    """What a job would register of a file."""
    return NewVersion(character_id, job_id, path, "sdxl", "kohya", rank=2, trigger="ohwx")


def ensure(
    cache: LoraCache, version: UsableVersion, check_cancelled: Callable[[], None] | None = None
) -> Path:
    """Have a file here by now; without a lease it may be evicted again."""
    with cache.lease(version, check_cancelled) as path:
        return path
