"""Every family's recipe: arguments that its script knows, loaders that ComfyUI has."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from families.errors import FamilyInvalid
from families.library import load_families
from families.training import Training
from local.kohya.parser import options_of, parser
from tests.loras import FAMILIES
from tests.specs import small_spec
from tests.unit.families.test_library import TOML, folder
from worker.contract import TrainJob, parse_job
from worker.training.comfyui import ComfyUIPlaces, training_graph
from worker.training.defaults import FROM_RECIPE, Circumstances, chosen, plan
from worker.training.kohya_command import KohyaOptions, command
from workflows.checking import check_graph

ROOT = Path(__file__).resolve().parents[3]
RECIPES: dict[str, Training] = {
    name: family.training for name, family in FAMILIES.items() if family.training
}
BY_KOHYA = sorted(name for name, recipe in RECIPES.items() if recipe.kohya)
BY_COMFYUI = sorted(name for name, recipe in RECIPES.items() if recipe.comfyui)

LOADERS = """[training.comfyui]
model = "a.0"
clip = "a.1"
vae = "a.2"
[training.comfyui.nodes.a]
class_type = "CheckpointLoaderSimple"
inputs = { ckpt_name = "{checkpoint}" }"""
TIER = """[[training.tiers]]
memory_gb = 8
resolution = 512
batch_size = 1
gradient_checkpointing = true"""


def node_specs() -> dict[str, Any]:
    stand_in = json.loads((ROOT / "local/comfyui/object_info.json").read_text())
    drop_ins: dict[str, Any] = json.loads(
        (ROOT / "tests/unit/workflows/drop_in_node_specs.json").read_text()
    )
    return {**stand_in.get("nodes", stand_in), **drop_ins}


@pytest.mark.parametrize("name", BY_KOHYA)
def test_a_script_knows_every_argument_of_its_family(name: str, tmp_path: Path) -> None:
    recipe = RECIPES[name].kohya
    assert recipe is not None
    models = {option: tmp_path / path for option, path in recipe.models.items()}
    options = KohyaOptions(Path("/k"), "python", tmp_path / "m", Path("/t"), recipe, models)
    argv = command(options, small_spec(), Path("/d.toml"), Path("/out"))
    assert argv[1] == f"/k/{recipe.script}"
    names = {known for option in options_of(recipe.script) for known in option["names"]}
    given = [word.split("=")[0] for word in argv if word.startswith("--")]
    assert set(given) <= names
    assert len(given) == len(set(given))
    values = vars(parser(recipe.script).parse_args(argv[2:]))
    assert values["network_module"].startswith("networks.lora")
    assert {option: values[option] for option in models} == {
        option: str(path) for option, path in models.items()
    }


@pytest.mark.parametrize("name", BY_COMFYUI)
def test_comfyui_has_the_loaders_of_a_family(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.comfyui is not None
    checkpoint = (recipe.checkpoint or "checkpoints/sd_xl_base_1.0.safetensors").partition("/")[2]
    places = ComfyUIPlaces(checkpoint, None, None, "0", recipe.comfyui)
    graph = training_graph(small_spec(), places, "photos", "out/lora")
    problems = check_graph(graph, node_specs(), ["save"])
    # What is trained is in no list of the server that these specs are of, nor are the photos.
    lists = {"unet_name", "ckpt_name", "folder"}
    assert [each for each in problems if not any(name in each.text for name in lists)] == []
    assert "{checkpoint}" not in json.dumps(graph)
    assert checkpoint in json.dumps(graph)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_names_an_engine_and_has_a_tier_for_every_gpu(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.engines
    assert recipe.tiers == () or recipe.tiers[-1].memory_gb == 0


def job(**fields: object) -> TrainJob:
    photos = [{"key": f"inputs/{number}.png"} for number in range(5)]
    parsed = parse_job({"task": "train", "character_id": "mira", "images": photos, **fields})
    assert isinstance(parsed, TrainJob)
    return parsed


def test_a_recipe_decides_what_the_job_leaves_open() -> None:
    recipe = RECIPES["flux1"]
    known = Circumstances("j", 10, int(48e9), "t", "n", 1.0, recipe.tiers, 16, 2e-4)
    spec = plan(job(base_model="flux1"), known)
    assert (spec.batch_size, spec.gradient_checkpointing) == (1, True)
    assert (spec.rank, spec.alpha, spec.learning_rate) == (16, 8, 2e-4)
    spec = plan(job(base_model="flux1", rank=4, learning_rate=1e-3), known)
    assert (spec.rank, spec.learning_rate) == (4, 1e-3)
    unknown = plan(job(), replace(known, gpu_memory=None))
    assert unknown.resolution == recipe.tiers[-1].resolution
    told = chosen(job(), recipe)
    assert (told["resolution"], told["batch_size"]) == (FROM_RECIPE, FROM_RECIPE)
    assert told["rank"] != FROM_RECIPE


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ('checkpoint = "../x.safetensors"', "must be folder/file below the models folder"),
        ('checkpoint = "/x/y"', "must be folder/file below the models folder"),
        ('captions = "poems"', "Input should be 'tags' or 'sentences'"),
        ('[training.kohya]\nscript = "../evil.py"', "String should match pattern"),
        ('[training.kohya]\nscript = "a.py"\narguments = ["x"]', "must be one option"),
        (LOADERS.replace('"a.2"', '"a"'), "must look like 'model.0'"),
        (LOADERS.replace('"a.2"', '"b.0"'), "vae names node 'b', which nodes lacks"),
        (TIER, "end with memory_gb = 0"),
    ],
)
def test_a_recipe_that_cannot_be_is_said(tmp_path: Path, toml: str, message: str) -> None:
    head, tables = TOML.split("[[lora.layouts]]")
    written = folder(tmp_path, f"{head}\n[training]\n{toml}\n\n[[lora.layouts]]{tables}")
    with pytest.raises(FamilyInvalid, match="Family 'aurora'") as caught:
        load_families(written)
    assert message in str(caught.value)
