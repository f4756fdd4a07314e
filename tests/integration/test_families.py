"""A base model that no line of Python knows: a folder for the family, a folder for its workflow."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from local.s3 import S3Server
from local.stack import ROOT
from tests.integration.worker_harness import (
    WorkerHarness,
    copied_workflows,
    graph_of,
    picture,
    settings_for,
)
from worker.service import Worker

pytestmark = pytest.mark.process

SMALL = {"task": "image", "prompt": "a lighthouse", "width": 256, "height": 256, "steps": 2}
FAMILY = """
title = "A model of next year"
stated = ['novum']

[licence]
name = "Apache-2.0"
commercial = true

[workflows]
image = "novum_quick"

[[lora.layouts]]
name = "comfyui"
prefix = "diffusion_model."
names = ["native"]
"""
MODULES = {"native": {"novum.{0-3}.qkv": [96, 32]}}


def write_lora(path: Path) -> Path:
    random = np.random.default_rng(1)
    tensors = {}
    for block in range(4):
        name = f"diffusion_model.novum.{block}.qkv"
        tensors[f"{name}.lora_A.weight"] = random.random((4, 32), np.float32)
        tensors[f"{name}.lora_B.weight"] = random.random((96, 4), np.float32)
    save_file(tensors, path)
    return path


def write_workflow(folder: Path, name: str, base_model: str) -> None:
    """SDXL's workflow under another name, for LoRAs of another family."""
    target = folder / name
    target.mkdir()
    (target / "graph.json").write_text((folder / "sdxl" / "graph.json").read_text())
    declared = (folder / "sdxl" / "workflow.toml").read_text()
    declared = declared.replace('base_model = "sdxl"', f'base_model = "{base_model}"')
    (target / "workflow.toml").write_text(declared[: declared.index("[variants]")])


@pytest.fixture(scope="module")
def novum(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerHarness]:
    """A worker with the family and two workflows dropped in."""
    folder = tmp_path_factory.mktemp("novum")
    workflows = copied_workflows(folder)
    write_workflow(workflows, "another", "novum")
    write_workflow(workflows, "novum_quick", "novum")
    families = folder / "families"
    for shipped in ("sdxl", "flux1"):
        target = families / shipped
        target.parent.mkdir(exist_ok=True)
        target.symlink_to(ROOT / "families" / shipped)
    (families / "novum").mkdir()
    (families / "novum" / "family.toml").write_text(FAMILY)
    (families / "novum" / "modules.json").write_text(json.dumps(MODULES))
    settings = settings_for(s3, folder, WORKFLOWS_DIR=str(workflows), FAMILIES_DIR=str(families))
    with Worker(settings) as worker:
        worker.wait_ready()
        yield WorkerHarness(worker, folder)


def registered(harness: WorkerHarness, character_id: str) -> dict[str, Any]:
    path = write_lora(harness.folder / "novum.safetensors")
    key = f"inputs/{character_id}/novum.safetensors"
    harness.put(key, path.read_bytes(), "application/octet-stream")
    return harness.run(
        {
            "task": "characters",
            "action": "register",
            "character_id": character_id,
            "source": {"key": key},
            "trigger": "nvm",
        }
    )


def test_a_new_family_is_recognised_served_and_shown(novum: WorkerHarness) -> None:
    result = registered(novum, "ada")
    assert result["character"]["base_model"] == "novum"
    assert result["warnings"] == []
    picture_of = novum.run(SMALL | {"character_id": "ada"})
    assert picture_of["workflow"]["name"] == "novum_quick"
    assert picture_of["prompt"] == "nvm, a lighthouse"
    shown = novum.run({"task": "health"})["families"]["novum"]
    assert (shown["ok"], shown["commercial"], shown["licence"]) == (True, True, "Apache-2.0")
    assert shown["workflows"] == ["another", "novum_quick"]


def test_one_character_has_a_version_for_each_family_and_the_workflow_picks(
    novum: WorkerHarness,
) -> None:
    sdxl = novum.register("mia", trigger="sdx")
    registered(novum, "mia")
    latest = novum.run(SMALL | {"character_id": "mia"})
    assert (latest["workflow"]["name"], latest["prompt"]) == ("novum_quick", "nvm, a lighthouse")
    older = novum.run(SMALL | {"character_id": "mia", "workflow": "sdxl"})
    assert (older["character"]["version"], older["prompt"]) == (sdxl, "sdx, a lighthouse")
    weights = novum.resources.registry.resolve("mia", base_model="sdxl").sha256
    graph = graph_of(picture(older["outputs"][0]["url"]))
    assert graph["lora_1"]["inputs"]["lora_name"] == f"{weights}.safetensors"
    pinned = novum.run(SMALL | {"character_id": "mia", "version": sdxl})
    assert pinned["workflow"]["name"] == "sdxl"


def test_two_characters_run_on_a_base_model_that_both_have(novum: WorkerHarness) -> None:
    novum.register("eva", trigger="evx")
    registered(novum, "eva")
    novum.register("ben", trigger="bnx")
    both = [{"character_id": "eva"}, {"character_id": "ben"}]
    result = novum.run(SMALL | {"characters": both})
    assert result["workflow"]["name"] == "sdxl"
    assert result["prompt"] == "evx, bnx, a lighthouse"


def test_a_character_without_a_workflow_for_its_family_is_refused(novum: WorkerHarness) -> None:
    registered(novum, "ida")
    before = novum.prompts_run()
    refused = novum.run({"task": "video", "prompt": "a walk", "character_id": "ida"})
    assert (refused["code"], refused["field"]) == ("invalid_input", "character_id")
    assert "no video workflow" in refused["error"]
    assert refused["details"] == {"base_models": ["novum"]}
    other = novum.run(SMALL | {"character_id": "ida", "workflow": "sdxl"})
    assert (other["code"], other["field"]) == ("invalid_input", "character_id")
    assert novum.prompts_run() == before
