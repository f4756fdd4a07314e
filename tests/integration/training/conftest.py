"""Real small parts for the training tests: a spec, a folder of PNGs, the stand-in trainer."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from worker.training.kohya_command import KohyaOptions
from worker.training.trainer import PreparedDataset, PreparedPhoto, TrainingSpec

_ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def spec() -> TrainingSpec:
    return TrainingSpec(
        name="mira-0123456789ab",
        trigger="mrzkqv",
        class_noun="person",
        steps=12,
        rank=2,
        alpha=1.0,
        learning_rate=1e-4,
        resolution=512,
        batch_size=2,
        gradient_checkpointing=False,
        seed=7,
        save_every=5,
        deadline_s=60.0,
    )


@pytest.fixture
def dataset(tmp_path: Path) -> PreparedDataset:
    folder = tmp_path / "photos"
    folder.mkdir()
    photos = []
    for number in range(6):
        path = folder / f"{number:03d}.png"
        pixels = np.random.default_rng(number).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        path.with_suffix(".txt").write_text("mrzkqv person")
        photos.append(PreparedPhoto(path, "mrzkqv person", f"{number:064d}", 64, 64))
    return PreparedDataset(folder, tuple(photos), "0" * 64)


@pytest.fixture
def kohya(tmp_path: Path) -> KohyaOptions:
    """The stand-in in the trainer's place, with a checkpoint that nobody reads."""
    checkpoint = tmp_path / "sd_xl_base_1.0.safetensors"
    checkpoint.write_bytes(b"not read by the stand-in")
    tokenizers = tmp_path / "tokenizers"
    for name in ("openai_clip-vit-large-patch14", "laion_CLIP-ViT-bigG-14-laion2B-39B-b160k"):
        (tokenizers / name).mkdir(parents=True)
    return KohyaOptions(
        folder=_ROOT / "local" / "kohya",
        python=sys.executable,
        checkpoint=checkpoint,
        tokenizers=tokenizers,
        stall_timeout_s=2.0,
    )
