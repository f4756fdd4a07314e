"""Captions from a WD14-style tagger, where its two files are in the image.

`model.onnx` and `selected_tags.csv` as SmilingWolf's taggers are published: one NHWC input of BGR
values from 0 to 255, a probability for each row of the table. Category 0 is general, 4 a character,
9 the rating; a photo's own character is named by the trigger, so only general tags are used.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_GENERAL: Final = "0"
_THRESHOLD: Final = 0.35  # what the taggers' authors use for general tags
_MAX_TAGS: Final = 20  # CLIP reads 75 tokens; a caption above it is cut there
_WHITE: Final = (255, 255, 255)
_SIDE: Final = 448
_FACES_WITH_UNDERSCORES: Final = 3  # `0_0`, `>_<`: shorter ones are not words


class Session(Protocol):
    """What is used of `onnxruntime.InferenceSession`."""

    def get_inputs(self) -> Sequence[Any]:
        """Inputs with `name` and `shape`."""
        ...

    def run(self, output_names: None, inputs: Mapping[str, Any]) -> Sequence[Any]:
        """All outputs for these inputs."""
        ...


@dataclass(frozen=True, slots=True)
class Tag:
    """A row of the table: what it is called in a caption, and whether it is general."""

    text: str
    general: bool


class Wd14Tagger:
    """Describes a photo by its general tags, the surest first.

    Args:
        session: the model.
        tags: the table, a row for each of the model's outputs.
    """

    name = "wd14"

    def __init__(self, session: Session, tags: Sequence[Tag]) -> None:
        self._session = session
        self._tags = tags
        (given,) = session.get_inputs()
        self._input = given.name
        side = given.shape[1] if len(given.shape) > 1 else None
        self._side = side if isinstance(side, int) else _SIDE

    def caption(self, image: Image.Image) -> str:
        """Tags separated by commas; empty when nothing is sure enough."""
        pixels = prepared(image, self._side)
        probabilities = np.asarray(self._session.run(None, {self._input: pixels})[0]).reshape(-1)
        ranked = sorted(zip(probabilities, self._tags, strict=True), key=lambda pair: -pair[0])
        sure = [tag.text for value, tag in ranked if tag.general and value >= _THRESHOLD]
        return ", ".join(sure[:_MAX_TAGS])


def load_tagger(folder: Path | None) -> Wd14Tagger | None:
    """The tagger in a folder; None when a file of it is not there."""
    if folder is None:
        return None
    model, table = folder / "model.onnx", folder / "selected_tags.csv"
    if not (model.is_file() and table.is_file()):
        return None
    import onnxruntime  # noqa: PLC0415 - 30 MB of memory that only a worker with a tagger needs

    session: Session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return Wd14Tagger(session, read_tags(table))


def read_tags(path: Path) -> list[Tag]:
    """The table of a tagger: columns `tag_id,name,category,count`, in the order of its outputs."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Tag(_words(row["name"]), row["category"] == _GENERAL) for row in csv.DictReader(file)
        ]


def prepared(image: Image.Image, side: int) -> NDArray[np.float32]:
    """The picture as the model takes it: padded to a white square, BGR, one of a batch."""
    longest = max(image.size)
    square = Image.new("RGB", (longest, longest), _WHITE)
    square.paste(image, ((longest - image.width) // 2, (longest - image.height) // 2))
    small = square.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(small, dtype=np.float32)[None, :, :, ::-1].copy()


def _words(name: str) -> str:
    return name if len(name) <= _FACES_WITH_UNDERSCORES else name.replace("_", " ")
