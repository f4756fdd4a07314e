"""The environment, read once: every setting with its default, limits and meaning.

`Settings.from_environment()` is the only reader of the environment in the project (lint sees to
it). README's table, `.env.example` and `.runpod/hub.json` are checked against these by tests.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field

from worker.storage_settings import ALIASES, StorageSettings, read_settings

_Task = Literal["image", "video", "workflow", "train", "characters", "health"]
TASKS: tuple[_Task, ...] = ("image", "video", "workflow", "train", "characters", "health")


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part for part in value.replace(",", " ").split() if part)
    return value


def _http(value: object) -> object:
    """`ws://` and `wss://`, as other clients of ComfyUI want its address, mean the same server."""
    if isinstance(value, str) and value.startswith(("ws://", "wss://")):
        return "http" + value.removeprefix("ws")
    return value


Words = Annotated[tuple[str, ...], BeforeValidator(_split)]


class Settings(StorageSettings):
    """All settings; a field `log_level` is the environment variable `LOG_LEVEL`."""

    # Sources
    source_key_prefixes: Words = Field(
        ("inputs/", "characters/", "base/outputs/"),
        description="Where a source's `key` may point, comma-separated.",
    )
    source_max_bytes: int = Field(
        25_000_000, ge=1_000, description="Largest picture fetched from a source, in bytes."
    )
    source_timeout_s: float = Field(
        20, gt=0, le=600, description="Whole time for fetching one picture, in seconds."
    )
    source_stall_s: float = Field(
        30,
        gt=0,
        le=600,
        description="Longest silence while a LoRA or an archive is fetched, in seconds.",
    )
    source_min_rate: float = Field(
        200_000,
        gt=0,
        description="Least speed of fetching a LoRA or an archive, in bytes a second.",
    )
    input_max_bytes: int = Field(
        200_000_000,
        ge=1_000,
        description="Largest video, sound or other file that a job brings, in bytes.",
    )
    input_max_s: float = Field(
        600, gt=0, description="Longest video or sound that a job brings, in seconds."
    )
    archive_max_bytes: int = Field(
        1_000_000_000, ge=1_000_000, description="Largest training archive, in bytes."
    )
    lora_max_bytes: int = Field(
        2_000_000_000, ge=1_000_000, description="Largest LoRA file to register, in bytes."
    )
    image_max_pixels: int = Field(
        50_000_000,
        ge=65_536,
        description="Pixels decoded of one picture; of a JPEG scaled while decoding.",
    )

    # The worker
    worker_tasks: Annotated[tuple[_Task, ...], BeforeValidator(_split)] = Field(
        TASKS, min_length=1, description="Tasks this worker serves."
    )
    jobs_in_flight: int = Field(
        4,
        ge=1,
        le=32,
        description="Most jobs in hand at a time; the next is taken as the GPU runs out of work.",
    )
    job_timeout_s: float = Field(
        600,
        ge=1,
        le=86_400,
        description="Default `timeout_s` of an image or video job, from its prompt's start.",
    )
    train_timeout_s: float = Field(
        14_400, ge=60, le=604_800, description="Default `timeout_s` of a training, in seconds."
    )
    workflows_dir: Path = Field(
        Path(__file__).resolve().parent.parent / "workflows",
        description="Folder of workflow folders; drop-ins go here.",
    )
    families_dir: Path = Field(
        Path(__file__).resolve().parent.parent / "families",
        description="Folder of base-model families; drop-ins go here.",
    )
    work_dir: Path = Field(Path("/tmp/worker"), description="Temporary files; emptied as jobs end.")  # noqa: S108 - a container's own
    lora_cache_dir: Path | None = Field(
        None, description="LoRA files on local disk; default `WORK_DIR/loras`."
    )
    lora_cache_bytes: int | None = Field(
        None,
        ge=1_000_000,
        description="Budget of that folder, in bytes; default half of its disk's free space.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least level logged."
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="`auto`: text on a terminal, JSON lines elsewhere."
    )
    local_result_file: Path | None = Field(
        None,
        description="Of a local test, its result as JSON; the SDK's log cuts it short.",
    )
    warmup_workflow: str | None = Field(
        None, description="Workflow run once, small, before jobs are taken."
    )

    output_metadata: Literal["keep", "strip"] = Field(
        "keep", description="Prompt and graph inside delivered files; a job's `metadata` wins."
    )
    likeness: Literal["auto", "off"] = Field(
        "auto", description="`off`: faces are never looked at, and no identity is kept."
    )

    # ComfyUI
    comfyui_dir: Path = Field(Path("/comfyui"), description="ComfyUI's folder, with `main.py`.")
    comfyui_python: str | None = Field(
        None, description="Its Python; default `COMFYUI_DIR/.venv/bin/python`, else ours."
    )
    comfyui_port: int = Field(0, ge=0, le=65_535, description="Its port; 0 takes a free one.")
    comfyui_args: Words = Field((), description="More arguments for its `main.py`.")
    comfyui_start_timeout_s: float = Field(
        300, gt=0, le=3_600, description="Longest wait for it to be ready, in seconds."
    )
    comfyui_url: Annotated[str | None, BeforeValidator(_http)] = Field(
        None,
        pattern=r"^https?://",
        description="Use a ComfyUI that somebody else started; characters need `LORA_CACHE_DIR`.",
    )
    models_dir: Path | None = Field(
        None,
        description="Further models folder (`checkpoints/`, …), such as a network volume's.",
    )

    # Training
    kohya_dir: Path = Field(Path("/opt/sd-scripts"), description="sd-scripts' folder.")
    kohya_python: str | None = Field(
        None, description="Its Python; default `KOHYA_DIR/.venv/bin/python`, else ours."
    )
    kohya_tokenizers: Path = Field(
        Path("/opt/tokenizers"), description="Baked-in CLIP tokenizers for the trainer."
    )
    train_checkpoint: str = Field(
        "sd_xl_base_1.0.safetensors",
        description="Checkpoint trained on; a name in a `checkpoints` folder.",
    )
    tagger_dir: Path | None = Field(
        None, description="Folder of a WD14 tagger (`model.onnx`, `selected_tags.csv`)."
    )

    # Set by RunPod
    runpod_webhook_get_job: str | None = Field(
        None, repr=False, description="Set by RunPod: the job queue; absent in a local test."
    )
    runpod_log_level: Literal["DEBUG", "INFO", "WARN", "ERROR"] = Field(
        "INFO", description="The SDK's own log level; its DEBUG would log results."
    )

    @property
    def on_platform(self) -> bool:
        """Whether RunPod's queue is there; else it is the SDK's local test."""
        return self.runpod_webhook_get_job is not None

    @property
    def concurrency(self) -> int:
        """Jobs taken at a time where `worker.admission` does not fit the SDK; one if it trains.

        runpod 1.12.0 sleeps 1 s after each taking (`JobScaler.get_jobs`), so a worker starts at
        most so many jobs a second; and what one worker has taken, no other can have.
        """
        return 1 if "train" in self.worker_tasks else self.jobs_in_flight

    @property
    def loras_out_of_reach(self) -> bool:
        """Whether the ComfyUI that is used cannot see the LoRA cache."""
        return self.comfyui_url is not None and self.lora_cache_dir is None

    @property
    def loras_folder(self) -> Path:
        """Where LoRA files are cached."""
        return self.lora_cache_dir or self.work_dir / "loras"

    @property
    def linked_models_folder(self) -> Path:
        """Links to the models of a network volume, made by `builder.link_models` before us."""
        return self.work_dir / "models"

    @property
    def model_folders(self) -> tuple[Path, ...]:
        """The models folders, best first: a volume's, that of links, the one baked in."""
        models = (self.models_dir, self.linked_models_folder, self.comfyui_dir / "models")
        return tuple(folder for folder in models if folder is not None)

    @property
    def checkpoint_folders(self) -> tuple[Path, ...]:
        """Where a checkpoint may lie, best first."""
        return tuple(folder / "checkpoints" for folder in self.model_folders)

    @property
    def comfyui_folder(self) -> Path:
        """Inputs, outputs and temporary files of our own ComfyUI."""
        return self.work_dir / "comfyui"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read the settings from `environment`, by default the process's.

        Empty variables count as absent. Names that people have set elsewhere stand in for ours
        (`worker.storage_settings.ALIASES`).

        Raises:
            InvalidSettings: one line per setting that is missing or wrong, values never shown.
        """
        return read_settings(cls, os.environ if environment is None else environment)


def inherited_environment(**changes: str) -> dict[str, str]:
    """The process's environment for a child process, without our secrets, with `changes`."""
    hidden = {"RUNPOD_API_KEY", "RUNPOD_AI_API_KEY", "GATEWAY_API_KEYS", "WEBHOOK_SECRET"}
    for name in ("S3_SECRET_ACCESS_KEY", "S3_ACCESS_KEY_ID"):
        hidden |= {name, *ALIASES[name]}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in hidden and not name.startswith("AWS_")
    }
    return kept | changes


def default_python(folder: Path, chosen: str | None) -> str:
    """The interpreter of a program in its own folder: the chosen one, its `.venv`'s, or ours."""
    own = folder / ".venv" / "bin" / "python"
    return chosen or (str(own) if own.exists() else sys.executable)
