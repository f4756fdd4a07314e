"""A safetensors file's header, read without trusting it, and its values, read without loading it.

The format (huggingface/safetensors): 8 bytes little endian with the header's length, the header as
JSON, then the tensors' bytes without gaps. The format allows a header of 100 MB; a LoRA's is under
1 MB, so ours is bounded at 16 MiB.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from safetensors import SafetensorError, safe_open

from lora_registry.errors import LoraCorrupt

MAX_HEADER_BYTES: Final = 16 * 1024 * 1024
MAX_DIMENSIONS: Final = 8  # a convolution in three dimensions has 5
_MAX_BRACKETS: Final = 500_000  # an SDXL LoRA's header has 6,500; each costs 60 bytes or more
_LENGTH_BYTES: Final = 8
_CHUNK: Final = 4 * 1024 * 1024

_BITS: Final[Mapping[str, int]] = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "U16": 16,
    "I16": 16,
    "F16": 16,
    "BF16": 16,
    "U32": 32,
    "I32": 32,
    "F32": 32,
    "U64": 64,
    "I64": 64,
    "F64": 64,
}

# A value is not finite when all its exponent bits are set (E4M3: only the all-ones pattern).
_EXPONENTS: Final[Mapping[str, tuple[str, int]]] = {
    "F8_E4M3": ("u1", 0x7F),
    "F8_E5M2": ("u1", 0x7C),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
    "F32": ("<u4", 0x7F80_0000),
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of the header; `start` and `end` count bytes from the file's beginning."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class TensorFile:
    """A checked header; `size` is the file's, in bytes."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    size: int


def read_header(path: Path) -> TensorFile:
    """Read and check a file's header: bounded, known types, offsets contiguous and in the file.

    What this accepts, ComfyUI can load.

    Raises:
        LoraCorrupt: the file is not safetensors, is truncated or has bytes left over.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if MAX_HEADER_BYTES < length <= size - _LENGTH_BYTES:
            raise LoraCorrupt(
                f"The file's header has {length} bytes; at most {MAX_HEADER_BYTES} are read."
            )
        if not 1 < length <= size - _LENGTH_BYTES:
            raise LoraCorrupt("The file is not safetensors: its header's length is impossible.")
        header = _parse_json(file.read(length))
    data_start = _LENGTH_BYTES + length
    metadata = _metadata(header.pop("__metadata__", {}))
    tensors = [_tensor(name, entry, data_start, size) for name, entry in header.items()]
    _check_contiguous(tensors, data_start, size)
    _check_loads(path)
    return TensorFile({tensor.name: tensor for tensor in tensors}, metadata, size)


def check_finite(
    path: Path, file: TensorFile, *, check_cancelled: Callable[[], None] | None = None
) -> None:
    """Look at every value, 4 MiB at a time. Raises LoraCorrupt naming the first bad tensor.

    `check_cancelled` is called between chunks; what it raises ends the reading.
    """
    with path.open("rb", buffering=0) as stream:
        for tensor in file.tensors.values():
            pattern = _EXPONENTS.get(tensor.dtype)
            if pattern is not None and not _all_finite(stream, tensor, pattern, check_cancelled):
                raise LoraCorrupt(
                    f"Tensor {tensor.name!r} has values that are not finite; the training "
                    "diverged or the file is damaged.",
                    details={"tensor": tensor.name},
                )


def sha256_of(path: Path, *, check_cancelled: Callable[[], None] | None = None) -> str:
    """A file's SHA-256 in hex, read 4 MiB at a time; `check_cancelled` as in `check_finite`."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as stream:
        for chunk in _chunks(stream, path.stat().st_size, check_cancelled):
            digest.update(chunk)
    return digest.hexdigest()


def _check_loads(path: Path) -> None:
    """The parser that ComfyUI uses has the last word; ours, before it, bounds what it may cost."""
    try:
        with safe_open(path, framework="numpy"):
            pass
    except SafetensorError as error:
        raise LoraCorrupt(f"The file is not safetensors: {error}.") from error


def _parse_json(text: bytes) -> dict[str, Any]:
    # Counted before they are built: 16 MiB of empty lists would take 340 MB of memory.
    if text.count(b"[") + text.count(b"{") > _MAX_BRACKETS:
        raise LoraCorrupt("The file is not safetensors: its header has far too many parts.")
    try:
        header = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise LoraCorrupt("The file is not safetensors: its header is not JSON.") from error
    if not isinstance(header, dict):
        raise LoraCorrupt("The file is not safetensors: its header is not an object.")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("the same name twice")
    return entries


def _metadata(raw: object) -> dict[str, str]:
    if not isinstance(raw, dict) or not all(isinstance(value, str) for value in raw.values()):
        raise LoraCorrupt("The file is not safetensors: its metadata is not text.")
    return raw


def _tensor(name: str, entry: object, data_start: int, size: int) -> Tensor:
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(start), int(end)]}:
            pass
        case _:
            raise LoraCorrupt(f"The header's entry for tensor {name[:200]!r} is damaged.")
    if dtype not in _BITS:
        raise LoraCorrupt(f"Tensor {name[:200]!r} has the unknown type {dtype[:20]!r}.")
    # Before they are multiplied: a product of numbers with thousands of digits stops every thread.
    # Every element takes a byte or more of the file, so no side can be larger than it.
    possible = all(type(side) is int and 0 <= side <= size for side in shape)
    if len(shape) > MAX_DIMENSIONS or not possible:
        raise LoraCorrupt(f"Tensor {name[:200]!r} has an impossible shape.")
    if start < 0 or end - start != math.prod(shape) * _BITS[dtype] // 8:
        raise LoraCorrupt(f"Tensor {name[:200]!r} has a size that is not its shape's.")
    return Tensor(name, dtype, tuple(shape), data_start + start, data_start + end)


def _check_contiguous(tensors: list[Tensor], data_start: int, size: int) -> None:
    at = data_start
    for tensor in sorted(tensors, key=lambda tensor: (tensor.start, tensor.end)):
        if tensor.start != at:
            raise LoraCorrupt("The file's tensors overlap or leave gaps.")
        at = tensor.end
    if at != size:
        raise LoraCorrupt(
            f"The file has {size} bytes where its header says {at}; it was not copied whole."
        )


def _all_finite(
    stream: BinaryIO,
    tensor: Tensor,
    pattern: tuple[str, int],
    check_cancelled: Callable[[], None] | None,
) -> bool:
    stream.seek(tensor.start)
    dtype, exponent = np.dtype(pattern[0]), pattern[1]
    for chunk in _chunks(stream, tensor.end - tensor.start, check_cancelled):
        values = np.frombuffer(chunk, dtype)
        if bool(np.any((values & dtype.type(exponent)) == exponent)):
            return False
    return True


def _chunks(
    stream: BinaryIO, total: int, check_cancelled: Callable[[], None] | None
) -> Iterator[memoryview]:
    """Up to 4 MiB at a time out of one buffer; a chunk is good until the next."""
    buffer = memoryview(bytearray(min(_CHUNK, total)))
    while total > 0:
        if check_cancelled is not None:
            check_cancelled()
        wanted = buffer[: min(total, len(buffer))]
        if _read_full(stream, wanted) < len(wanted):
            raise LoraCorrupt("The file became shorter while it was read.")
        total -= len(wanted)
        yield wanted


def _read_full(stream: BinaryIO, into: memoryview) -> int:
    got = 0
    while got < len(into):
        count = stream.readinto(into[got:])  # type: ignore[attr-defined]  # BinaryIO lacks it
        if not count:
            break
        got += count
    return got
