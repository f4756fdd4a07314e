import json
import shutil
from pathlib import Path

import pytest

from workflows.errors import WorkflowInvalid, WorkflowNotFound
from workflows.library import load, load_library

ROOT = Path(__file__).resolve().parents[3] / "workflows"
GRAPH = {"1": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": ""}}}
TOML = """
title = "t"
kind = "image"
base_model = "sdxl"
[roles]
[[outputs]]
node = "1"
kind = "image"
"""


def folder(tmp_path: Path, graph: object = GRAPH, toml: str = TOML) -> Path:
    made = tmp_path / "mine"
    made.mkdir(parents=True)
    text = graph if isinstance(graph, str) else json.dumps(graph)
    (made / "graph.json").write_text(text)
    (made / "workflow.toml").write_text(toml)
    return made


def test_the_workflows_that_come_with_the_worker_load() -> None:
    assert {"sdxl", "sdxl_img2img"} <= set(load_library(ROOT))


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(WorkflowNotFound, match="sdxl, sdxl_hires, sdxl_img2img"):
        load_library(ROOT)["flux"]


def test_the_digest_changes_with_either_file(tmp_path: Path) -> None:
    made = folder(tmp_path)
    digests = {load(made).digest}
    (made / "workflow.toml").write_text(TOML + "\n# a remark")
    digests.add(load(made).digest)
    (made / "graph.json").write_text(json.dumps(GRAPH, indent=1))
    digests.add(load(made).digest)
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("graph", "toml", "words"),
    [
        ("{", TOML, "Expecting property name"),
        ({"nodes": [], "links": []}, TOML, "Export \\(API\\)"),
        ({"1": {"class_type": "SaveImage"}}, TOML, "has no inputs"),
        ({"1": {"inputs": {}}}, TOML, "has no class_type"),
        (GRAPH, TOML + "surprise = 1", r"\[\[outputs\]\] number 1: surprise is not a key here"),
        (GRAPH, TOML.replace("[roles]", '[roles]\nprompt = "9.text"'), "node '9' is not in"),
        (GRAPH, TOML.replace("[roles]", '[roles]\nprompt = "1.text"'), "no input 'text'"),
        (GRAPH, TOML.replace("[roles]", '[roles]\nprompt = "text"'), "must look like '6.text'"),
        (GRAPH, TOML.replace("[roles]", '[loras]\nmodel="7.0"\n[roles]'), "node '7'"),
        (GRAPH, "title = ", "Invalid value"),
    ],
)
def test_a_broken_folder_is_named_with_what_is_wrong(
    tmp_path: Path, graph: object, toml: str, words: str
) -> None:
    with pytest.raises(WorkflowInvalid, match=words) as caught:
        load(folder(tmp_path, graph, toml))
    assert "'mine'" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_missing_graph_is_named(tmp_path: Path) -> None:
    made = folder(tmp_path)
    (made / "graph.json").unlink()
    with pytest.raises(WorkflowInvalid, match=r"graph\.json"):
        load(made)


def test_a_variant_must_be_there(tmp_path: Path) -> None:
    folder(tmp_path, toml=TOML.replace("[roles]", '[variants]\ninit_image = "gone"\n[roles]'))
    with pytest.raises(WorkflowInvalid, match="init_image: there is no workflow 'gone'"):
        load_library(tmp_path)["mine"]


def test_one_broken_folder_takes_itself_out_and_no_other(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "sdxl_img2img", tmp_path / "sdxl_img2img")
    folder(tmp_path, graph="{")
    library = load_library(tmp_path)
    assert list(library) == ["sdxl_img2img"]
    assert list(library.broken) == ["mine"]
    with pytest.raises(WorkflowInvalid, match="'mine'") as caught:
        library["mine"]
    assert caught.value.field == "workflow"
    assert caught.value.code == "workflow_rejected"


