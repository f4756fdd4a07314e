import copy
import json
from pathlib import Path
from typing import Any

import pytest

from workflows.binding import LoraUse, Values, bind
from workflows.checking import check, check_graph, class_types, unchecked
from workflows.library import load, load_library
from workflows.nodespecs import declared, fits
from workflows.soundness import faults
from workflows.template import Value, Workflow

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
    inputs = {"a": [["a", "b"], {}], "b": ["COMBO", {"options": ["a"]}], "c": ["INT", {"min": 0}]}
    known = declared({"input": {"required": inputs}}, {})
    assert [known[name].choices for name in "abc"] == [["a", "b"], ["a"], None]


@pytest.mark.parametrize(
    ("received", "wanted", "verdict"),
    [
        ("IMAGE", "IMAGE", True),
        ("IMAGE", "MASK", False),
        ("*", "IMAGE", True),
        ("IMAGE", "LATENT,*", True),
        ("IMAGE,MASK", "MASK,LATENT", True),
        ("INT, FLOAT", "FLOAT", True),
        ("COMFY_MATCHTYPE_V3", "IMAGE", True),
        ("IMAGE", "COMFY_MATCHTYPE_V3", True),
        (["a"], "COMBO", True),
        (["a"], ["a"], True),
        (["a"], ["b"], False),
        ("COMBO", ["a"], False),
    ],
)
def test_types_fit_as_comfyui_says(received: Any, wanted: Any, verdict: bool) -> None:  # noqa: FBT001 - a case
    assert fits(received, wanted) is verdict


IMAGE = ["IMAGE", {}]
GROWING: dict[str, Any] = {
    "output": ["IMAGE"],
    "python_module": "comfy_extras.nodes_x",
    "input": {
        "required": {
            "images": [
                "COMFY_AUTOGROW_V3",
                {
                    "template": {
                        "input": {"required": {"image": IMAGE}},
                        "prefix": "image",
                        "min": 2,
                        "max": 9,
                    }
                },
            ],
            "mode": [
                "COMFY_DYNAMICCOMBO_V3",
                {
                    "options": [
                        {
                            "key": "scale",
                            "inputs": {"required": {"by": ["FLOAT", {"min": 0, "max": 8}]}},
                        },
                        {"key": "none", "inputs": {}},
                    ]
                },
            ],
        }
    },
}


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"images.image0": ["1", 0], "images.image1": ["1", 0], "mode": "none"}, ""),
        ({"images.image0": ["1", 0], "mode": "none"}, "lacks the required input 'images.image1'"),
        ({"images.image0": ["1", 0], "images.image1": ["1", 1]}, "wants IMAGE, gets MASK"),
        ({"images.image0": ["1", 0], "images.image1": ["1", 0], "mode": "scale"}, "'mode.by'"),
        (
            {"images.image0": ["1", 0], "images.image1": ["1", 0], "mode": "scale", "mode.by": 9},
            "mode.by is 9; allowed is 0 to 8",
        ),
    ],
)
def test_inputs_that_grow_and_choices_that_bring_inputs(
    specs: dict[str, Any], inputs: dict[str, Any], words: str
) -> None:
    specs |= {"Growing": GROWING}
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
        "2": {"class_type": "Growing", "inputs": inputs},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
    }
    told = "; ".join(found.text for found in check_graph(graph, specs, ["3"]))
    assert words in told if words else not told


def sdxl(**nodes: dict[str, Any]) -> Workflow:
    graph = copy.deepcopy(dict(LIBRARY["sdxl"].graph))
    for node, inputs in nodes.items():
        graph[node[1:]] = {**graph[node[1:]], "inputs": {**graph[node[1:]]["inputs"], **inputs}}
    return LIBRARY["sdxl"].model_copy(update={"graph": graph})


def test_only_what_is_sent_counts(specs: dict[str, Any]) -> None:
    """A leftover of a package that is not there, and a literal that a param always replaces."""
    graph = copy.deepcopy(dict(LIBRARY["sdxl"].graph))
    graph["99"] = {"class_type": "Image Comparer (rgthree)", "inputs": {"image_a": ["8", 0]}}
    graph["4"] = {**graph["4"], "inputs": {"ckpt_name": "authors_own.safetensors"}}
    param = {"type": "string", "bind": "4.ckpt_name", "default": "sd_xl_base_1.0.safetensors"}
    fields = LIBRARY["sdxl"].model_dump() | {"graph": graph}
    assert (
        problems(specs, Workflow.model_validate(fields | {"params": {"checkpoint": param}})) == []
    )
    param["default"] = "gone.safetensors"
    changed = Workflow.model_validate(fields | {"params": {"checkpoint": param}})
    assert problems(specs, changed) == [("model_missing", "gone.safetensors")]


def test_a_node_that_is_not_comfyuis_own_is_left_to_comfyui(specs: dict[str, Any]) -> None:
    specs["VAEDecode"]["output"] = ["LATENT"]
    specs["SaveImage"]["python_module"] = "custom_nodes.mine"
    assert check(LIBRARY["sdxl"], specs) == ()
    assert [found.subject for found in unchecked(LIBRARY["sdxl"], specs)] == ["9"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n3": {"steps": 0}}, "steps is 0; allowed is 1 to 10000"),
        ({"n3": {"steps": "many"}}, "steps is 'many'; INT is wanted"),
        ({"n3": {"latent_image": ["5"]}}, "is a list, and not a link"),
        ({"n3": {"latent_image": ["55", 0]}}, "links to node '55', not there"),
        ({"n3": {"latent_image": ["5", 4]}}, "an output that is not there"),
        ({"n3": {"latent_image": ["3", 0]}}, "is fed by itself"),
    ],
)
def test_what_comfyui_is_certain_to_refuse_is_found(
    specs: dict[str, Any], change: dict[str, dict[str, Any]], words: str
) -> None:
    assert words in "; ".join(found.text for found in check(sdxl(**change), specs))


