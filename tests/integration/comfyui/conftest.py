"""The stand-in ComfyUI as a real child process, its faults, and a client for it."""

import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from worker.cancel import CancelToken
from worker.comfyui.client import ComfyUIClient, Execution, OutputFile, Step
from worker.comfyui.process import ComfyUIOptions, ComfyUIProcess

ROOT = Path(__file__).parents[3]

Faults = Callable[..., None]
Graph = dict[str, dict[str, Any]]


class Job:
    """One call of `run`, with what it was told on the way."""

    def __init__(self, client: ComfyUIClient) -> None:
        self.client = client
        self.cancel = CancelToken()
        self.steps: list[Step] = []
        self.files: list[tuple[str, tuple[OutputFile, ...]]] = []
        self.starts = 0
        self.on_step: Callable[[Step], None] = lambda _: None

    def run(self, graph: Graph, timeout_s: float = 20.0) -> Execution:
        return self.client.run(
            graph,
            timeout_s=timeout_s,
            cancel=self.cancel,
            on_step=self._step,
            on_files=lambda node, files: self.files.append((node, files)),
            on_start=self._start,
        )

    def _step(self, step: Step) -> None:
        self.steps.append(step)
        self.on_step(step)

    def _start(self) -> None:
        self.starts += 1


@pytest.fixture
def options(tmp_path: Path) -> ComfyUIOptions:
    return stand_in(tmp_path)


@pytest.fixture(scope="session")
def session_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyUIProcess]:
    with ComfyUIProcess(stand_in(tmp_path_factory.mktemp("comfyui"))) as engine:
        yield engine


@pytest.fixture
def engine(session_engine: ComfyUIProcess) -> ComfyUIProcess:
    """Started once; a test that ended it is not felt by the next."""
    session_engine.ensure_ready()
    requests.delete(f"{session_engine.url}/stand-in/faults", timeout=5)
    return session_engine


@pytest.fixture
def faults(engine: ComfyUIProcess) -> Faults:
    # An earlier test's prompt enters history after its client left, and would take the fault.
    while any(requests.get(f"{engine.url}/queue", timeout=5).json().values()):
        time.sleep(0.01)

    def switch_on(**given: object) -> None:
        requests.post(f"{engine.url}/stand-in/faults", json=given, timeout=5).raise_for_status()

    return switch_on


@pytest.fixture
def client(engine: ComfyUIProcess) -> Iterator[ComfyUIClient]:
    with ComfyUIClient(engine, stop_timeout_s=1.0) as opened:
        yield opened


@pytest.fixture
def job(client: ComfyUIClient) -> Job:
    return Job(client)


def stand_in(folder: Path) -> ComfyUIOptions:
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir()
    (checkpoints / "tiny_sdxl.safetensors").touch()
    return ComfyUIOptions(
        directory=ROOT,
        python=sys.executable,
        entry=("-m", "local.comfyui"),
        output_directory=folder / "output",
        input_directory=folder / "input",
        temp_directory=folder / "temp",
        models={"checkpoints": [checkpoints], "loras": [folder / "loras"]},
        start_timeout_s=30.0,
        expected_version="0.33.0",
    )


@pytest.fixture
def plain() -> Callable[[], Graph]:
    """Two pictures of one colour, in a folder of their own so that nothing is cached."""

    def graph() -> Graph:
        return {
            "1": {
                "class_type": "EmptyImage",
                "inputs": {"width": 64, "height": 64, "batch_size": 2, "color": 7},
            },
            "2": {
                "class_type": "SaveImage",
                "inputs": {"images": ["1", 0], "filename_prefix": f"{uuid.uuid4().hex}/x"},
            },
        }

    return graph


@pytest.fixture
def sampled() -> Callable[..., Graph]:
    """A picture that takes steps to make."""

    def graph(steps: int = 4) -> Graph:
        prompt = {"text": "ohwx person", "clip": ["4", 1]}
        return {
            "4": {
                "class_type": "CheckpointLoaderSimple",
                "inputs": {"ckpt_name": "tiny_sdxl.safetensors"},
            },
            "5": {
                "class_type": "EmptyLatentImage",
                "inputs": {"width": 64, "height": 64, "batch_size": 1},
            },
            "6": {"class_type": "CLIPTextEncode", "inputs": prompt},
            "3": {
                "class_type": "KSampler",
                "inputs": {
                    "seed": uuid.uuid4().int % 2**32,
                    "steps": steps,
                    "cfg": 5.0,
                    "sampler_name": "euler",
                    "scheduler": "normal",
                    "denoise": 1.0,
                    "model": ["4", 0],
                    "positive": ["6", 0],
                    "negative": ["6", 0],
                    "latent_image": ["5", 0],
                },
            },
            "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
            "9": {
                "class_type": "SaveImage",
                "inputs": {"images": ["8", 0], "filename_prefix": f"{uuid.uuid4().hex}/x"},
            },
        }

    return graph
