"""The drop-ins of docs/ in the real ComfyUI: placeholder files for models, every graph accepted."""

import json
import os
from collections.abc import Iterator
from typing import Any, Final

import pytest
from PIL import Image

from tests.conformance.servers import REAL_FOLDER, ROOT, Server, running
from tests.loras import FAMILIES
from tests.specs import small_spec
from worker.training.comfyui import ComfyUIPlaces, training_graph
from workflows.binding import LoraUse, Values, bind
from workflows.checking import check, class_types
from workflows.library import load
from workflows.template import Value, Workflow

DROP_INS: Final = ROOT / "docs" / "drop-ins"
SPECS: Final = ROOT / "tests" / "unit" / "workflows" / "drop_in_node_specs.json"
LORA: Final = "mira.safetensors"
_SHELVES: Final = {
    "UNETLoader": ("unet_name", "diffusion_models"),
    "CLIPLoader": ("clip_name", "text_encoders"),
    "VAELoader": ("vae_name", "vae"),
    "CheckpointLoaderSimple": ("ckpt_name", "checkpoints"),
    "ControlNetLoader": ("control_net_name", "controlnet"),
    "UpscaleModelLoader": ("model_name", "upscale_models"),
}

pytestmark = pytest.mark.skipif(not REAL_FOLDER, reason="COMFYUI_DIR names no real ComfyUI")


def drop_ins() -> list[Workflow]:
    return [load(folder) for folder in sorted(DROP_INS.iterdir())]


@pytest.fixture(scope="module", name="comfyui")
def _comfyui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real server that sees an empty file for each model that a drop-in names."""
    folder = tmp_path_factory.mktemp("drop-ins")
    loading = [*(workflow.graph for workflow in drop_ins()), *training_graphs().values()]
    for graph in loading:
        for node in graph.values():
            if node["class_type"] in _SHELVES:
                name, shelf = _SHELVES[node["class_type"]]
                path = folder / "models" / shelf / node["inputs"][name]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    config = folder / "models.yaml"
    shelves = "".join(f"  {shelf}: {shelf}\n" for _, shelf in _SHELVES.values())
    config.write_text(f"placeholders:\n  base_path: {folder / 'models'}\n{shelves}")
    with running("real", folder, ["--extra-model-paths-config", str(config)]) as server:
        (server.loras / LORA).touch()
        Image.new("RGB", (64, 64), "green").save(server.input / "photo.png")
        yield server


def training_graphs() -> dict[str, dict[str, dict[str, Any]]]:
    """How ComfyUI trains each family whose recipe loads its parts from files of their own."""
    graphs = {}
    for name, family in FAMILIES.items():
        recipe = family.training
        if recipe is not None and recipe.comfyui is not None and recipe.checkpoint:
            checkpoint = recipe.checkpoint.partition("/")[2]
            places = ComfyUIPlaces(checkpoint, None, None, "0", recipe.comfyui)
            graphs[name] = training_graph(small_spec(), places, "photos", "lora/x")
    return graphs


def node_specs(server: Server, workflow: Workflow) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in class_types(workflow):
        found |= server.get(f"/object_info/{name}").json()
    return found


def graphs(workflow: Workflow) -> Iterator[dict[str, dict[str, Any]]]:
    """What jobs send: with every picture that the workflow takes, and with those it must have."""
    least = {name for name in workflow.inputs if workflow.is_required(name)}
    loras = (LoraUse(LORA, 0.8), LoraUse(LORA, 0.5))
    for given in (least, {*workflow.inputs}):
        roles: dict[str, Value | None] = dict.fromkeys(given, "photo.png")
        roles |= {
            name: value
            for name, value in (("prompt", "a lighthouse"), ("seed", 1), ("steps", 4))
            if name in workflow.roles
        }
        for each in workflow.formats or (None,):
            chained = loras if workflow.loras else ()
            values = Values("drop-in/test", roles, loras=chained, output_format=each)
            yield bind(workflow, values).graph


@pytest.mark.parametrize("workflow", drop_ins(), ids=lambda each: each.name)
def test_the_real_comfyui_accepts_a_drop_in(comfyui: Server, workflow: Workflow) -> None:
    assert check(workflow, node_specs(comfyui, workflow)) == ()
    for graph in graphs(workflow):
        reply = comfyui.post("/prompt", {"prompt": graph})
        assert reply.status_code == 200, reply.text
        assert reply.json()["node_errors"] == {}
    comfyui.post("/queue", {"clear": True})


@pytest.mark.parametrize("name", sorted(training_graphs()))
def test_the_real_comfyui_accepts_a_familys_training(comfyui: Server, name: str) -> None:
    (comfyui.input / "photos").mkdir(exist_ok=True)
    Image.new("RGB", (64, 64), "green").save(comfyui.input / "photos" / "0.png")
    reply = comfyui.post("/prompt", {"prompt": training_graphs()[name]})
    assert reply.status_code == 200, reply.text
    assert reply.json()["node_errors"] == {}
    comfyui.post("/queue", {"clear": True})


def test_the_specs_that_unit_tests_use_are_the_real_ones(comfyui: Server) -> None:
    """NODE_SPECS=write writes them anew, after a change of ComfyUI's version or of a drop-in."""
    real: dict[str, Any] = {}
    for workflow in drop_ins():
        real |= node_specs(comfyui, workflow)
    kept = {
        name: {key: spec[key] for key in ("input", "output", "output_node", "python_module")}
        for name, spec in sorted(real.items())
    }
    for spec in kept.values():
        _without_this_machines_files(spec["input"])
    if os.environ.get("NODE_SPECS") == "write":
        SPECS.write_text(json.dumps(kept, indent=1) + "\n")
    assert json.loads(SPECS.read_text()) == kept


def _without_this_machines_files(inputs: dict[str, dict[str, Any]]) -> None:
    """Of a real server's lists of files only the placeholders are kept."""
    named = {"image": ["photo.png"], "lora_name": [LORA]}
    for declared in inputs.values():
        for name in named.keys() & declared.keys():
            if isinstance(declared[name][0], list):
                declared[name][0] = named[name]