def test_what_only_an_unknown_input_links_to_is_nobodys_business(specs: dict[str, Any]) -> None:
    assert check(sdxl(n3={"extra": ["5", 9]}), specs) == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"roles": {"seed": "3.model"}}, "[roles]: seed: 3.model takes MODEL"),
        ({"roles": {"prompt": "3.steps"}}, "[roles]: prompt: 3.steps takes INT"),
        ({"loras": ({"model": "4.2"},)}, "[loras]: 4.2 gives VAE, and a MODEL is wanted"),
        ({"loras": ({"model": "4.7"},)}, "[loras]: 4.7 gives nothing, and a MODEL is wanted"),
    ],
)
def test_a_declaration_that_does_not_fit_its_node_is_found(
    specs: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    changed = Workflow.model_validate(LIBRARY["sdxl"].model_dump() | changes)
    assert words in "; ".join(found.text for found in check(changed, specs))


def test_an_input_of_a_kind_that_its_loader_does_not_read_is_found(specs: dict[str, Any]) -> None:
    declared_so = {"init_image": {"bind": "10.image", "kind": "audio"}}
    changed = LIBRARY["sdxl_img2img"].model_dump() | {"inputs": declared_so}
    told = "; ".join(found.text for found in check(Workflow.model_validate(changed), specs))
    assert "[inputs.init_image]: kind is audio; 10.image takes files of kind image" in told


def test_a_file_that_nobody_brings_is_found_with_the_remedy(specs: dict[str, Any]) -> None:
    changed = LIBRARY["sdxl_img2img"].model_dump() | {"inputs": {}}
    told = "; ".join(found.text for found in check(Workflow.model_validate(changed), specs))
    assert "put it into the workflow's files/, or let jobs bring it by [inputs.NAME]" in told


DROP_INS = ROOT / "docs" / "drop-ins"
# Of ComfyUI 0.33.0's `/object_info`; tests/conformance/test_drop_ins.py writes and checks it.
DROP_IN_SPECS: dict[str, Any] = json.loads(
    (Path(__file__).parent / "drop_in_node_specs.json").read_text()
)


@pytest.mark.parametrize("name", sorted(path.name for path in DROP_INS.iterdir()))
def test_a_model_of_another_family_plugs_in_without_code(name: str) -> None:
    assert check(load(DROP_INS / name), DROP_IN_SPECS) == ()


def test_a_clip_of_another_family_carries_its_character() -> None:
    values = Values(
        prefix="run/video",
        roles={"image": "start.png", "prompt": "she turns", "frames": 49, "fps": 24.0},
        params={"shift": 5.0},
        loras=(LoraUse("mira.safetensors", 0.8),),
        output_format="mp4",
    )
    graph = bind(load(DROP_INS / "wan22_ti2v"), values).graph
    assert graph["4"]["inputs"]["model"] == ["lora_1", 0]
    assert graph["lora_1"]["class_type"] == "LoraLoaderModelOnly"
    assert graph["8"]["inputs"]["length"] == 49


def test_both_models_of_a_clip_carry_its_characters() -> None:
    roles: dict[str, Value | None] = {"image": "start.png", "prompt": "she turns"}
    loras = (LoraUse("mira.safetensors", 0.8), LoraUse("ben.safetensors", 0.5))
    values = Values("run/video", roles, loras=loras, output_format="mp4")
    graph = bind(load(DROP_INS / "wan22_i2v_14b"), values).graph
    for sampling, loader in (("5", "1"), ("6", "2")):
        chain, node = [], graph[sampling]["inputs"]["model"][0]
        while node != loader:
            chain.append(graph[node]["inputs"]["lora_name"])
            node = graph[node]["inputs"]["model"][0]
        assert chain == ["ben.safetensors", "mira.safetensors"]


@pytest.mark.parametrize("given", range(5))
def test_references_that_are_not_given_leave_nothing_behind(given: int) -> None:
    workflow = load(DROP_INS / "flux2_klein_4b")
    roles: dict[str, Value | None] = {"prompt": "she reads"}
    roles |= dict.fromkeys(workflow.references[:given], "photo.png")
    graph = bind(workflow, Values("run/image", roles)).graph
    kinds = [node["class_type"] for node in graph.values()]
    assert (kinds.count("LoadImage"), kinds.count("VAEEncode")) == (given, given)
    encoded = [node for node in graph.values() if "latent" in node["inputs"]]
    assert len(encoded) == given
    assert all(
        link[0] in graph
        for node in graph.values()
        for link in node["inputs"].values()
        if isinstance(link, list)
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"references": ["photo_9"]}, "references names 'photo_9', which is no picture input"),
        ({"references": ["prompt"]}, "references names 'prompt', which is no picture input"),
        ({"nodes": ["99"]}, "[inputs.reference_1]: nodes: "),
        ({"required": True}, "[inputs.reference_1]: nodes: is for an input with required = false"),
    ],
)
def test_references_that_cannot_be_are_found(changes: dict[str, Any], words: str) -> None:
    told = load(DROP_INS / "flux2_klein_4b").model_dump()
    for key in changes.keys() & {"nodes", "required"}:
        told["inputs"]["reference_1"][key] = changes[key]
    told |= {key: value for key, value in changes.items() if key == "references"}
    assert words in "; ".join(faults(Workflow.model_validate(told)))
