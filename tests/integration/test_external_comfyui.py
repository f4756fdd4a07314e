"""`COMFYUI_URL`: a ComfyUI that somebody else started, whose folders are not ours."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from local.s3 import S3Server
from tests.integration.worker_harness import WorkerHarness, picture, png, settings_for
from worker.child import ChildProcess
from worker.comfyui.process import ComfyUIOptions, ComfyUIProcess
from worker.errors import EngineUnavailable
from worker.service import Worker

pytestmark = pytest.mark.process


@pytest.fixture
def somebody_elses(tmp_path: Path) -> Iterator[ComfyUIProcess]:
    """A stand-in with folders of its own, which only shares the LoRA cache with the worker."""
    settings_folder = tmp_path / "worker"
    models = settings_folder / "models" / "checkpoints"
    models.mkdir(parents=True)
    options = ComfyUIOptions(
        directory=Path(__file__).resolve().parents[2] / "local" / "comfyui",
        output_directory=tmp_path / "theirs" / "output",
        input_directory=tmp_path / "theirs" / "input",
        temp_directory=tmp_path / "theirs",
        python=sys.executable,
        models={
            "checkpoints": (models,),
            "loras": (settings_folder / "work" / "loras",),
        },
    )
    with ComfyUIProcess(options) as engine:
        engine.start()
        engine.wait_ready()
        yield engine


def test_files_travel_by_http_and_the_server_outlives_the_worker(
    s3: S3Server, tmp_path: Path, somebody_elses: ComfyUIProcess
) -> None:
    shared = tmp_path / "worker" / "work" / "loras"
    settings = settings_for(
        s3, tmp_path / "worker", COMFYUI_URL=somebody_elses.url, LORA_CACHE_DIR=str(shared)
    )
    with Worker(settings) as worker:
        worker.wait_ready()
        harness = WorkerHarness(worker, tmp_path)
        harness.register("mira", trigger="ohwx")
        harness.put("inputs/start.png", png(256, 256))
        job = {
            "task": "image",
            "prompt": "a pier",
            "character_id": "mira",
            "init_image": {"key": "inputs/start.png"},
            "denoise": 0.5,
            "width": 256,
            "height": 256,
            "count": 2,
            "steps": 2,
        }
        result = harness.run(job)
        assert [picture(output["url"]).size for output in result["outputs"]] == [(256, 256)] * 2
        assert harness.run({"task": "health"})["comfyui"]["ok"]
    assert requests.get(f"{somebody_elses.url}/system_stats", timeout=5).ok


def test_a_server_that_is_not_there_stops_the_start(s3: S3Server, tmp_path: Path) -> None:
    settings = settings_for(
        s3, tmp_path, COMFYUI_URL="http://127.0.0.1:9", COMFYUI_START_TIMEOUT_S="1"
    )
    with Worker(settings) as worker, pytest.raises(EngineUnavailable):
        worker.wait_ready()


def test_handler_says_why_it_cannot_start(tmp_path: Path) -> None:
    output: list[bytes] = []
    handler = ChildProcess(
        [sys.executable, str(Path(__file__).resolve().parents[2] / "handler.py")],
        name="handler",
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "COMFYUI_PORT": "many"},
        on_output=output.append,
    )
    with handler:
        assert handler.wait(30) == 2
    said = b"".join(output).decode()
    assert "S3_BUCKET is missing" in said
    assert "COMFYUI_PORT: " in said
    assert "Traceback" not in said


def test_a_character_that_the_other_server_cannot_see_is_refused_at_once(
    s3: S3Server, tmp_path: Path, somebody_elses: ComfyUIProcess
) -> None:
    settings = settings_for(s3, tmp_path / "worker", COMFYUI_URL=somebody_elses.url)
    with Worker(settings) as worker:
        worker.wait_ready()
        harness = WorkerHarness(worker, tmp_path)
        job = {"task": "image", "prompt": "a pier", "character_id": "mira"}
        health = harness.run({"task": "health"})
        result = harness.run(job | {"workflow": "sdxl"})
    assert result["code"] == "workflow_rejected"
    assert "LORA_CACHE_DIR" in result["error"]
    assert "LORA_CACHE_DIR" in health["families"]["sdxl"]["lacks"][0]
