"""Whether a file is a LoRA that learned: what decides before anything reaches the registry.

sd-scripts starts with up = 0 and ComfyUI with down = 0, so one side alone proves nothing: the
product must differ from zero. Its norm needs no product: |UD|² = sum((UᵀU) * (DDᵀ)), two matrices
of rank x rank, so memory stays at one module whatever the file's size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from worker.errors import TrainingDiverged, TrainingFailed
from worker.training.weights import WeightsFile

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


@dataclass(frozen=True, slots=True)
class LoraCheck:
    """What was found in a file that passed; norms are of up·down, without alpha/rank."""

    modules: int
    learned: int
    rank: int
    mean_alpha: float
    mean_norm: float
    size: int

    def as_json(self) -> dict[str, Any]:
        """For the report."""
        return {
            "modules": self.modules,
            "modules_learned": self.learned,
            "rank": self.rank,
            "mean_alpha": round(self.mean_alpha, 4),
            "mean_norm": round(self.mean_norm, 6),
            "bytes": self.size,
        }


def verify(
    path: Path, expected: Expected, check_cancelled: Callable[[], None] = lambda: None
) -> LoraCheck:
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
    means = float(np.mean(alphas)), float(np.mean(norms))
    return LoraCheck(len(modules), learned, expected.rank, *means, file.size)


def layer_name(module: str) -> str:
    """A module's name in a form that both layouts share: no prefix, underscores only."""
    for prefix in _PREFIXES:
        module = module.removeprefix(prefix)
    return module.replace(".", "_")


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
            raise TrainingFailed("The trainer's file names layers that no SDXL model has.")
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
