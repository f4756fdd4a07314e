import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.comfyui.failures import refusal
from worker.errors import ModelMissing, WorkerError, WorkflowRejected

# Bodies as ComfyUI 0.33.0 sent them.
MISSING_LORA = {
    "error": {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed"},
    "node_errors": {
        "10": {
            "errors": [
                {
                    "type": "value_not_in_list",
                    "message": "Value not in list",
                    "details": "lora_name: 'missing.safetensors' not in []",
                    "extra_info": {
                        "input_name": "lora_name",
                        "input_config": [[], {"tooltip": "The name of the LoRA."}],
                        "received_value": "missing.safetensors",
                    },
                }
            ],
            "dependent_outputs": ["9"],
            "class_type": "LoraLoader",
        }
    },
}
DANGLING = {
    "error": {
        "type": "prompt_outputs_failed_validation",
        "message": "Prompt outputs failed validation",
        "details": "Exception when validating node: '9'",
    },
    "node_errors": {
        "2": {
            "errors": [
                {
                    "type": "exception_during_validation",
                    "message": "Exception when validating node",
                    "details": "'9'",
                    "extra_info": {
                        "exception_type": "KeyError",
                        "traceback": ['  File "/comfyui/execution.py", line 1184, in validate\n'],
                    },
                }
            ],
            "class_type": "SaveImage",
        }
    },
}
UNKNOWN_NODE = {
    "error": {
        "type": "missing_node_type",
        "message": "Node 'NoSuchNode' not found. The custom node may not be installed.",
        "details": "Node ID '#1'",
        "extra_info": {"node_id": "1", "class_type": "NoSuchNode", "node_title": "NoSuchNode"},
    },
    "node_errors": {},
}
NO_OUTPUTS = {
    "error": {"type": "prompt_no_outputs", "message": "Prompt has no outputs", "extra_info": {}},
    "node_errors": {},
}


def nothing(_node_type: str, _name: str) -> Sequence[object]:
    return ()


def one(reason: str, node_type: str = "KSampler", **extra: Any) -> dict[str, Any]:
    error = {"type": reason, "message": "M", "details": "D /opt/models/x.bin", "extra_info": extra}
    return {"node_errors": {"3": {"errors": [error], "class_type": node_type}}}


def test_a_missing_model_file() -> None:
    error = refusal(MISSING_LORA, {}, nothing)
    assert isinstance(error, ModelMissing)
    assert str(error) == (
        "ComfyUI has no model file 'missing.safetensors' for lora_name of node 10 (LoraLoader)."
    )
    assert error.details["node"] == "10"
    assert error.details["allowed"] == []
    assert len(error.details["errors"]) == 1


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("ckpt_name", "no suffix", ModelMissing),
        ("clip_name2", "x.safetensors", ModelMissing),
        ("weights", "x.GGUF", ModelMissing),
        ("sampler_name", "dpm", WorkflowRejected),
        ("scheduler", 3, WorkflowRejected),
    ],
)
def test_what_counts_as_a_model(name: str, value: object, kind: type[WorkerError]) -> None:
    body = one("value_not_in_list", input_name=name, received_value=value, input_config=[["a"]])
    error = refusal(body, {}, nothing)
    assert type(error) is kind
    assert error.details["allowed"] == ["a"]


def test_a_long_list_is_asked_for_and_bounded() -> None:
    body = one("value_not_in_list", input_name="sampler_name", received_value="x")
    error = refusal(
        body, {}, lambda node_type, name: [f"{node_type}.{name}.{n}" for n in range(99)]
    )
    assert len(error.details["allowed"]) == 50
    assert "KSampler.sampler_name.7 and 42 more." in str(error)


@pytest.mark.parametrize("config", [[["a", "b"], {}], ["COMBO", {"options": ["a", "b"]}]])
def test_both_ways_to_write_a_list(config: list[Any]) -> None:
    body = one("value_not_in_list", input_name="mode", received_value="c", input_config=config)
    assert str(refusal(body, {}, nothing)) == (
        "mode of node 3 (KSampler) is 'c'; allowed are a, b."
    )


def test_a_value_out_of_range() -> None:
    body = one(
        "value_smaller_than_min",
        input_name="width",
        received_value=-5,
        input_config=["INT", {"default": 512, "min": 1, "max": 16384}],
    )
    error = refusal(body, {}, nothing)
    assert str(error) == "width of node 3 (KSampler) is -5; allowed is 1 to 16384."
    assert error.details["allowed"] == {"min": 1, "max": 16384}


def test_a_missing_input() -> None:
    error = refusal(one("required_input_missing", input_name="images"), {}, nothing)
    assert str(error) == "Node 3 (KSampler) lacks its input images."


def test_an_unknown_node_type_is_named() -> None:
    error = refusal(UNKNOWN_NODE, {}, nothing)
    assert isinstance(error, WorkflowRejected)
    assert "no node type NoSuchNode, which node 1" in str(error)


def test_a_graph_without_outputs() -> None:
    assert str(refusal(NO_OUTPUTS, {}, nothing)) == (
        "ComfyUI refused the workflow: Prompt has no outputs."
    )


def test_a_dangling_link_names_its_end_and_leaks_nothing() -> None:
    graph = {"2": {"class_type": "SaveImage", "inputs": {"a": 1, "images": ["9", 0]}}}
    error = refusal(DANGLING, graph, nothing)
    assert "input images: it links to node 9, which the workflow lacks." in str(error)
    text = str(error) + json.dumps(error.details)
    assert "comfyui/" not in text
    assert "line 1184" not in text


def test_a_nodes_own_check_is_quoted_without_folders() -> None:
    error = refusal(one("custom_validation_failed", "LoadImage", input_name="image"), {}, nothing)
    assert "D x.bin" in str(error)
    assert "/opt" not in str(error) + json.dumps(error.details)


def test_all_errors_are_listed_the_first_in_front() -> None:
    body = {
        "node_errors": {
            str(n): {
                "errors": [{"type": "required_input_missing", "extra_info": {"input_name": "x"}}],
                "class_type": "T",
            }
            for n in range(30)
        }
    }
    error = refusal(body, {}, nothing)
    assert error.details["node"] == "0"
    assert len(error.details["errors"]) == 20


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(
    body=json_values
    | st.fixed_dictionaries({"error": json_values, "node_errors": json_values})
    | st.fixed_dictionaries(
        {
            "node_errors": st.dictionaries(
                st.text(max_size=3), st.fixed_dictionaries({"errors": json_values}) | json_values
            )
        }
    )
)
def test_whatever_the_body_is_there_is_a_sentence(body: object) -> None:
    error = refusal(body, {}, nothing)
    assert str(error).endswith((".", "…"))
    json.dumps(error.details)
