"""Nodes that need a model: slow with the real ones (minutes on a CPU), quick with the stand-in."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from tests.conformance.conversation import converse
from tests.conformance.graphs import (
    picture,
    picture_from_picture,
    picture_with_lora,
    training,
    video_from_picture,
)
from tests.conformance.servers import Server


def _succeeded(history: dict[str, dict[str, str]]) -> bool:
    return history["status"]["status_str"] == "success"


def test_a_picture_with_progress_by_step(server: Server) -> None:
    talk = converse(server, picture(f"picture/{uuid.uuid4().hex}", seed=11))
    assert _succeeded(talk.history)
    steps = [(data["node"], data["value"], data["max"]) for data in talk.of("progress")]
    assert steps == [("3", 1, 2), ("3", 2, 2)]
    order = [data["node"] for data in talk.of("executing")]
    assert [node for node in order if node in ("3", "8", "9")] == ["3", "8", "9"]
    kinds = talk.types("status")
    first = kinds.index("progress")
    assert kinds[first - 1] == "progress_state"


@pytest.fixture(name="lora")
def _lora(server: Server) -> Iterator[Path]:
    """Where a LoRA may be put; taken away after the test."""
    path = server.loras / f"{uuid.uuid4().hex}.safetensors"
    yield path
    path.unlink()


def test_a_lora_that_came_after_the_start_is_used(server: Server, lora: Path) -> None:
    tensors = {
        "lora_unet_input_blocks_4_1_proj_in.lora_up.weight": np.ones((640, 2), np.float16),
        "lora_unet_input_blocks_4_1_proj_in.lora_down.weight": np.ones((2, 640), np.float16),
    }
    save_file(tensors, lora)
    talk = converse(server, picture_with_lora("lora", lora.name, seed=12))
    assert _succeeded(talk.history)


@pytest.mark.parametrize("body", [b"", b"not safetensors at all", b"\x40\0\0\0\0\0\0\0{}"])
def test_a_broken_lora_is_an_error(server: Server, lora: Path, body: bytes) -> None:
    lora.write_bytes(body)
    talk = converse(server, picture_with_lora("broken", lora.name, seed=13))
    (error,) = talk.of("execution_error")
    assert (error["node_id"], error["node_type"]) == ("10", "LoraLoader")
    assert error["exception_type"] == "safetensors._safetensors_rust.SafetensorError"
    assert error["exception_message"].startswith("Error while deserializing header")
    assert error["current_inputs"]["lora_name"] == [lora.name]


def test_a_picture_from_a_picture(server: Server) -> None:
    name = f"{uuid.uuid4().hex}.png"
    Image.new("RGB", (64, 64), "green").save(server.input / name)
    talk = converse(server, picture_from_picture("from", name, seed=14))
    assert _succeeded(talk.history)


def test_a_video_from_a_picture(server: Server) -> None:
    name = f"{uuid.uuid4().hex}.png"
    Image.new("RGB", (64, 64), "green").save(server.input / name)
    prefix = f"svd/{uuid.uuid4().hex}"
    talk = converse(server, video_from_picture(prefix, name))
    assert _succeeded(talk.history)
    assert talk.outputs["8"]["animated"] == [True]


def test_a_trained_lora_lies_in_the_output_folder(server: Server) -> None:
    folder, prefix = uuid.uuid4().hex, uuid.uuid4().hex
    (server.input / folder).mkdir()
    for number in range(2):
        Image.new("RGB", (64, 64), (40 * number, 90, 90)).save(
            server.input / folder / f"{number}.png"
        )
        (server.input / folder / f"{number}.txt").write_text("ohwx person")
    talk = converse(server, training(folder, f"loras/{prefix}"))
    assert _succeeded(talk.history)
    assert talk.outputs == {}
    assert not talk.of("executed")
    assert [data["value"] for data in talk.of("progress") if data["node"] == "4"][-1] == 2
    (file,) = (server.output / "loras").glob(f"{prefix}*")
    assert file.name == f"{prefix}_2_steps_00001_.safetensors"
