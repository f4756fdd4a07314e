"""Settings translated into the options of each part. Pure, but for looking which programs exist."""

from typing import Final

from worker.comfyui.engine import Engine, ExternalComfyUI
from worker.comfyui.process import ComfyUIOptions, ComfyUIProcess
from worker.settings import Settings, default_python, inherited_environment
from worker.sources import SourceOptions

# ComfyUI's own extras that a worker does not need; leaving them out saves 2 s of its start.
_ALWAYS = ("--disable-auto-launch", "--disable-api-nodes", "--database-url", "sqlite:///:memory:")
_MODEL_KINDS: Final = (
    *("checkpoints", "vae", "loras", "clip", "clip_vision", "controlnet", "unet"),
    *("diffusion_models", "text_encoders", "upscale_models", "embeddings"),
)


def engine_of(settings: Settings) -> Engine:
    """Our own ComfyUI, or the one that `COMFYUI_URL` names."""
    if settings.comfyui_url:
        return ExternalComfyUI(
            settings.comfyui_url, start_timeout_s=settings.comfyui_start_timeout_s
        )
    return ComfyUIProcess(comfyui_options(settings))


def comfyui_options(settings: Settings) -> ComfyUIOptions:
    """How our own ComfyUI is started: in folders of ours, with the LoRA cache among its models."""
    folders = [settings.models_dir] if settings.models_dir else []
    models = {kind: tuple(folder / kind for folder in folders) for kind in _MODEL_KINDS}
    models["loras"] = (settings.loras_folder, *models["loras"])
    return ComfyUIOptions(
        directory=settings.comfyui_dir,
        output_directory=settings.comfyui_folder / "output",
        input_directory=settings.comfyui_folder / "input",
        temp_directory=settings.comfyui_folder,
        python=default_python(settings.comfyui_dir, settings.comfyui_python),
        port=settings.comfyui_port,
        extra_args=(*_ALWAYS, *settings.comfyui_args),
        models={kind: paths for kind, paths in models.items() if paths},
        environment=inherited_environment(),
        start_timeout_s=settings.comfyui_start_timeout_s,
    )


def source_options(settings: Settings) -> SourceOptions:
    """How far sources are trusted."""
    return SourceOptions(
        key_prefixes=settings.source_key_prefixes,
        max_bytes=settings.source_max_bytes,
        timeout_s=settings.source_timeout_s,
    )
