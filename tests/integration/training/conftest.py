"""Real small parts for the training tests: a spec, a folder of PNGs, the stand-in trainer."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from local.s3 import S3Server
from tests.integration.training.training_harness import STAND_IN, TrainingHarness, make_tokenizers
from tests.integration.worker_harness import settings_for
from tests.specs import sdxl_kohya, small_spec
from worker.service import Worker
from worker.training.kohya_command import KohyaOptions
from worker.training.trainer import PreparedDataset, PreparedPhoto, TrainingSpec


@pytest.fixture
def spec() -> TrainingSpec:
    return small_spec()


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
    return KohyaOptions(
        folder=STAND_IN,
        python=sys.executable,
        checkpoint=checkpoint,
        tokenizers=make_tokenizers(tmp_path),
        recipe=sdxl_kohya(),
        stall_timeout_s=60.0,
    )


@pytest.fixture(scope="session")
def open_harness(
    s3: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TrainingHarness]:
    """One worker that trains with the stand-in, for all tests of the branch."""
    folder = tmp_path_factory.mktemp("harness")
    tokenizers = make_tokenizers(folder)
    settings = settings_for(s3, folder, KOHYA_DIR=str(STAND_IN), KOHYA_TOKENIZERS=str(tokenizers))
    with Worker(settings) as worker:
        worker.wait_ready()
        yield TrainingHarness(worker, folder)


@pytest.fixture
def harness(
    open_harness: TrainingHarness, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TrainingHarness]:
    """That worker without faults; a job must leave neither file nor process behind."""
    monkeypatch.setenv("KOHYA_FAULTS", str(open_harness.kohya_faults))
    open_harness.kohya_faults.unlink(missing_ok=True)
    open_harness.no_faults()
    yield open_harness
    open_harness.no_faults()
    assert open_harness.leftovers() == []
    assert not [*open_harness.trainings.glob("*")]
    assert open_harness.resources.engine.alive


@pytest.fixture(scope="module")
def faces(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainingHarness]:
    """A worker that trains with the stand-in and measures likeness."""
    folder = tmp_path_factory.mktemp("faces")
    tokenizers = make_tokenizers(folder)
    settings = settings_for(
        s3, folder, LIKENESS="auto", KOHYA_DIR=str(STAND_IN), KOHYA_TOKENIZERS=str(tokenizers)
    )
    with Worker(settings) as worker:
        worker.wait_ready()
        yield TrainingHarness(worker, folder)
