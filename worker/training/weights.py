"""A trained file: read tensor by tensor, checked, and given its metadata without a tensor touched.

The check decides before anything reaches the registry whether a file is a LoRA that learned.
sd-scripts starts with up = 0 and ComfyUI with down = 0, so one side alone proves nothing: the
product must differ from zero. Its norm needs no product: |UD|² = sum((UᵀU) * (DDᵀ)), two matrices
of rank x rank, so memory stays at one module whatever the file's size. numpy knows no bfloat16, so
those are widened here.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lora_registry.errors import LoraCorrupt
from lora_registry.tensorfile import TensorFile, read_header
from worker.errors import TrainingDiverged, TrainingFailed
from worker.training_results import LoraCheckResult

_LENGTH_BYTES: Final = 8
_ALIGNMENT: Final = 8
_COPY_BYTES: Final = 4 * 1024 * 1024
_DTYPES: Final[Mapping[str, str]] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_UP: Final = ".lora_up.weight"
_DOWN: Final = ".lora_down.weight"
_ALPHA: Final = ".alpha"
_PREFIXES: Final = ("lora_unet_", "diffusion_model.")
_MOST: Final = 0.5

SDXL_MODULES: Final = 722
"""Linear layers of SDXL's transformers; both trainers adapt all of them (counted in files)."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the training was asked for.

    Attributes:
        rank: of the layers; small ones of ComfyUI's trainer have less, so the highest counts.
        alpha: of every layer; None where the trainer trains it too, as ComfyUI's does.
        layers: names that must be adapted, as `base_model.trained_layers` gives them.
        min_modules: how many must be where the names are not known.
    """

    rank: int
    alpha: float | None
    layers: frozenset[str] = frozenset()
    min_modules: int = SDXL_MODULES


def check_lora(
    path: Path, expected: Expected, check_cancelled: Callable[[], None] = lambda: None
) -> LoraCheckResult:
    """Check a trained file.

    Args:
        path: a safetensors file.
        expected: rank, alpha and modules.
        check_cancelled: called between modules; what it raises ends the work.

    Raises:
        TrainingDiverged: a tensor is not finite.
        TrainingFailed: not a LoRA, not the one asked for, or one that learned nothing.
    """
    file = WeightsFile(path)
    modules = sorted(name.removesuffix(_UP) for name in file.names if name.endswith(_UP))
    _check_keys(file, modules, expected)
    norms, ranks, alphas = [], [], []
    for module in modules:
        check_cancelled()
        norm, rank = _norm_and_rank(file, module)
        norms.append(norm)
        ranks.append(rank)
        alphas.append(_alpha(file, module, expected.alpha))
    _check_rank(max(ranks), expected.rank)
    _check_others(file, check_cancelled)
    learned = sum(norm > 0 for norm in norms)
    if learned <= _MOST * len(modules):
        raise TrainingFailed(
            f"The training learned nothing: only {learned} of {len(modules)} layers changed.",
            details={"modules": len(modules), "modules_learned": learned},
        )
    return LoraCheckResult(
        modules=len(modules),
        modules_learned=learned,
        rank=expected.rank,
        mean_alpha=round(float(np.mean(alphas)), 4),
        mean_norm=round(float(np.mean(norms)), 6),
        bytes=file.size,
    )


def layer_name(module: str) -> str:
    """A module's name in a form that both layouts share: no prefix, underscores only."""
    for prefix in _PREFIXES:
        module = module.removeprefix(prefix)
    return module.replace(".", "_")


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


def _check_keys(file: WeightsFile, modules: list[str], expected: Expected) -> None:
    wanted = len(expected.layers) or expected.min_modules
    if len(modules) < wanted:
        raise TrainingFailed(
            f"The trainer's file adapts {len(modules)} layers; {wanted} or more were expected.",
            details={"modules": len(modules), "expected": wanted},
        )
    missing = expected.layers - {layer_name(module) for module in modules}
    if missing:
        raise TrainingFailed(
            "The trainer's file leaves out layers of the base model.",
            details={"missing": sorted(missing)[:5], "modules": len(modules)},
        )
    for module in modules:
        if not module.startswith(_PREFIXES):
            raise TrainingFailed("The trainer's file names layers as no trainer here does.")
        if module + _DOWN not in file.names or module + _ALPHA not in file.names:
            raise TrainingFailed("The trainer's file lacks a part of some layers.")


def _norm_and_rank(file: WeightsFile, module: str) -> tuple[float, int]:
    up, down = _finite(file, module + _UP), _finite(file, module + _DOWN)
    columns = up.reshape(up.shape[0], -1).astype(np.float64)
    rows = down.reshape(down.shape[0], -1).astype(np.float64)
    if columns.shape[1] != rows.shape[0]:
        raise TrainingFailed("The trainer's file has parts of layers that do not fit each other.")
    squared = float(((columns.T @ columns) * (rows @ rows.T)).sum())
    return float(np.sqrt(max(0.0, squared))), rows.shape[0]


def _check_rank(found: int, expected: int) -> None:
    if found != expected:
        raise TrainingFailed(
            f"The trainer's file has rank {found} where {expected} was asked for.",
            details={"rank": found, "expected": expected},
        )


def _alpha(file: WeightsFile, module: str, expected: float | None) -> float:
    found = float(_finite(file, module + _ALPHA).reshape(-1)[0])
    if expected is not None and not np.isclose(found, expected, rtol=1e-2):
        raise TrainingFailed(
            f"The trainer's file has alpha {found:g} where {expected:g} was asked for.",
            details={"alpha": found, "expected": expected},
        )
    return found


def _check_others(file: WeightsFile, check_cancelled: Callable[[], None]) -> None:
    """ComfyUI's trainer writes biases and norms as plain differences: they must be finite too."""
    for name in file.names:
        if not name.endswith((_UP, _DOWN, _ALPHA)):
            check_cancelled()
            _finite(file, name)


def _finite(file: WeightsFile, name: str) -> NDArray[np.float32]:
    tensor = file.tensor(name)
    if tensor.size == 0 or not np.isfinite(tensor).all():
        raise TrainingDiverged(
            "The training diverged: its weights are not finite. Try a lower learning_rate.",
            field="learning_rate",
        )
    return tensor


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


_TRANSFORMER_LAYER: Final = re.compile(
    r"model\.diffusion_model\.(?P<layer>(?:input_blocks|output_blocks)\.\d+\.1\.\S+"
    r"|middle_block\.1\.\S+)\.weight"
)
_MATRIX: Final = 2


def find_checkpoint(name: str, folders: Iterable[Path]) -> Path | None:
    """The checkpoint of that name in the first folder that has it."""
    for folder in folders:
        path = folder / name
        if path.is_file():
            return path
    return None


def trained_layers(checkpoint: Path | None) -> frozenset[str]:
    """The linear layers of the U-Net's transformers, named as `weights.layer_name` does.

    Read from the checkpoint's header: 722 for SDXL, what sd-scripts adapts and ComfyUI's trainer
    too. Empty where there is no such file, or it is none with a U-Net of this kind.
    """
    if checkpoint is None:
        return frozenset()
    try:
        tensors = read_header(checkpoint).tensors
    except LoraCorrupt:
        return frozenset()
    return frozenset(
        layer_name(match["layer"])
        for name, tensor in tensors.items()
        if len(tensor.shape) == _MATRIX and (match := _TRANSFORMER_LAYER.fullmatch(name))
    )
