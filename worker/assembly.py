"""Settings translated into the options of each part. Pure, but for looking which programs exist."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from worker.comfyui.engine import Engine, ExternalComfyUI
from worker.comfyui.options import start_arguments
from worker.comfyui.process import ComfyUIOptions, ComfyUIProcess
from worker.settings import Settings, default_python, inherited_environment
from worker.sources import SourceOptions

_LEAST_BUDGET: Final = 1_000_000
# ComfyUI 0.33's own, in `folder_paths.py`; custom nodes have further ones.
_MODEL_KINDS: Final = (
    *("checkpoints", "vae", "loras", "clip", "clip_vision", "controlnet", "unet"),
    *("diffusion_models", "text_encoders", "upscale_models", "embeddings", "configs"),
    *("style_models", "diffusers", "vae_approx", "t2i_adapter", "gligen", "hypernetworks"),
    *("latent_upscale_models", "photomaker", "classifiers", "model_patches", "audio_encoders"),
    *("background_removal", "frame_interpolation", "geometry_estimation", "optical_flow"),
    *("detection",),
)
_LEGACY: Final = {"t2i_adapter": "controlnet"}  # folders that ComfyUI reads as another kind's


def engine_of(settings: Settings) -> Engine:
    """Our own ComfyUI, or the one that `COMFYUI_URL` names."""
    if settings.comfyui_url:
        return ExternalComfyUI(
            settings.comfyui_url, start_timeout_s=settings.comfyui_start_timeout_s
        )
    return ComfyUIProcess(comfyui_options(settings))


def comfyui_options(settings: Settings) -> ComfyUIOptions:
    """How our own ComfyUI is started: in folders of ours, with the LoRA cache among its models."""
    folders = [settings.linked_models_folder]
    if settings.models_dir:
        folders.append(settings.models_dir)
    models = model_folders(folders)
    models["loras"] = (settings.loras_folder, *models["loras"])
    return ComfyUIOptions(
        directory=settings.comfyui_dir,
        output_directory=settings.comfyui_folder / "output",
        input_directory=settings.comfyui_folder / "input",
        temp_directory=settings.comfyui_folder,
        python=default_python(settings.comfyui_dir, settings.comfyui_python),
        port=settings.comfyui_port,
        user_directory=settings.comfyui_folder / "user",
        extra_args=(*start_arguments(settings.comfyui_dir), *settings.comfyui_args),
        models=models,
        environment=inherited_environment(),
        start_timeout_s=settings.comfyui_start_timeout_s,
    )


def model_folders(folders: Sequence[Path]) -> dict[str, tuple[Path, ...]]:
    """Where ComfyUI looks for each kind of model below these folders.

    The kinds that it knows itself, whether their folders are there yet or not, and whatever other
    folder is there: custom nodes name theirs as they like (`ultralytics`, `ipadapter`).
    """
    found = (entry.name for folder in folders if folder.is_dir() for entry in folder.iterdir())
    others = sorted(name for name in set(found) if any((top / name).is_dir() for top in folders))
    models: dict[str, tuple[Path, ...]] = {}
    for name in dict.fromkeys((*_MODEL_KINDS, *others)):
        if not name.startswith("."):
            kind = _LEGACY.get(name, name)
            models[kind] = (*models.get(kind, ()), *(folder / name for folder in folders))
    return models


def lora_budget(settings: Settings) -> int:
    """`LORA_CACHE_BYTES`, or half of what the disk can give: what is free and what is cached.

    The SDK ends a worker that finds less than a tenth of `/` free at its start, so a cache that
    may fill the disk is a worker that never comes up again.
    """
    if settings.lora_cache_bytes is not None:
        return settings.lora_cache_bytes
    folder = settings.loras_folder
    folder.mkdir(parents=True, exist_ok=True)
    cached = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return max((shutil.disk_usage(folder).free + cached) // 2, _LEAST_BUDGET)


def source_options(settings: Settings) -> SourceOptions:
    """How far sources are trusted."""
    return SourceOptions(
        key_prefixes=settings.source_key_prefixes,
        max_bytes=settings.source_max_bytes,
        timeout_s=settings.source_timeout_s,
        stall_s=settings.source_stall_s,
        min_rate=settings.source_min_rate,
    )
