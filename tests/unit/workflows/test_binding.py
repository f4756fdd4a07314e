import copy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows.binding import LoraUse, Values, bind, links
from workflows.errors import InvalidParam, UnboundRole
from workflows.library import load_library
from workflows.template import Graph, Param, Value, Workflow

WORKFLOWS = Path(__file__).resolve().parents[3] / "workflows"
LIBRARY = load_library(WORKFLOWS)
SDXL = LIBRARY["sdxl"]


def dangling(graph: Graph) -> list[str]:
    return [
        f"{node}.{name}"
        for node, spec in graph.items()
        for name, link in links(spec["inputs"]).items()
        if link.node not in graph
    ]


def test_roles_reach_their_inputs_and_the_template_stays_as_it_was() -> None:
    before = copy.deepcopy(dict(SDXL.graph))
    roles: dict[str, Value | None] = {"prompt": "a cat", "seed": 7, "width": 640, "steps": None}
    graph = bind(SDXL, Values(prefix="run/image", roles=roles)).graph
    assert graph["6"]["inputs"]["text"] == "a cat"
    assert graph["3"]["inputs"]["seed"] == 7
    assert graph["5"]["inputs"]["width"] == 640
    assert graph["3"]["inputs"]["steps"] == before["3"]["inputs"]["steps"]
    assert graph["9"]["inputs"]["filename_prefix"] == "run/image-9"
    assert dict(SDXL.graph) == before


def test_the_same_values_give_the_same_graph() -> None:
    values = Values(prefix="p", roles={"prompt": "x", "seed": 1}, loras=(LoraUse("a", 1.0),))
    assert bind(SDXL, values) == bind(SDXL, values)


def test_no_lora_adds_no_node() -> None:
    graph = bind(SDXL, Values(prefix="p", roles={})).graph
    assert set(graph) == set(SDXL.graph)


@pytest.mark.parametrize("name", ["sdxl", "sdxl_img2img"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_each_lora_adds_one_node_in_the_order_given(name: str, count: int) -> None:
    workflow = LIBRARY[name]
    loras = tuple(LoraUse(f"{number}.safetensors", number / 4) for number in range(count))
    graph = bind(workflow, Values(prefix="p", roles={}, loras=loras)).graph
    assert len(graph) == len(workflow.graph) + count
    assert dangling(graph) == []
    chain = []
    node = graph["3"]["inputs"]["model"][0]
    while node != "4":
        chain.append((graph[node]["inputs"]["lora_name"], graph[node]["inputs"]["strength_model"]))
        assert graph[node]["inputs"]["strength_clip"] == graph[node]["inputs"]["strength_model"]
        node = graph[node]["inputs"]["model"][0]
    assert chain == [(lora.name, lora.strength) for lora in reversed(loras)]
    assert graph["6"]["inputs"]["clip"] == graph["7"]["inputs"]["clip"] == [f"lora_{count}", 1]
    assert graph["8"]["inputs"]["vae"] == ["4", 2]


def test_an_unbound_role_raises_naming_it() -> None:
    with pytest.raises(UnboundRole) as caught:
        bind(SDXL, Values(prefix="p", roles={"motion": 3}))
    assert caught.value.field == "motion"
    assert caught.value.code == "invalid_input"


def test_the_second_try_after_an_oom_decodes_in_tiles() -> None:
    graph = bind(SDXL, Values(prefix="p", roles={}, low_memory=True)).graph
    assert graph["8"]["class_type"] == "VAEDecodeTiled"
    assert graph["8"]["inputs"]["samples"] == ["3", 0]
    assert graph["8"]["inputs"]["tile_size"] == 512


def workflow(**changes: object) -> Workflow:
    graph = {
        "1": {"class_type": "Make", "inputs": {"size": 1, "text": ""}},
        "2": {"class_type": "SaveMP4", "inputs": {"images": ["1", 0], "filename_prefix": ""}},
        "3": {"class_type": "SaveWEBM", "inputs": {"images": ["1", 0], "filename_prefix": ""}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": ""}},
        "5": {"class_type": "Lonely", "inputs": {}},
    }
    fields: dict[str, object] = {
        "name": "w",
        "digest": "sha256:0",
        "graph": graph,
        "kind": "video",
        "title": "w",
        "base_model": "svd",
        "roles": {"prompt": "1.text", "width": ["1.size"]},
        "limits": {"width": {"minimum": 8, "maximum": 64, "step": 8}},
        "outputs": [
            {"node": "2", "kind": "video", "format": "mp4"},
            {"node": "3", "kind": "video", "format": "webm"},
            {"node": "4", "kind": "image"},
        ],
        "params": {"detail": {"type": "float", "bind": "1.size", "default": 1, "maximum": 2}},
    }
    return Workflow.model_validate(fields | changes)


def test_only_the_outputs_of_the_format_asked_for_run() -> None:
    bound = bind(workflow(), Values(prefix="p", roles={}, output_format="webm"))
    assert set(bound.graph) == {"1", "3", "4"}
    assert [output.node for output in bound.outputs] == ["3", "4"]


def test_an_unknown_format_names_those_there_are() -> None:
    with pytest.raises(InvalidParam, match="mp4, webm"):
        bind(workflow(), Values(prefix="p", roles={}, output_format="gif"))


@pytest.mark.parametrize(
    ("value", "words"), [(4, "at least 8"), (128, "at most 64"), (12, "multiple of 8")]
)
def test_the_workflows_own_limits_hold(value: int, words: str) -> None:
    with pytest.raises(InvalidParam, match=words):
        bind(workflow(), Values(prefix="p", roles={"width": value}, output_format="mp4"))


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"detail": 3}, "at most 2"),
        ({"detail": "much"}, "of type float"),
        ({"detail": True}, "of type float"),
        ({"colour": 1}, "is not a parameter"),
    ],
)
def test_params_are_checked(params: dict[str, float | str | bool], words: str) -> None:
    with pytest.raises(InvalidParam, match=words):
        bind(workflow(), Values(prefix="p", roles={}, params=params, output_format="mp4"))


def test_a_param_not_given_takes_its_default() -> None:
    bound = bind(workflow(), Values(prefix="p", roles={}, output_format="mp4"))
    assert bound.graph["1"]["inputs"]["size"] == 1


def test_a_workflow_without_sockets_takes_no_characters() -> None:
    values = Values(prefix="p", roles={}, loras=(LoraUse("a", 1),), output_format="mp4")
    with pytest.raises(InvalidParam, match="takes no characters"):
        bind(workflow(), values)


def test_choices_are_named() -> None:
    param = Param.model_validate(
        {"type": "string", "bind": "1.text", "default": "a", "choices": ["a", "b"]}
    )
    assert param.mismatch("c") == "must be one of a, b"


@given(
    st.lists(st.tuples(st.text(min_size=1, max_size=8), st.floats(-2, 2)), max_size=4),
    st.text(max_size=30),
)
def test_binding_never_leaves_a_dangling_link(chosen: list[tuple[str, float]], text: str) -> None:
    loras = tuple(LoraUse(name, strength) for name, strength in chosen)
    for template in LIBRARY.values():
        formats = template.formats or (None,)
        for chosen_format in formats:
            values = Values("p", {"prompt": text}, loras=loras, output_format=chosen_format)
            if template.loras is None and loras:
                continue
            if "prompt" not in template.roles:
                values = Values("p", {}, loras=loras, output_format=chosen_format)
            assert dangling(bind(template, values).graph) == []
