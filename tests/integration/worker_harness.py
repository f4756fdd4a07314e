"""A whole worker on the local stack, as tests talk to it: real resources, the stand-in ComfyUI."""

import dataclasses
import functools
import io
import json
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import requests
from jsonschema import Draft202012Validator
from PIL import Image

from errors import RETRYABLE, ErrorCode
from local.lora_file import write_demo_lora
from local.s3 import S3Server
from local.stack import CHECKPOINTS, ROOT, STAND_IN
from lora_registry.versions import NewVersion
from worker.cancel import CancelToken
from worker.service import Worker
from worker.settings import Settings

SCHEMA: Final = json.loads((ROOT / "docs" / "contract.schema.json").read_text())
RESULTS: Final[Mapping[str, tuple[str, ...]]] = {
    "image": ("GenerationResult",),
    "video": ("GenerationResult",),
    "workflow": ("GenerationResult",),
    "train": ("TrainResult",),
    "characters": ("CharacterPageResult", "CharacterDetailResult", "CharacterChangedResult"),
    "health": ("HealthResult",),
}
"""What the results of each task are called in the schema; an error may be any task's."""


def check_result(job: object, result: Mapping[str, Any]) -> None:
    """Hold a result against the published schema, and its `retryable` against the code."""
    json.dumps(result, allow_nan=False)
    names = ("ErrorResult",) if "error" in result else _results_of(job)
    validators = [_validator(name) for name in names]
    assert any(validator.is_valid(result) for validator in validators), [
        error.message for validator in validators for error in validator.iter_errors(result)
    ]
    if "error" in result:
        assert result["retryable"] is RETRYABLE[ErrorCode(result["code"])]


def _results_of(job: object) -> tuple[str, ...]:
    assert isinstance(job, Mapping), "only an error can be the result of what is no object"
    return RESULTS[job["task"]]


@functools.cache
def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator({"$defs": SCHEMA["$defs"], "$ref": f"#/$defs/{name}"})


def settings_for(s3: S3Server, folder: Path, **changes: str) -> Settings:
    """Settings of a worker with everything of its own below `folder`."""
    models = folder / "models" / "checkpoints"
    models.mkdir(parents=True, exist_ok=True)
    for name in CHECKPOINTS:
        (models / name).touch()
    given = {
        "S3_ENDPOINT_URL": s3.endpoint_url,
        "S3_BUCKET": s3.bucket,
        "S3_ACCESS_KEY_ID": s3.access_key_id,
        "S3_SECRET_ACCESS_KEY": s3.secret_access_key,
        "S3_ADDRESSING_STYLE": "path",
        "S3_PREFIX": f"harness-{uuid.uuid4().hex}",
        "WORK_DIR": str(folder / "work"),
        "MODELS_DIR": str(folder / "models"),
        "COMFYUI_DIR": str(STAND_IN),
        # Noise has no faces, and looking for them takes seconds; tests of likeness say "auto".
        "LIKENESS": "off",
    }
    return Settings.from_environment(given | changes)


class WorkerHarness:
    """One open worker and shortcuts around it."""

    def __init__(self, worker: Worker, folder: Path) -> None:
        self.worker = worker
        self.resources = worker.resources
        self.folder = folder
        self.updates: list[dict[str, Any]] = []

    def run(
        self,
        job: Mapping[str, Any],
        *,
        job_id: str | None = None,
        cancel: CancelToken | None = None,
    ) -> dict[str, Any]:
        """Run one job as the handler would; its progress is in `updates`, its result checked."""
        self.updates = []
        result = self.worker.run(
            job_id or uuid.uuid4().hex,
            dict(job),
            cancel=cancel or CancelToken(),
            send=self.updates.append,
        )
        check_result(job, result)
        return result

    def register(self, character_id: str, *, trigger: str = "ohwx", seed: int = 0) -> str:
        """Register a real LoRA file; the version's id."""
        path = self.folder / f"{character_id}-{seed}.safetensors"
        write_demo_lora(path, rank=1, seed=seed)
        new = NewVersion(
            character_id=character_id,
            job_id=f"register-{character_id}-{seed}",
            weights=path,
            base_model="sdxl",
            format="kohya",
            rank=1,
            trigger=trigger,
        )
        return self.resources.registry.add_version(new).id

    def put(self, key: str, body: bytes, content_type: str = "image/png") -> None:
        """Put an object into the worker's bucket."""
        self.resources.store.put(key, body, content_type)

    def keys(self, prefix: str) -> list[str]:
        """The keys below a prefix."""
        return [info.key for info in self.resources.store.list(prefix)]

    def faults(self, **faults: Any) -> None:
        """Switch faults of the stand-in on."""
        url = f"{self.resources.engine.url}/stand-in/faults"
        requests.post(url, json=faults, timeout=5).raise_for_status()

    def no_faults(self) -> None:
        """Switch all of them off."""
        requests.delete(
            f"{self.resources.engine.url}/stand-in/faults", timeout=5
        ).raise_for_status()

    def prompts_run(self) -> int:
        """How many prompts the stand-in has had: the proof that a GPU was touched, or was not."""
        while any(requests.get(f"{self.resources.engine.url}/queue", timeout=5).json().values()):
            time.sleep(0.01)  # a prompt leaves the queue when it enters history, a little late
        return len(requests.get(f"{self.resources.engine.url}/history", timeout=5).json())

    def leftovers(self) -> list[Path]:
        """Files that a job should have taken away: temporary ones, inputs, outputs."""
        work = self.worker.settings.work_dir
        places = [*work.glob("job-*"), work / "comfyui" / "input", work / "comfyui" / "output"]
        return [path for place in places for path in place.rglob("*") if path.is_file()]


def copied_workflows(folder: Path) -> Path:
    """The worker's workflows in a folder of their own, to drop further ones into."""
    target = folder / "workflows"
    shutil.copytree(
        ROOT / "workflows", target, ignore=shutil.ignore_patterns("*.py", "__pycache__")
    )
    return target


def fetched(url: str) -> bytes:
    """What a presigned URL gives to somebody without credentials."""
    answer = requests.get(url, timeout=30)
    answer.raise_for_status()
    return answer.content


def picture(url: str) -> Image.Image:
    """A delivered picture."""
    image = Image.open(io.BytesIO(fetched(url)))
    image.load()
    return image


def graph_of(image: Image.Image) -> dict[str, Any]:
    """The graph that made a PNG, from ComfyUI's metadata chunk."""
    graph: dict[str, Any] = json.loads(image.info["prompt"])
    return graph


def png(width: int = 640, height: int = 480, colour: str = "teal") -> bytes:
    """A picture to start from."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


def with_sources_from(harness: WorkerHarness, sources: Any) -> None:
    """Give the worker another reader of sources: one that may fetch from loopback."""
    harness.worker.resources = dataclasses.replace(harness.worker.resources, sources=sources)
