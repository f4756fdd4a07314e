"""How much of our code one job runs: what a reader must open to follow it.

Every call in every thread is traced while one job runs on a worker that has run the same job
before. `pytest -s tests/integration/test_paths.py` prints the modules and who calls whom.
"""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from local.s3 import S3Server
from tests.integration.training.training_harness import STAND_IN, TrainingHarness, make_tokenizers
from tests.integration.worker_harness import settings_for
from worker.service import Worker

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
OURS = ("worker", "lora_registry", "workflows", "families", "errors.py")
# Measured; the aim is 30 and 50. These numbers may only go down.
PICTURE_MODULES = 41
TRAINING_MODULES = 71
# A retry calls the request that it was given: the callback is the design, not a knot.
KNOWN_MUTUAL = {
    ("worker/storage/client.py", "worker/storage/object_store.py"),
}
# A replayed change calls back into the registry that asked for it, a transfer into its client.
KNOWN_MUTUAL_OF_A_TRAINING = KNOWN_MUTUAL | {
    ("lora_registry/records.py", "lora_registry/registry.py"),
    ("lora_registry/records.py", "lora_registry/versions.py"),
    ("worker/storage/client.py", "worker/storage/transfer.py"),
}
SMALL = {"task": "image", "prompt": "a lighthouse", "width": 256, "height": 256, "steps": 2}


class Tracer:
    """Our modules that run between `begin` and `end`, in threads that were begun after it."""

    def __init__(self) -> None:
        self.modules: set[str] = set()
        self.calls: set[tuple[str, str]] = set()
        self._on = False

    def __enter__(self) -> "Tracer":
        threading.setprofile(self._see)
        sys.setprofile(self._see)
        return self

    def __exit__(self, *exc: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def begin(self) -> None:
        self.modules.clear()
        self.calls.clear()
        self._on = True

    def end(self) -> None:
        self._on = False

    def mutual(self) -> list[tuple[str, str]]:
        """Pairs of modules that call each other."""
        return sorted((a, b) for a, b in self.calls if a < b and (b, a) in self.calls)

    def _see(self, frame: FrameType, event: str, _: Any) -> None:
        if not self._on or event != "call":
            return
        module = _module(frame)
        if module is None:
            return
        self.modules.add(module)
        caller = frame.f_back
        if caller is not None and (source := _module(caller)) not in {None, module}:
            assert source is not None
            self.calls.add((source, module))


def _module(frame: FrameType) -> str | None:
    path = frame.f_code.co_filename
    if not path.startswith(f"{ROOT}/"):
        return None
    inside = path[len(str(ROOT)) + 1 :]
    return inside if inside.split("/")[0] in OURS else None


@pytest.fixture(scope="module")
def traced(
    s3: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Tracer, TrainingHarness]]:
    folder = tmp_path_factory.mktemp("paths")
    tokenizers = make_tokenizers(folder)
    with Tracer() as tracer:
        settings = settings_for(
            s3, folder, KOHYA_DIR=str(STAND_IN), KOHYA_TOKENIZERS=str(tokenizers)
        )
        with Worker(settings) as worker:
            worker.wait_ready()
            yield tracer, TrainingHarness(worker, folder)


def shown(title: str, tracer: Tracer) -> str:
    lines = [f"{title}: {len(tracer.modules)} modules, {len(tracer.calls)} edges"]
    lines += [f"  {module}" for module in sorted(tracer.modules)]
    lines += [f"  call each other: {a} <-> {b}" for a, b in tracer.mutual()]
    return "\n".join(lines)


def test_a_warm_picture(traced: tuple[Tracer, TrainingHarness]) -> None:
    tracer, harness = traced
    harness.register("mira")
    job = SMALL | {"character_id": "mira"}
    assert harness.run(job)["outputs"]
    tracer.begin()
    assert harness.run(job | {"seed": 1})["outputs"]
    tracer.end()
    sys.stdout.write(shown("A warm picture", tracer))
    assert len(tracer.modules) <= PICTURE_MODULES
    assert set(tracer.mutual()) <= KNOWN_MUTUAL


def test_a_training(traced: tuple[Tracer, TrainingHarness]) -> None:
    tracer, harness = traced
    harness.run(harness.job("first"))
    tracer.begin()
    result = harness.run(harness.job("second"))
    tracer.end()
    assert result["character"], result
    sys.stdout.write(shown("A training", tracer))
    assert len(tracer.modules) <= TRAINING_MODULES
    assert set(tracer.mutual()) <= KNOWN_MUTUAL_OF_A_TRAINING
