import copy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows.binding import LoraUse, Values, bind
from workflows.errors import InvalidParam, UnboundRole
from workflows.graph import links
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


def brought(workflow: Workflow) -> dict[str, Value | None]:
    """What any job must bring: a prompt where there is one, and every input."""
    roles: dict[str, Value | None] = {"prompt": "x"} if "prompt" in workflow.roles else {}
    return roles | dict.fromkeys(workflow.inputs, "placed.png")


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
    graph = bind(SDXL, Values(prefix="p", roles={"prompt": "x"})).graph
    assert set(graph) == set(SDXL.graph)


@pytest.mark.parametrize("name", ["sdxl", "sdxl_img2img"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_each_lora_adds_one_node_in_the_order_given(name: str, count: int) -> None:
    workflow = LIBRARY[name]
    loras = tuple(LoraUse(f"{number}.safetensors", number / 4) for number in range(count))
    graph = bind(workflow, Values(prefix="p", roles=brought(workflow), loras=loras)).graph
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
        bind(SDXL, Values(prefix="p", roles={"prompt": "x", "motion": 3}))
    assert caught.value.field == "motion"
    assert caught.value.code == "invalid_input"


def test_the_second_try_after_an_oom_decodes_in_tiles() -> None:
    graph = bind(SDXL, Values(prefix="p", roles={"prompt": "x"}, low_memory=True)).graph
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
            roles = brought(template)
            if "prompt" in roles:
                roles["prompt"] = text
            values = Values("p", roles, loras=loras, output_format=chosen_format)
            if not template.loras and loras:
                continue
            assert dangling(bind(template, values).graph) == []


PLAIN: Graph = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
    "2": {"class_type": "LoadImageMask", "inputs": {"image": "oval.png", "channel": "red"}},
    "3": {
        "class_type": "Combine",
        "inputs": {"image": ["1", 0], "mask": ["2", 0], "width": ["1", 2], "low": ["5", 0]},
    },
    "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "x"}},
    "5": {"class_type": "UNETLoader", "inputs": {}},
    "6": {"class_type": "UNETLoader", "inputs": {}},
    "7": {"class_type": "Sample", "inputs": {"high": ["6", 0], "low": ["5", 0], "of": ["3", 0]}},
    "8": {"class_type": "SaveImage", "inputs": {"images": ["7", 0], "filename_prefix": "x"}},
}


def combining(**changes: object) -> Workflow:
    fields: dict[str, object] = {
        "graph": PLAIN,
        "roles": {"width": "3.width"},
        "limits": {},
        "params": {},
        "inputs": {
            "init_image": {"bind": "1.image", "kind": "image"},
            "mask": {"bind": "2.image", "kind": "mask", "required": False},
        },
        "outputs": [{"node": "8", "name": "second"}, {"node": "4", "name": "first"}],
    }
    return workflow(**fields | changes)


def test_a_budget_skips_what_a_node_computes() -> None:
    budgets = [{"roles": ["width", "steps"], "maximum": 10}]
    template = combining(budgets=budgets, roles={"width": "3.width", "steps": "3.low"})
    assert bind(template, Values("p", {"init_image": "a.png"})).graph["3"]["inputs"]["width"] == [
        "1",
        2,
    ]


@pytest.mark.parametrize(
    ("roles", "field"),
    [({}, "init_image"), ({"init_image": "a.png"}, "inputs.mask")],
)
def test_a_required_input_is_missed_by_its_field(
    roles: dict[str, Value | None], field: str
) -> None:
    inputs = {name: given.model_dump() for name, given in combining().inputs.items()}
    inputs["mask"]["required"] = None
    with pytest.raises(InvalidParam, match="is required by workflow 'w'") as caught:
        bind(combining(inputs=inputs), Values("p", roles))
    assert caught.value.field == field


def test_an_optional_input_that_is_not_brought_leaves_with_its_loader() -> None:
    graph = bind(combining(), Values("p", {"init_image": "a.png"})).graph
    assert "2" not in graph
    assert "mask" not in graph["3"]["inputs"]
    graph = bind(combining(), Values("p", {"init_image": "a.png", "mask": "m.png"})).graph
    assert graph["2"]["inputs"]["image"] == "m.png"


def test_a_file_of_the_workflow_stands_in_for_an_input() -> None:
    inputs = {"mask": {"bind": "2.image", "kind": "mask"}}
    template = combining(inputs=inputs, files={"oval.png": Path("/w/files/oval.png")})
    assert not template.is_required("mask")
    graph = bind(template, Values("p", {}, files={"oval.png": "w-0/oval.png"})).graph
    assert graph["2"]["inputs"]["image"] == "w-0/oval.png"


def test_what_a_workflow_requires_is_asked_for() -> None:
    template = combining(required=["width", "characters"], loras={"model": "6.0"}, inputs={})
    with pytest.raises(InvalidParam, match="width: is required"):
        bind(template, Values("p", {}))
    with pytest.raises(InvalidParam, match="character_id: is required"):
        bind(template, Values("p", {"width": 8}))
    graph = bind(template, Values("p", {"width": 8}, loras=(LoraUse("a", 1),))).graph
    assert "lora_1" in graph


def test_every_chain_carries_every_character() -> None:
    template = combining(inputs={}, loras={"model": ["6.0", "5.0"]})
    loras = (LoraUse("a", 1), LoraUse("b", 0.5))
    graph = bind(template, Values("p", {}, loras=loras)).graph
    assert graph["7"]["inputs"]["high"] == ["lora_2", 0]
    assert graph["7"]["inputs"]["low"] == graph["3"]["inputs"]["low"] == ["lora_2_2", 0]
    assert graph["lora_1_2"]["inputs"]["model"] == ["5", 0]
    assert graph["lora_1"]["inputs"]["model"] == ["6", 0]


def test_limits_are_told_in_full() -> None:
    template = combining(limits={"width": {"maximum": 16777215}}, inputs={})
    with pytest.raises(InvalidParam, match="at most 16777215 for"):
        bind(template, Values("p", {"width": 16777216}))


def test_a_param_without_default_leaves_what_the_graph_says() -> None:
    params = {"low": {"type": "int", "bind": "3.low"}}
    graph = bind(combining(params=params, inputs={}), Values("p", {})).graph
    assert graph["3"]["inputs"]["low"] == ["5", 0]


def test_transparency_counts_where_the_loader_gives_it_out() -> None:
    assert not combining().reads_alpha("init_image")
    masked: Graph = copy.deepcopy(PLAIN)
    masked["3"]["inputs"]["mask"] = ["1", 1]
    assert combining(graph=masked).reads_alpha("init_image")
