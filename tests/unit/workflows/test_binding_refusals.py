"""What `bind` refuses, word for word and at the exact limit."""

import pytest

from tests.unit.workflows.test_binding import workflow
from workflows.binding import LoraUse, Values, bind
from workflows.errors import InvalidParam, UnboundRole
from workflows.template import Value

BUDGET = {
    "roles": {"prompt": "1.text", "width": ["1.size"], "height": "1.side"},
    "limits": {},
    "budgets": [{"roles": ["width", "height"], "maximum": 64}],
    "graph": {
        "1": {"class_type": "Make", "inputs": {"size": 1, "text": "", "side": 8}},
        "2": {"class_type": "SaveMP4", "inputs": {"images": ["1", 0], "filename_prefix": ""}},
    },
    "outputs": [{"node": "2", "kind": "video"}],
}


def refusal(roles: dict[str, Value | None]) -> InvalidParam | None:
    try:
        bind(workflow(**BUDGET), Values(prefix="p", roles=roles))
    except InvalidParam as error:
        return error
    return None


def test_a_budget_holds_at_its_exact_limit() -> None:
    assert refusal({"width": 8}) is None  # 8 x the graph's own 8
    assert refusal({"width": 16, "height": 4}) is None
    error = refusal({"width": 9})
    assert error is not None
    assert error.field == "height"
    assert str(error) == "height: width x height (9 x 8) must be at most 64 for workflow 'w'."


def test_a_number_that_another_node_computes_is_not_multiplied() -> None:
    graph = {
        "1": {"class_type": "Make", "inputs": {"size": 99, "text": "", "side": ["2", 0]}},
        "2": {"class_type": "SaveMP4", "inputs": {"images": ["1", 0], "filename_prefix": ""}},
    }
    assert bind(workflow(**{**BUDGET, "graph": graph}), Values(prefix="p", roles={})).graph


def test_an_unknown_role_is_told_with_those_there_are() -> None:
    with pytest.raises(UnboundRole) as caught:
        bind(workflow(), Values(prefix="p", roles={"motion": 3}, output_format="mp4"))
    assert str(caught.value) == ("motion: workflow 'w' has no such input (it has: prompt, width).")


def test_a_role_outside_its_limits_is_the_field_at_fault() -> None:
    with pytest.raises(InvalidParam) as caught:
        bind(workflow(), Values(prefix="p", roles={"width": 72}, output_format="mp4"))
    assert caught.value.field == "width"
    assert str(caught.value).endswith("for workflow 'w'.")


@pytest.mark.parametrize("given", [None, "gif"])
def test_a_format_that_is_not_made_names_those_that_are(given: str | None) -> None:
    with pytest.raises(InvalidParam) as caught:
        bind(workflow(), Values(prefix="p", roles={}, output_format=given))
    assert caught.value.field == "format"
    assert str(caught.value) == "format: must be one of mp4, webm."


@pytest.mark.parametrize(
    ("params", "known"),
    [
        ({}, "none"),
        (
            {
                "sharp": {"type": "int", "bind": "1.size"},
                "soft": {"type": "int", "bind": "1.size"},
            },
            "sharp, soft",
        ),
    ],
)
def test_an_unknown_parameter_is_told_with_those_there_are(
    params: dict[str, object], known: str
) -> None:
    with pytest.raises(InvalidParam) as caught:
        bind(
            workflow(params=params),
            Values(prefix="p", roles={}, params={"x": 1}, output_format="mp4"),
        )
    assert caught.value.field == "params.x"
    assert str(caught.value) == (f"params.x: is not a parameter of workflow 'w' (it has: {known}).")


def test_a_parameter_of_another_type_is_refused_and_zero_is_no_absence() -> None:
    params = {"sharp": {"type": "int", "bind": "1.size", "default": 3}}
    made = workflow(params=params)
    with pytest.raises(InvalidParam) as caught:
        bind(made, Values(prefix="p", roles={}, params={"sharp": "x"}, output_format="mp4"))
    assert caught.value.field == "params.sharp"
    given = bind(made, Values(prefix="p", roles={}, params={"sharp": 0}, output_format="mp4"))
    assert given.graph["1"]["inputs"]["size"] == 0
    left_out = bind(made, Values(prefix="p", roles={}, output_format="mp4"))
    assert left_out.graph["1"]["inputs"]["size"] == 3


def test_a_lora_node_never_takes_an_id_that_the_graph_has() -> None:
    graph = {
        "1": {"class_type": "Checkpoint", "inputs": {}},
        "lora_1": {"class_type": "Make", "inputs": {"model": ["1", 0], "clip": ["1", 1]}},
        "lora_1_": {"class_type": "Other", "inputs": {"model": ["lora_1", 0]}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["lora_1_", 0]}},
    }
    made = workflow(
        graph=graph,
        kind="image",
        roles={},
        limits={},
        loras=[{"model": "1.0", "clip": "1.1"}],
        outputs=[{"node": "2", "kind": "image"}],
    )
    bound = bind(made, Values(prefix="p", roles={}, loras=(LoraUse("a.safetensors", 0.0),)))
    assert bound.graph["lora_1__"] == {
        "class_type": "LoraLoader",
        "inputs": {
            "model": ["1", 0],
            "clip": ["1", 1],
            "lora_name": "a.safetensors",
            "strength_model": 0.0,
            "strength_clip": 0.0,
        },
    }
    assert bound.graph["lora_1"]["inputs"] == {"model": ["lora_1__", 0], "clip": ["lora_1__", 1]}
