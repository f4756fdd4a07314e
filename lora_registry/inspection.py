"""What a LoRA file is, read from its header alone: layout, rank, alpha, base-model family.

Two layouts are recognised, those that ComfyUI's LoraLoader reads: kohya's (`lora_unet_…`) and
ComfyUI's own (`diffusion_model.…`). The diffusers layout loads there **silently as nothing**, so it
is refused with what to do about it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from lora_registry.errors import LoraCorrupt, LoraRejected
from lora_registry.tensorfile import Tensor, TensorFile, read_header

Format = Literal["kohya", "comfyui"]

_KOHYA: Final = re.compile(r"(lora_unet|lora_te[123]?|lycoris)_")
_COMFYUI: Final = re.compile(r"(diffusion_model|text_encoders|clip_[lgh])\.")
_DIFFUSERS: Final = re.compile(
    r"(unet\.|text_encoder(_2)?\.|transformer\.|base_model\.model\.|.*\.processor\."
    r"|(down_blocks|mid_block|up_blocks|single_transformer_blocks|transformer_blocks)\.)"
)
# The tensor of a module whose first side is the rank and whose second the module's input.
_DOWN: Final = (
    ".lora_down.weight",
    ".lora_A.weight",
    ".lora_A.default.weight",
    ".hada_w1_b",
    ".lokr_w1_b",
    ".lokr_w2_b",
)
_UP: Final = (
    ".lora_up.weight",
    ".lora_B.weight",
    ".lora_B.default.weight",
    ".hada_w1_a",
    ".lokr_w1_a",
    ".lokr_w2_a",
    ".lokr_w1",
    ".lokr_w2",
)
_CROSS_ATTENTION: Final = re.compile(r"attn2[._]to_[kv]$")
# The width of the text embedding that cross-attention reads is the family's fingerprint.
_CONTEXT: Final[Mapping[int, str]] = {768: "sd15", 1024: "sd2", 1280: "sdxl_refiner", 2048: "sdxl"}
# Names that only one family has: SDXL alone has a second text encoder and transformers over 2 deep.
_NAMES: Final = (
    (re.compile(r".*(double_blocks|single_blocks)[._]"), "flux"),
    (re.compile(r".*joint_blocks[._]"), "sd3"),
    (re.compile(r"lora_te2_|(diffusion_model\.|lora_unet_).*transformer_blocks[._][2-9]"), "sdxl"),
)
_STATED: Final = (
    (re.compile(r"sdxl|stable-diffusion-xl|sd_xl"), "sdxl"),
    (re.compile(r"flux"), "flux"),
    (re.compile(r"sd3|stable-diffusion-3"), "sd3"),
    (re.compile(r"sd_v2|sd2|stable-diffusion-v2"), "sd2"),
    (re.compile(r"sd_v1|sd1|sd_1|stable-diffusion-v1"), "sd15"),
)
_STATING: Final = ("ss_base_model_version", "modelspec.architecture")
_MATRIX: Final = 2  # sides; a convolution has four
_CONVERT: Final = (
    "convert it to the kohya layout (diffusers' convert_diffusers_sdxl_lora_to_webui.py, or "
    "sd-scripts) and register the result"
)


@dataclass(frozen=True, slots=True)
class LoraFacts:
    """What the header tells.

    Attributes:
        format: the key layout.
        rank: the rank that most modules have.
        alpha: the alpha that the metadata states; None where it states none.
        base_model: "sdxl", "sd15", "sd2", "sdxl_refiner", "sd3" or "flux".
        modules: how many modules of the base model it changes.
        tensors: how many tensors the file has.
        size: of the file, in bytes.
        text_encoder: whether it changes a text encoder too.
        metadata: the file's own, as text.
    """

    format: Format
    rank: int
    alpha: float | None
    base_model: str
    modules: int
    tensors: int
    size: int
    text_encoder: bool
    metadata: Mapping[str, str]


def inspect(path: Path) -> LoraFacts:
    """Say what a LoRA file is; reads its header, not its values (`tensorfile.check_finite` does).

    Raises:
        LoraCorrupt: not safetensors, truncated, or bytes left over.
        LoraRejected: safetensors, but no LoRA that ComfyUI would load; says what to do.
    """
    return facts_of(read_header(path))


def facts_of(file: TensorFile) -> LoraFacts:
    """`inspect` for a header that is read already. Raises LoraRejected, LoraCorrupt."""
    if not file.tensors:
        raise LoraRejected("The LoRA file is empty: it has no tensors; train or export it again.")
    layout = _layout(file.tensors)
    downs = dict(_modules(file.tensors.values(), _DOWN))
    ups = dict(_modules(file.tensors.values(), _UP))
    if not ups:
        raise LoraRejected("The file has no LoRA modules; register a LoRA, not a checkpoint.")
    _check_pairs(downs, ups)
    return LoraFacts(
        format=layout,
        rank=_rank(downs),
        alpha=_number(file.metadata.get("ss_network_alpha")),
        base_model=_family(downs, file),
        modules=len(ups),
        tensors=len(file.tensors),
        size=file.size,
        text_encoder=any(name.startswith(("lora_te", "text_encoders", "clip_")) for name in ups),
        metadata=file.metadata,
    )


def _layout(names: Iterable[str]) -> Format:
    counts: Counter[str] = Counter(_layout_of(name) for name in names)
    if counts["diffusers"]:
        raise LoraRejected(
            f"The file is in the diffusers layout, which ComfyUI loads as nothing; {_CONVERT}.",
            details={"layout": "diffusers"},
        )
    if counts["kohya"] and not counts["comfyui"]:
        return "kohya"
    if counts["comfyui"] and not counts["kohya"]:
        return "comfyui"
    raise LoraRejected(
        "The file's keys are neither kohya's (lora_unet_…) nor ComfyUI's (diffusion_model.…); "
        "register a LoRA that one of them wrote."
    )


def _layout_of(name: str) -> str:
    if _KOHYA.match(name):
        return "kohya"
    if _DIFFUSERS.match(name):
        return "diffusers"
    return "comfyui" if _COMFYUI.match(name) else "other"


def _modules(tensors: Iterable[Tensor], suffixes: tuple[str, ...]) -> Iterable[tuple[str, Tensor]]:
    for tensor in tensors:
        for suffix in suffixes:
            if tensor.name.endswith(suffix):
                yield tensor.name.removesuffix(suffix), tensor


def _check_pairs(downs: Mapping[str, Tensor], ups: Mapping[str, Tensor]) -> None:
    for module, down in downs.items():
        up = ups.get(module)
        if up is None or not _fit(down, up):
            raise LoraCorrupt(f"Module {module!r} has a down matrix without the up that fits it.")


def _fit(down: Tensor, up: Tensor) -> bool:
    if min(len(down.shape), len(up.shape)) < _MATRIX:
        return False
    return ".lora_" not in down.name or down.shape[0] == up.shape[1]


def _rank(downs: Mapping[str, Tensor]) -> int:
    ranks = Counter(tensor.shape[0] for tensor in downs.values())
    if not ranks or not (rank := ranks.most_common(1)[0][0]):
        raise LoraRejected("The LoRA's rank cannot be told from its shapes; export it again.")
    return rank


def _family(downs: Mapping[str, Tensor], file: TensorFile) -> str:
    """The base model's family; shapes are believed before metadata, which anybody can edit."""
    family = _family_of_shapes(downs) or _family_of_names(file.tensors) or _stated(file.metadata)
    if family is None:
        raise LoraRejected(
            "The LoRA's base model can be told neither from its shapes nor from its metadata; "
            "export it again with ss_base_model_version in its metadata."
        )
    return family


def _family_of_shapes(downs: Mapping[str, Tensor]) -> str | None:
    for module, down in downs.items():
        if _CROSS_ATTENTION.search(module) and down.shape[1] in _CONTEXT:
            return _CONTEXT[down.shape[1]]
    return None


def _family_of_names(names: Iterable[str]) -> str | None:
    for name in names:
        for pattern, family in _NAMES:
            if pattern.match(name):
                return family
    return None


def _stated(metadata: Mapping[str, str]) -> str | None:
    for field in _STATING:
        for pattern, family in _STATED:
            if pattern.search(metadata.get(field, "").lower()):
                return family
    return None


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
