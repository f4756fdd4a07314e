"""The product on this machine: a real bucket, models, and a worker asked as RunPod asks it."""

import base64
import io
import os
import statistics
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from benchmarks.gpu import shapes
from benchmarks.gpu.sizes import Sizes
from benchmarks.gpu.weights import make_tokenizers, write_checkpoint
from local.stack import CHECKPOINTS, TRAINER_STAND_IN, Stack
from worker import assembly
from worker.cancel import CancelToken
from worker.comfyui.process import ComfyUIProcess
from worker.service import Worker
from worker.settings import Settings

SDXL, SVD = CHECKPOINTS
PROMPT: Final = "portrait of a person by a window, soft light"


class JobFailed(Exception):
    """A job of the measurement did not end well; nothing can be said of its speed."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the programs and weights of a run are; None takes a stand-in, or random weights.

    Attributes:
        work: a folder with room: 20 GB for random weights, and as much for 50 LoRAs.
        comfyui_args: more arguments for ComfyUI, such as `--cpu`.
        sdxl, svd: checkpoints with real weights.
        small: random weights are small ones.
    """

    work: Path
    comfyui: Path | None = None
    comfyui_python: str | None = None
    comfyui_args: str = ""
    kohya: Path | None = None
    kohya_python: str | None = None
    tokenizers: Path | None = None
    sdxl: Path | None = None
    svd: Path | None = None
    small: bool = False

    @property
    def pretends(self) -> list[str]:
        """Which figures mean nothing, because a stand-in made them."""
        stand_ins = {"ComfyUI": self.comfyui, "sd-scripts": self.kohya}
        return [name for name, folder in stand_ins.items() if folder is None]


@dataclass(frozen=True, slots=True)
class Bench:
    """A running stack with the models in place."""

    places: Places
    sizes: Sizes
    stack: Stack
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(1, 1 << 31)))

    def environment(self, name: str, **changes: str) -> dict[str, str]:
        """A worker's environment, with a folder of its own below `name`."""
        places = self.places
        settings = {
            "WORK_DIR": str(self.stack.folder / name),
            "LORA_CACHE_DIR": str(self.stack.folder / "loras"),
            "KOHYA_DIR": str(places.kohya or TRAINER_STAND_IN),
            "KOHYA_TOKENIZERS": str(places.tokenizers or self.stack.folder / "tokenizers"),
            "KOHYA_PYTHON": places.kohya_python or ("" if places.kohya else sys.executable),
            "LIKENESS": "off",
            "LOG_LEVEL": "WARNING",
            "JOB_TIMEOUT_S": "3600",
            # Where the packages of a carried benchmark are (`carried.py`).
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        }
        return self.stack.environment(**(settings | changes))

    @contextmanager
    def worker(self, name: str = "worker", **changes: str) -> Iterator[Worker]:
        """A worker that takes jobs, as the container runs it."""
        settings = Settings.from_environment(self.environment(name, **changes))
        with Worker(settings) as worker:
            worker.wait_ready()
            yield worker

    @contextmanager
    def worker_on_defaults(self) -> Iterator[Worker]:
        """A worker on a ComfyUI that is started with none of our options but its folders."""
        settings = Settings.from_environment(self.environment("defaults"))
        options = assembly.comfyui_options(settings)
        engine = ComfyUIProcess(replace(options, extra_args=settings.comfyui_args))
        try:
            engine.start()
            engine.wait_ready()
            with self.worker("beside-defaults", COMFYUI_URL=engine.url) as worker:
                yield worker
        finally:
            engine.stop()

    def seed(self) -> int:
        """Another one each time: ComfyUI answers a graph that it knows from its cache."""
        return next(self.numbers)


@contextmanager
def opened(places: Places, sizes: Sizes) -> Iterator[Bench]:
    """Storage and models until the block ends; random weights stay in `work` for the next time."""
    tempfile.tempdir = str(places.work)  # everything large goes where there is room
    with ExitStack() as held:
        stack = held.enter_context(
            Stack(
                comfyui_dir=places.comfyui,
                comfyui_python=places.comfyui_python,
                comfyui_args=places.comfyui_args,
            )
        )
        if places.comfyui is not None:
            _place_models(places, stack.folder / "models" / "checkpoints")
            make_tokenizers(places.comfyui, stack.folder / "tokenizers")
        yield Bench(places, sizes, stack)


def _place_models(places: Places, folder: Path) -> None:
    kind = "small" if places.small else "full"
    for name, given, make in (
        (SDXL, places.sdxl, shapes.sdxl),
        (SVD, places.svd, shapes.svd),
    ):
        random = places.work / "checkpoints" / kind / name
        source = given or write_checkpoint(random, make(small=places.small))
        (folder / name).symlink_to(source.resolve())


def run_job(worker: Worker, job: Mapping[str, Any]) -> dict[str, Any]:
    """One job, as the handler runs it. Raises JobFailed with what it answered."""
    answer = worker.run(uuid.uuid4().hex, dict(job), cancel=CancelToken(), send=lambda _: None)
    if "error" in answer:
        raise JobFailed(f"{job['task']}: {answer['error']} {answer.get('details', '')}")
    return answer


def picture_job(bench: Bench, *, count: int = 1, **fields: Any) -> dict[str, Any]:
    """A picture of the run's size that nobody has asked for yet."""
    sizes = bench.sizes
    return {
        "task": "image",
        "prompt": PROMPT,
        "workflow": "sdxl",
        "width": sizes.side,
        "height": sizes.side,
        "steps": sizes.steps,
        "count": count,
        "seed": bench.seed(),
        **fields,
    }


def execution_s(answer: Mapping[str, Any]) -> float:
    """Seconds on the GPU, by ComfyUI's clock."""
    return float(answer["timings_ms"]["execution"]) / 1000


def median(values: list[float]) -> float:
    """Of seconds or milliseconds, to three digits."""
    return round(statistics.median(values), 3)


def photo(number: int, side: int) -> Image.Image:
    """A picture like no other; what it shows costs nothing and changes nothing."""
    random = np.random.default_rng(number)
    pixels = random.integers(0, 255, (16, 16, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)


def as_source(image: Image.Image) -> dict[str, str]:
    """A picture as a job's source."""
    body = io.BytesIO()
    image.save(body, "PNG")
    return {"base64": base64.b64encode(body.getvalue()).decode()}


def load() -> float:
    """The machine's load over a minute: what is measured beside other work is worth less."""
    return round(os.getloadavg()[0], 2)
