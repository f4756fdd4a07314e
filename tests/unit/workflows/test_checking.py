import copy
import json
from pathlib import Path
from typing import Any

import pytest

from workflows.binding import LoraUse, Values, bind
from workflows.checking import check, class_types, combo_choices
from workflows.library import load, load_library
from workflows.template import Workflow

ROOT = Path(__file__).resolve().parents[3]
LIBRARY = load_library(ROOT / "workflows")


@pytest.fixture
def specs() -> dict[str, Any]:
    """Node specs of ComfyUI 0.33.0, with the models that our workflows name."""
    nodes: dict[str, Any] = json.loads((ROOT / "local/comfyui/object_info.json").read_text())
    specs: dict[str, Any] = copy.deepcopy(nodes.get("nodes", nodes))
    for loader in ("CheckpointLoaderSimple", "ImageOnlyCheckpointLoader"):
        specs[loader]["input"]["required"]["ckpt_name"][0] = [
            "sd_xl_base_1.0.safetensors",
            "svd_xt.safetensors",
        ]
    return specs


@pytest.mark.parametrize("name", sorted(LIBRARY))
def test_every_template_fits_the_pinned_comfyui(name: str, specs: dict[str, Any]) -> None:
    wanted = {key: specs[key] for key in class_types(LIBRARY[name]) if key in specs}
    assert check(LIBRARY[name], wanted) == ()


def problems(specs: dict[str, Any], workflow: Workflow = LIBRARY["sdxl"]) -> list[tuple[str, str]]:
    return [(problem.kind, problem.subject) for problem in check(workflow, specs)]


def test_a_missing_model_is_named(specs: dict[str, Any]) -> None:
    specs["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0] = ["other.safetensors"]
    assert problems(specs) == [("model_missing", "sd_xl_base_1.0.safetensors")]


def test_a_missing_node_class_is_named(specs: dict[str, Any]) -> None:
    del specs["KSampler"]
    assert ("node_missing", "KSampler") in problems(specs)


def test_the_lora_loader_counts_among_the_nodes(specs: dict[str, Any]) -> None:
    del specs["LoraLoader"]
    assert ("node_missing", "LoraLoader") in problems(specs)


def test_a_new_required_input_is_found(specs: dict[str, Any]) -> None:
    specs["VAEDecode"]["input"]["required"]["mode"] = ["STRING", {}]
    assert ("mismatch", "8") in problems(specs)


def test_a_link_of_the_wrong_type_is_found(specs: dict[str, Any]) -> None:
    specs["VAEDecode"]["output"] = ["LATENT"]
    assert ("mismatch", "9") in problems(specs)


def test_a_choice_that_is_gone_is_found_unless_jobs_set_it(specs: dict[str, Any]) -> None:
    graph = copy.deepcopy(dict(LIBRARY["sdxl"].graph))
    graph["3"] = {**graph["3"], "inputs": {**graph["3"]["inputs"], "sampler_name": "gone"}}
    roles = {name: slots for name, slots in LIBRARY["sdxl"].roles.items() if name != "sampler"}
    changed = LIBRARY["sdxl"].model_copy(update={"graph": graph, "roles": roles})
    assert ("mismatch", "gone") in problems(specs, changed)


def test_an_output_that_saves_nothing_is_found(specs: dict[str, Any]) -> None:
    specs["SaveImage"]["output_node"] = False
    assert ("mismatch", "9") in problems(specs)


def test_both_forms_of_a_combo_are_read() -> None:
    assert combo_choices([["a", "b"], {}]) == ["a", "b"]
    assert combo_choices(["COMBO", {"options": ["a"]}]) == ["a"]
    assert combo_choices(["INT", {"min": 0}]) is None


def test_a_video_model_of_another_family_plugs_in_without_code() -> None:
    """The documented drop-in, against the node specs of ComfyUI 0.33.0 (`/object_info`)."""
    specs = json.loads((Path(__file__).parent / "wan22_node_specs.json").read_text())
    workflow = load(ROOT / "docs" / "drop-ins" / "wan22_ti2v")
    assert class_types(workflow) == set(specs)
    assert check(workflow, specs) == ()
    values = Values(
        prefix="run/video",
        roles={"image": "start.png", "prompt": "she turns", "frames": 49, "fps": 24.0},
        params={"shift": 5.0},
        loras=(LoraUse("mira.safetensors", 0.8),),
        output_format="mp4",
    )
    graph = bind(workflow, values).graph
    assert graph["4"]["inputs"]["model"] == ["lora_1", 0]
    assert graph["lora_1"]["class_type"] == "LoraLoaderModelOnly"
    assert graph["8"]["inputs"]["length"] == 49
