import json
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
    made.mkdir()
    text = graph if isinstance(graph, str) else json.dumps(graph)
    (made / "graph.json").write_text(text)
    (made / "workflow.toml").write_text(toml)
    return made


def test_the_workflows_that_come_with_the_worker_load() -> None:
    assert {"sdxl", "sdxl_img2img"} <= set(load_library(ROOT))


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(WorkflowNotFound, match="sdxl, sdxl_img2img"):
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
        (GRAPH, TOML + "surprise = 1", "outputs.0.surprise"),
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
    with pytest.raises(WorkflowInvalid, match="'gone' for init_image"):
        load_library(tmp_path)
