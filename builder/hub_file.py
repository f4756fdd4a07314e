"""Writes `.runpod/hub.json` from the settings: `python -m builder.hub_file`.

RunPod's Hub shows its `env` as a form. What the image or the platform sets is not in it.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from worker.settings import Settings

PLACE: Final = Path(__file__).resolve().parent.parent / ".runpod" / "hub.json"
CUDA_VERSIONS: Final = ("13.0",)  # what torch of the Dockerfile's index runs with
_OF_THE_IMAGE: Final = frozenset(
    [
        "workflows_dir",
        "families_dir",
        "work_dir",
        "lora_cache_dir",
        "worker_tasks",
        "models_dir",
        "comfyui_dir",
        "comfyui_python",
        "comfyui_port",
        "comfyui_url",
        "comfyui_start_timeout_s",
        "kohya_dir",
        "kohya_python",
        "kohya_tokenizers",
        "tagger_dir",
    ]
)
_FIRST: Final = frozenset(
    [
        "storage_provider",
        "s3_endpoint_url",
        "s3_bucket",
        "s3_region",
        "s3_access_key_id",
        "s3_secret_access_key",
        "supabase_project_ref",
    ]
)
_SPELT: Final = {"s3": "S3", "url": "URL", "lora": "LoRA", "comfyui": "ComfyUI", "s": "(seconds)"}
_PRESETS: Final = {
    "AWS S3": {"STORAGE_PROVIDER": "s3", "S3_REGION": "us-east-1"},
    "Cloudflare R2": {"STORAGE_PROVIDER": "s3", "S3_REGION": "auto"},
    "Supabase": {"STORAGE_PROVIDER": "supabase"},
}


def document() -> dict[str, Any]:
    """The whole file."""
    fields = {name: field for name, field in Settings.model_fields.items() if is_offered(name)}
    return {
        "title": "Characters",
        "description": "Train a character from photos, then make pictures and videos of it: "
        "ComfyUI, SDXL and SVD, with your own bucket as the registry.",
        "type": "serverless",
        "category": "image",
        "config": {
            "runsOn": "GPU",
            "containerDiskInGb": 40,
            "gpuIds": "ADA_24,AMPERE_24",
            "gpuCount": 1,
            "allowedCudaVersions": list(CUDA_VERSIONS),
            "env": [
                {"key": name.upper(), "input": _input(name, field)}
                for name, field in fields.items()
            ],
            "presets": [
                {"name": name, "defaults": defaults} for name, defaults in _PRESETS.items()
            ],
        },
    }


def is_offered(name: str) -> bool:
    """Whether a setting is a person's to make."""
    return name not in _OF_THE_IMAGE and not name.startswith("runpod_")


def _input(name: str, field: FieldInfo) -> dict[str, Any]:
    default = _default(field)
    entry: dict[str, Any] = {
        "name": _title(name),
        "type": "number"
        if {int, float} & {field.annotation, *get_args(field.annotation)}
        else "string",
        "description": field.description,
        "default": default,
    }
    if field.is_required():
        entry["required"] = True
    if get_origin(field.annotation) is Literal:
        entry["options"] = [{"label": word, "value": word} for word in get_args(field.annotation)]
    if name not in _FIRST:
        entry["advanced"] = True
    return entry


def _default(field: FieldInfo) -> str | int | float:
    if field.is_required() or field.default is None:
        return ""
    if isinstance(field.default, tuple):
        return ",".join(field.default)
    return field.default if isinstance(field.default, int | float) else str(field.default)


def _title(name: str) -> str:
    title = " ".join(_SPELT.get(word, word) for word in name.split("_"))
    return title[0].upper() + title[1:]


def main() -> int:
    """Write the file."""
    PLACE.write_text(json.dumps(document(), indent=2, ensure_ascii=False) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
