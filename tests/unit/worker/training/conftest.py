"""A spec, a dataset and a trainer's places, none of which is there."""

from pathlib import Path

import pytest

from tests.specs import sdxl_kohya, small_spec
from worker.training.kohya_command import KohyaOptions
from worker.training.trainer import PreparedDataset, PreparedPhoto, TrainingSpec


@pytest.fixture
def spec() -> TrainingSpec:
    return small_spec()


@pytest.fixture
def dataset() -> PreparedDataset:
    photo = PreparedPhoto(Path("/photos/000.png"), "mrzkqv person", "0" * 64, 1024, 1024)
    return PreparedDataset(Path("/photos"), (photo,), "0" * 64)


@pytest.fixture
def kohya(tmp_path: Path) -> KohyaOptions:
    return KohyaOptions(
        folder=Path("/opt/sd-scripts"),
        python="/opt/python",
        checkpoint=tmp_path / "sd_xl_base_1.0.safetensors",
        tokenizers=Path("/opt/tokenizers"),
        recipe=sdxl_kohya(),
    )
