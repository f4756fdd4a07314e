"""A ComfyUI that hangs, wherever it does: the next job finds one that works."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.s3 import S3Server
from local.stack import STAND_IN as COMFYUI
from tests.integration.training.training_harness import STAND_IN, TrainingHarness, make_tokenizers
from tests.integration.worker_harness import settings_for
from worker.comfyui.process import ComfyUIProcess
from worker.generation.warmup import warm_up
from worker.service import Worker

pytestmark = pytest.mark.process

SMALL = {"task": "image", "prompt": "a lighthouse", "width": 256, "height": 256, "steps": 2}


@pytest.fixture(scope="module")
def opened(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainingHarness]:
    folder = tmp_path_factory.mktemp("hangs")
    settings = settings_for(
        s3,
        folder,
        KOHYA_DIR=str(STAND_IN),
        KOHYA_TOKENIZERS=str(make_tokenizers(folder)),
        JOB_TIMEOUT_S="2",
    )
    with Worker(settings) as worker:
        worker.wait_ready()
        yield TrainingHarness(worker, folder)


@pytest.fixture
def harness(opened: TrainingHarness) -> Iterator[TrainingHarness]:
    opened.resources.engine.ensure_ready()
    opened.no_faults()
    yield opened
    assert opened.leftovers() == []


def test_in_a_job_and_the_job_queued_behind_it(harness: TrainingHarness) -> None:
    starts = harness.resources.engine.generation
    harness.faults(hang_at="step:1")
    results = {}

    def run(name: str) -> None:
        results[name] = harness.run(SMALL, job_id=name)

    hanging = threading.Thread(target=run, args=("hanging",))
    hanging.start()
    time.sleep(0.5)
    behind = threading.Thread(target=run, args=("behind",))
    behind.start()
    hanging.join(40)
    behind.join(40)
    assert results["hanging"]["code"] == "timeout"
    assert results["behind"].get("outputs"), results["behind"]
    assert harness.resources.engine.generation == starts + 1


def test_in_a_preview(harness: TrainingHarness) -> None:
    harness.faults(hang_at="step:1")
    result = harness.run(harness.job("hung-preview"))
    assert result["character"], result
    begun = time.monotonic()
    assert harness.run(SMALL)["outputs"]
    assert time.monotonic() - begun < 20


def test_in_the_warm_up(harness: TrainingHarness) -> None:
    harness.faults(hang_at="step:1")
    warm_up(harness.resources, "sdxl")
    assert harness.run(SMALL)["outputs"]


def test_in_comfyuis_trainer(harness: TrainingHarness) -> None:
    harness.faults(hang_at="executing:TrainLoraNode")
    result = harness.run(harness.job("hung-trainer", trainer="comfyui") | {"timeout_s": 60})
    assert result["code"] == "timeout", result
    assert harness.run(SMALL)["outputs"]


def test_while_idle(harness: TrainingHarness) -> None:
    """Nobody has asked it anything, and it answers nobody any more."""
    starts = harness.resources.engine.generation
    assert isinstance(harness.resources.engine, ComfyUIProcess)
    assert harness.resources.engine.pid is not None
    os.kill(harness.resources.engine.pid, signal.SIGSTOP)
    assert harness.run(SMALL)["outputs"]
    assert harness.resources.engine.generation == starts + 1


def test_a_restart_that_does_not_help_asks_for_another_worker(s3: S3Server, tmp_path: Path) -> None:
    program = tmp_path / "comfyui"
    program.symlink_to(COMFYUI)
    with Worker(settings_for(s3, tmp_path, COMFYUI_DIR=str(program))) as worker:
        worker.wait_ready()
        harness = TrainingHarness(worker, tmp_path)
        harness.faults(hang_at="step:1")
        program.unlink()
        assert harness.run(SMALL | {"timeout_s": 1})["code"] == "timeout"
        result = harness.run(SMALL)
        assert result["code"] == "engine_unavailable"
        assert result["refresh_worker"] is True
