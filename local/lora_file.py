"""A real SDXL LoRA in kohya's layout, small and untrained, for the local stack and tests.

All 722 modules of the SDXL UNet with their true shapes, derived from its architecture
(Stability-AI/generative-models, sd_xl_base.yaml: model_channels 320, channel_mult 1 2 4,
transformer_depth 0 2 10, context 2048, 2 residual blocks a level). What sd-scripts writes for a
UNet-only SDXL LoRA has the same names and shapes.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np

CONTEXT: Final = 2048
_BLOCK_SUFFIXES: Final = ("to_q", "to_k", "to_v", "to_out_0")

_Tensor = np.ndarray[tuple[int, ...], np.dtype[np.float16]]


def sdxl_modules() -> Iterator[tuple[str, int, int]]:
    """Every linear layer that kohya trains: name without prefix, inputs, outputs."""
    for name, channels, depth in _transformers():
        yield f"{name}_proj_in", channels, channels
        for index in range(depth):
            yield from _block(f"{name}_transformer_blocks_{index}", channels)
        yield f"{name}_proj_out", channels, channels


def _transformers() -> Iterator[tuple[str, int, int]]:
    """Every spatial transformer: its name, width and depth."""
    for index, channels, depth in ((4, 640, 2), (5, 640, 2), (7, 1280, 10), (8, 1280, 10)):
        yield f"input_blocks_{index}_1", channels, depth
    yield "middle_block_1", 1280, 10
    for index in range(3):
        yield f"output_blocks_{index}_1", 1280, 10
    for index in range(3, 6):
        yield f"output_blocks_{index}_1", 640, 2


def _block(name: str, channels: int) -> Iterator[tuple[str, int, int]]:
    for attention, context in (("attn1", channels), ("attn2", CONTEXT)):
        for suffix in _BLOCK_SUFFIXES:
            inputs = context if suffix in {"to_k", "to_v"} else channels
            yield f"{name}_{attention}_{suffix}", inputs, channels
    yield f"{name}_ff_net_0_proj", channels, channels * 8  # gated: twice four times the width
    yield f"{name}_ff_net_2", channels * 4, channels


def write_demo_lora(path: Path, *, rank: int = 4, seed: int = 0) -> None:
    """Write the file: random fp16 of small effect, about 5.4 MB a rank; alpha is half the rank.

    The same rank and seed give the same bytes. `safetensors.save_file` would not: the order of
    its metadata is another in every process.
    """
    random = np.random.default_rng(seed)
    tensors: dict[str, _Tensor] = {}
    for module, inputs, outputs in sdxl_modules():
        key = f"lora_unet_{module}"
        tensors[f"{key}.lora_down.weight"] = _noise(random, (rank, inputs))
        tensors[f"{key}.lora_up.weight"] = _noise(random, (outputs, rank))
        tensors[f"{key}.alpha"] = np.array(rank / 2, np.float16)
    header = _header(tensors, _metadata(rank))
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)))
        file.write(header)
        file.writelines(tensor.tobytes() for tensor in tensors.values())


def _header(tensors: Mapping[str, _Tensor], metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": metadata}
    at = 0
    for name, tensor in tensors.items():
        offsets = [at, at + tensor.nbytes]
        entries[name] = {"dtype": "F16", "shape": tensor.shape, "data_offsets": offsets}
        at += tensor.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    return text.ljust(-(-len(text) // 8) * 8)  # the format aligns the values to 8 bytes


def _noise(random: np.random.Generator, shape: tuple[int, int]) -> _Tensor:
    return (random.standard_normal(shape, np.float32) * 0.01).astype(np.float16)


def _metadata(rank: int) -> dict[str, str]:
    return {
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(rank / 2),
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "modelspec.title": "demo: untrained random weights",
    }
