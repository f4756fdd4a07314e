"""The checkpoint that is trained on: where it is, and which of its layers a LoRA must adapt."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from lora_registry.errors import LoraCorrupt
from lora_registry.tensorfile import read_header
from worker.training.weights import layer_name

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
