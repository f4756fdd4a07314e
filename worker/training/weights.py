"""A trained file read tensor by tensor, and its header rewritten without touching a tensor.

numpy knows no bfloat16, so those are widened here; nothing is held but one tensor at a time.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lora_registry.errors import LoraCorrupt
from lora_registry.tensorfile import TensorFile, read_header
from worker.errors import TrainingFailed

_LENGTH_BYTES: Final = 8
_ALIGNMENT: Final = 8
_COPY_BYTES: Final = 4 * 1024 * 1024
_DTYPES: Final[Mapping[str, str]] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class WeightsFile:
    """The tensors of a safetensors file on demand; `names` are all of them.

    Raises:
        TrainingFailed: not a safetensors file, cut off, or with tensors that are not floats.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = _header_of(path)
        self.names = frozenset(self._file.tensors)
        self.size = self._file.size
        if any(tensor.dtype not in _DTYPES for tensor in self._file.tensors.values()):
            raise TrainingFailed("The trainer's file has tensors that are not a LoRA's.")

    def tensor(self, name: str) -> NDArray[np.float32]:
        """One tensor as float32, in its shape."""
        place = self._file.tensors[name]
        with self._path.open("rb") as file:
            file.seek(place.start)
            raw = np.frombuffer(file.read(place.end - place.start), dtype=_DTYPES[place.dtype])
        if place.dtype == "BF16":
            return (raw.astype(np.uint32) << 16).view(np.float32).reshape(place.shape)
        with np.errstate(over="ignore"):  # an F64 beyond float32 becomes infinite, and is caught
            return raw.astype(np.float32).reshape(place.shape)


def write_metadata(source: Path, target: Path, metadata: Mapping[str, str]) -> None:
    """Copy a safetensors file with `metadata` added to its own; the tensors stay bit for bit.

    `target` appears whole or not at all; its tensors start at a multiple of eight bytes.

    Raises:
        TrainingFailed: `source` is not a safetensors file.
    """
    file = _header_of(source)
    body = min(tensor.start for tensor in file.tensors.values())
    raw = _header_bytes(file, body, {**file.metadata, **metadata})
    partial = target.with_name(f".{target.name}.part")
    with source.open("rb") as read, partial.open("wb") as written:
        written.write(len(raw).to_bytes(_LENGTH_BYTES, "little"))
        written.write(raw)
        read.seek(body)
        shutil.copyfileobj(read, written, _COPY_BYTES)
    partial.replace(target)


def _header_bytes(file: TensorFile, body: int, metadata: Mapping[str, str]) -> bytes:
    header: dict[str, object] = {"__metadata__": metadata}
    for tensor in file.tensors.values():
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": tensor.shape,
            "data_offsets": [tensor.start - body, tensor.end - body],
        }
    raw = json.dumps(header, separators=(",", ":")).encode()
    return raw + b" " * (-len(raw) % _ALIGNMENT)


def _header_of(path: Path) -> TensorFile:
    try:
        file = read_header(path)
    except LoraCorrupt as error:
        raise TrainingFailed(f"The trainer's file is unusable. {error}") from error
    if not file.tensors:
        raise TrainingFailed("The trainer's file is empty.")
    return file
