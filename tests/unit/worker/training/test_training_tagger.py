"""The tagger with a session of our own behind its seam; the real runtime where it is installed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from worker.training.tagger import Wd14Tagger, load_tagger, prepared, read_tags

TABLE = (
    "tag_id,name,category,count\n"
    "1,general_rating,9,10\n2,long_hair,0,10\n3,^_^,0,10\n4,hatsune_miku,4,10\n5,smile,0,10\n"
)


class FakeSession:
    """Answers fixed probabilities and remembers what it was shown; no model behind it."""

    def __init__(self, probabilities: Sequence[float], side: int | str = 32) -> None:
        self.probabilities = probabilities
        self.side = side
        self.seen: Any = None

    def get_inputs(self) -> Sequence[Any]:
        return [SimpleNamespace(name="input_1", shape=["batch", self.side, self.side, 3])]

    def run(self, output_names: None, inputs: Mapping[str, Any]) -> Sequence[Any]:
        assert output_names is None
        self.seen = inputs["input_1"]
        return [np.array([self.probabilities], np.float32)]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "selected_tags.csv"
    path.write_text(TABLE)
    return path


def test_general_tags_the_surest_first(table: Path) -> None:
    session = FakeSession([0.9, 0.5, 0.4, 0.99, 0.8])
    caption = Wd14Tagger(session, read_tags(table)).caption(Image.new("RGB", (60, 40)))
    assert caption == "smile, long hair, ^_^"
    assert session.seen.shape == (1, 32, 32, 3)


def test_nothing_sure_is_no_caption(table: Path) -> None:
    tagger = Wd14Tagger(FakeSession([0.1] * 5, "height"), read_tags(table))
    assert tagger.caption(Image.new("RGB", (4, 4))) == ""


def test_the_picture_is_padded_with_white_and_turned_to_bgr() -> None:
    pixels = prepared(Image.new("RGB", (40, 20), (255, 0, 0)), 8)
    assert pixels[0, 4, 4].tolist() == [0, 0, 255]
    assert pixels[0, 0, 4].tolist() == [255, 255, 255]
    assert pixels.dtype == np.float32


def test_without_its_files_there_is_no_tagger(tmp_path: Path) -> None:
    assert load_tagger(None) is None
    assert load_tagger(tmp_path) is None


def test_a_real_model_in_the_real_runtime(table: Path) -> None:
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("Transpose", ["input_1"], ["nchw"], perm=[0, 3, 1, 2]),
            helper.make_node("GlobalAveragePool", ["nchw"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["tags"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("input_1", kind, [1, 16, 16, 3])],
        [helper.make_tensor_value_info("tags", kind, [1, 5])],
        [helper.make_tensor("weights", kind, [3, 5], [0, 0, 0, 0, 0.01] + [0] * 10)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, table.with_name("model.onnx"))
    tagger = load_tagger(table.parent)
    assert tagger is not None
    assert tagger.caption(Image.new("RGB", (32, 32), (0, 0, 255))) == "smile"
    assert tagger.caption(Image.new("RGB", (32, 32), (255, 0, 0))) == ""
