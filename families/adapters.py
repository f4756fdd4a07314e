"""The parts that a LoRA file has for each module it changes, as ComfyUI's loader reads them.

Source: `weight_adapter/*.py` and `lora.py` of ComfyUI 0.33.0. Only names and shapes are looked at.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from families.errors import LoraDamaged

Shape = tuple[int, ...]
Parts = Mapping[str, Shape]

_ENDS: Final = {
    **{
        name: name
        for name in ("alpha", "dora_scale", "diff", "diff_b", "set_weight", "w_norm", "b_norm")
    },
    **{name: name for name in ("reshape_weight", "oft_blocks", "rescale")},
    **{f"hada_{name}": f"hada_{name}" for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")},
    **{
        f"lokr_{name}": f"lokr_{name}"
        for name in ("w1", "w2", "w1_a", "w1_b", "w2_a", "w2_b", "t2")
    },
    "lora_A": "down",
    "lora_B": "up",
}
_WEIGHTS: Final = {
    "lora_up": "up",
    "lora_down": "down",
    "lora_B": "up",
    "lora_A": "down",
    "lora_mid": "mid",
    **{name: name for name in ("a1", "a2", "b1", "b2")},
}
_LOKR: Final = frozenset(name for name in _ENDS if name.startswith("lokr_w"))
# Before `.up.weight` and `.down.weight`, in the order in which they can be told apart.
_TAILS: Final = (".lora_linear_layer", ".lora", "_lora")


@dataclass(frozen=True, slots=True)
class Adapter:
    """What a file says of one module.

    Attributes:
        kind: lora, loha, lokr, glora, oft or diff.
        outputs: of the module; None where the parts do not tell.
        inputs: of the module, a convolution's kernel multiplied in; None where they do not tell.
        rank: of the change; of a full one the highest that it can have.
    """

    kind: str
    outputs: int | None
    inputs: int | None
    rank: int


def split_key(key: str) -> tuple[str, str] | None:
    """A tensor's module and part; None for a key that ComfyUI's loader would not look at."""
    head, _, last = key.rpartition(".")
    if last != "weight":
        part = _ENDS.get(last)
        return (head, part) if part else None
    module, _, kind = head.rpartition(".")
    part = _WEIGHTS.get(kind)
    if part:
        return module, part
    if kind == "default" and module.endswith((".lora_A", ".lora_B")):
        module, _, kind = module.rpartition(".")
        return module, _WEIGHTS[kind]
    if kind in {"up", "down"}:
        for tail in _TAILS:
            if module.endswith(tail):
                return module.removesuffix(tail), kind
    return None


def adapter_of(module: str, parts: Parts) -> Adapter | None:
    """What a module's parts make; None for one that has only an alpha or a scale.

    Raises:
        LoraDamaged: a part is missing, or two do not fit each other.
    """
    if "up" in parts or "down" in parts:
        return _lora(module, parts)
    if "hada_w1_a" in parts:
        return _loha(module, parts)
    if "a1" in parts:
        return _glora(module, parts)
    if not _LOKR.isdisjoint(parts):
        return _lokr(module, parts)
    return _full(parts)


def _full(parts: Parts) -> Adapter | None:
    """A change that is no product: a rotation, a difference, or the value itself."""
    if "oft_blocks" in parts:
        blocks = parts["oft_blocks"]
        outputs = blocks[0] * blocks[1] if len(blocks) == 3 else None  # noqa: PLR2004 - BOFT has 4
        return Adapter("oft", outputs, None, max(1, blocks[-1] if blocks else 1))
    for part in ("diff", "set_weight", "w_norm"):
        if part in parts:
            shape = parts[part] or (1,)
            inputs = math.prod(shape[1:]) if len(shape) > 1 else None
            return Adapter("diff", shape[0], inputs, max(1, min(shape[0], inputs or shape[0])))
    return None


def _lora(module: str, parts: Parts) -> Adapter:
    _need(module, parts, ("up", "down"))
    up, down = parts["up"], parts["down"]
    if min(len(up), len(down)) < 2 or up[1] != down[0]:  # noqa: PLR2004 - matrices
        raise LoraDamaged(f"Module {module[:200]!r} has a down matrix without the up that fits it.")
    if "mid" in parts or "reshape_weight" in parts:
        return Adapter("lora", None if "reshape_weight" in parts else up[0], None, down[0])
    return Adapter("lora", up[0], math.prod(down[1:]), down[0])


def _loha(module: str, parts: Parts) -> Adapter:
    _need(module, parts, ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"))
    a, b = parts["hada_w1_a"], parts["hada_w1_b"]
    rank = b[0] if b else 0
    if "hada_t1" in parts or not (a and len(b) > 1):
        return Adapter("loha", None, None, rank)
    return Adapter("loha", a[0], math.prod(b[1:]), rank)


def _glora(module: str, parts: Parts) -> Adapter:
    """GLoRA's older form tells the module's sides; the newer one leaves them open."""
    _need(module, parts, ("a1", "a2", "b1", "b2"))
    a1, a2, b1, b2 = (parts[name] for name in ("a1", "a2", "b1", "b2"))
    if min(map(len, (a1, a2, b1, b2))) < 2:  # noqa: PLR2004 - matrices
        raise LoraDamaged(f"Module {module[:200]!r} has parts that are no matrices.")
    if a1[0] == a2[1] == b1[0] == b2[1]:
        return Adapter("glora", b2[0], math.prod(a1[1:]), a1[0])
    return Adapter("glora", None, None, a2[0])


def _lokr(module: str, parts: Parts) -> Adapter:
    sides: list[Shape] = []
    ranks: list[int] = []
    for factor in ("lokr_w1", "lokr_w2"):
        if factor in parts:
            sides.append(parts[factor])
            continue
        _need(module, parts, (f"{factor}_a", f"{factor}_b"))
        a, b = parts[f"{factor}_a"], parts[f"{factor}_b"]
        ranks.append(b[0] if b else 0)
        sides.append((a[0] if a else 0, *b[1:]))
    whole = all(len(side) > 1 for side in sides) and "lokr_t2" not in parts
    outputs = sides[0][0] * sides[1][0] if whole else None
    inputs = math.prod(sides[0][1:]) * math.prod(sides[1][1:]) if whole else None
    return Adapter(
        "lokr", outputs, inputs, min(ranks) if ranks else max(1, min(outputs or 1, inputs or 1))
    )


def _need(module: str, parts: Parts, names: tuple[str, ...]) -> None:
    missing = [name for name in names if name not in parts]
    if missing:
        raise LoraDamaged(
            f"Module {module[:200]!r} lacks {', '.join(missing)}; export the file again."
        )
