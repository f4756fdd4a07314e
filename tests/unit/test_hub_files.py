"""RunPod's Hub files say what the settings and the contract say."""

import json
import re
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from builder.hub_file import document
from worker.contract import parse_job
from worker.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
HUB = json.loads((ROOT / ".runpod" / "hub.json").read_text("utf-8"))
TESTS = json.loads((ROOT / ".runpod" / "tests.json").read_text("utf-8"))
ENTRIES: dict[str, dict[str, Any]] = {
    entry["key"]: entry["input"] for entry in HUB["config"]["env"]
}


def default_of(field: FieldInfo) -> Any:
    value = field.default
    if value is None or value is PydanticUndefined:
        return ""
    return ",".join(value) if isinstance(value, tuple) else value


def test_hub_file_is_up_to_date() -> None:
    assert document() == HUB, "run python -m builder.hub_file"


def test_hub_offers_every_setting_but_those_of_the_image() -> None:
    missing = {name.upper() for name in Settings.model_fields} - ENTRIES.keys()
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    of_the_image = {name for name in missing if name in dockerfile or name.startswith("RUNPOD_")}
    assert missing - of_the_image == {
        *("WORKFLOWS_DIR", "FAMILIES_DIR", "WORK_DIR", "LORA_CACHE_DIR", "MODELS_DIR"),
        "KOHYA_PYTHON",
        *("COMFYUI_PYTHON", "COMFYUI_URL", "COMFYUI_START_TIMEOUT_S"),
    }


@pytest.mark.parametrize("key", list(ENTRIES))
def test_hub_says_what_the_settings_say(key: str) -> None:
    field, entry = Settings.model_fields[key.lower()], ENTRIES[key]
    assert entry["description"] == field.description
    assert entry["default"] == default_of(field)
    assert entry.get("required", False) == field.is_required()
    number = {int, float} & {field.annotation, *get_args(field.annotation)}
    assert entry["type"] == ("number" if number else "string")


@pytest.mark.parametrize("key", list(ENTRIES))
def test_hub_offers_the_choices_of_a_setting(key: str) -> None:
    annotation = Settings.model_fields[key.lower()].annotation
    choices = list(get_args(annotation)) if "Literal" in str(get_origin(annotation)) else []
    assert [option["value"] for option in ENTRIES[key].get("options", [])] == choices


def test_what_is_required_is_not_hidden() -> None:
    required = {key for key, entry in ENTRIES.items() if entry.get("required")}
    assert required == {"S3_BUCKET", "S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY"}
    assert not any(ENTRIES[key].get("advanced") for key in required)


@pytest.mark.parametrize("test", TESTS["tests"], ids=lambda test: test["name"])
def test_hub_tests_are_jobs_of_the_contract(test: dict[str, Any]) -> None:
    parse_job(test["input"])
    assert test["timeout"] >= 60_000  # milliseconds; a cold start fits


def test_hub_tests_start_a_worker_without_secrets_or_a_bucket() -> None:
    environment = {entry["key"]: entry["value"] for entry in TESTS["config"]["env"]}
    assert "{{" not in json.dumps(environment)
    assert Settings.from_environment(environment).worker_tasks == ("health",)
    assert {test["input"]["task"] for test in TESTS["tests"]} == {"health"}


def test_cuda_versions_are_those_of_the_images_torch() -> None:
    # PyPI's torch of this version is the build for CUDA 13, as the packages it brings say.
    lock = (ROOT / "builder" / "locks" / "torch.txt").read_text("utf-8")
    assert re.search(r"^nvidia-cuda-runtime==13\.0\.", lock, re.MULTILINE)
    for file in (HUB, TESTS):
        assert file["config"]["allowedCudaVersions"] == ["13.0"]


def test_root_has_what_the_hub_asks_for() -> None:
    assert all((ROOT / name).is_file() for name in ("handler.py", "Dockerfile", "README.md"))
    assert {"title", "description", "type", "category", "config"} <= HUB.keys()