SOCKETS = """
title = "t"
kind = "image"
base_model = "sdxl"
[roles]
prompt = "6.text"
seed = "3.seed"
[loras]
model = "4.0"
clip = "4.1"
[[outputs]]
node = "9"
"""
FAULTY = [
    (
        'prompt = "6.text"',
        'promt = "6.text"',
        "[roles]: promt: is no field of a job; did you mean prompt",
    ),
    ("seed =", "sampler_name =", "sampler_name: is no field of a job; did you mean sampler?"),
    ("seed =", "mask =", "files go into [inputs.mask]"),
    ('"6.text"', '"66.text"', "[roles]: prompt: node '66' is not in graph.json"),
    ('"6.text"', '"6.txt"', "node '6' (CLIPTextEncode) has no input 'txt'; did you mean text?"),
    ('"6.text"', '"60.text"', "60.text is on a node that leads to no output"),
    (
        'model = "4.0"',
        'model = "4.3"',
        "[loras]: model: nothing that leads to an output hangs on 4.3",
    ),
    ('clip = "4.1"', 'clip = "4.9"', "used of that node: 4.0, 4.1, 4.2"),
    ('model = "4.0"', 'model = ["4.0"]\nclips = "4.1"', "[[loras]] number 1: clips is not a key"),
    ('clip = "4.1"', "clip = 4.1", "number 1: clip: 4.1 must look like '4.0'"),
    (
        'kind = "image"',
        'kind = "picture"',
        "kind is 'picture'; it must be one of image, video, audio",
    ),
    ('title = "t"', "", "workflow.toml: title is missing"),
    ('title = "t"', "title = 5", "title is 5; it must be a text in quotes"),
    ('title = "t"', 'titel = "t"', "titel is not a key here; did you mean title?"),
    ('base_model = "sdxl"', "", "base_model is missing"),
    ('node = "9"', "node = 9", "[[outputs]] number 1: node is 9; it must be a text in quotes"),
    ('node = "9"', 'node = "9"\nprefix = "name"', "node '9' (SaveImage) has no input 'name'"),
    (
        'node = "9"',
        'node = "9"\n[limits.widht]\nmaximum = 5',
        "[limits]: widht: is no role of this",
    ),
    (
        'node = "9"',
        'node = "9"\n[params.x]\ntype = "image"\nbind = "3.cfg"',
        "must be one of int, float",
    ),
    (
        'node = "9"',
        'node = "9"\n[params.x]\ntype = "int"\nbind = "3.cfg"\ndefault = "much"',
        "[params.x]: default: is 'much'; it must be of type int",
    ),
    (
        'node = "9"',
        'node = "9"\n[inputs.mask]\nbind = "9.images"\nkind = "mask"\nfollows = "init"',
        "follows: names 'init', which is no other input",
    ),
    (
        'title = "t"',
        'title = "t"\nrequired = ["promt"]',
        "required names 'promt', which is no role or input; did",
    ),
    ('node = "9"', 'node = "9"\n[[outputs]]\nnode = "61"', "node 61 (PreviewImage) keeps no file"),
]


@pytest.mark.parametrize(("words", "instead", "told"), FAULTY)
def test_a_faulty_toml_is_refused_in_its_authors_words(
    tmp_path: Path, words: str, instead: str, told: str
) -> None:
    graph = json.loads((ROOT / "sdxl" / "graph.json").read_text())
    graph["60"] = graph["6"]  # a leftover that nothing needs
    graph["61"] = {"class_type": "PreviewImage", "inputs": {"images": ["8", 0]}}
    assert load(folder(tmp_path / "good", graph, SOCKETS)).loras
    assert words in SOCKETS
    with pytest.raises(WorkflowInvalid) as caught:
        load(folder(tmp_path / "bad", graph, SOCKETS.replace(words, instead, 1)))
    assert told in "; ".join(caught.value.faults)


def test_all_faults_of_a_folder_are_told(tmp_path: Path) -> None:
    toml = SOCKETS.replace("6.text", "6.txt").replace("3.seed", "3.seeed")
    graph = json.loads((ROOT / "sdxl" / "graph.json").read_text())
    with pytest.raises(WorkflowInvalid, match="and 1 more") as caught:
        load(folder(tmp_path, graph, toml))
    assert len(caught.value.faults) == 2


@pytest.mark.parametrize("wrapper", ["input", "prompt"])
def test_a_request_is_told_from_a_graph(tmp_path: Path, wrapper: str) -> None:
    with pytest.raises(WorkflowInvalid, match="request that holds the graph"):
        load(folder(tmp_path, {wrapper: {"workflow": GRAPH}}))


def test_byte_order_marks_are_no_fault(tmp_path: Path) -> None:
    made = folder(tmp_path)
    for file in made.iterdir():
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert load(made).title == "t"


def test_files_of_the_folder_belong_to_the_workflow_and_its_digest(tmp_path: Path) -> None:
    made = folder(tmp_path)
    before = load(made)
    (made / "files" / "masks").mkdir(parents=True)
    (made / "files" / "masks" / "oval.png").write_bytes(b"x")
    after = load(made)
    assert list(after.files) == ["masks/oval.png"]
    assert after.digest != before.digest


def test_the_short_form_of_an_input_means_what_it_said() -> None:
    library = load_library(ROOT)
    assert library["sdxl_img2img"].inputs["init_image"].size == "as_is"
    assert library["svd"].inputs["image"].size == "cover"
    assert library["svd"].is_required("image")


def test_several_chains_have_two_spellings(tmp_path: Path) -> None:
    graph = json.loads((ROOT / "sdxl" / "graph.json").read_text())
    graph["40"] = graph["4"]
    graph["30"] = {**graph["3"], "inputs": {**graph["3"]["inputs"], "model": ["40", 0]}}
    graph["30"]["inputs"]["latent_image"] = ["3", 0]
    graph["8"]["inputs"]["samples"] = ["30", 0]
    short = SOCKETS.replace('model = "4.0"', 'model = ["4.0", "40.0"]')
    long = SOCKETS.replace("[loras]", "[[loras]]").replace(
        "[[outputs]]", '[[loras]]\nmodel = "40.0"\n[[outputs]]'
    )
    chains = [load(folder(tmp_path / str(n), graph, t)).loras for n, t in enumerate((short, long))]
    assert chains[0] == chains[1]
    assert [(str(chain.model), chain.clip is None) for chain in chains[0]] == [
        ("4.0", False),
        ("40.0", True),
    ]
