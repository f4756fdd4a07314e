"""Nodes that train a LoRA: they take their steps and write a file of the right shape.

What is trained here is noise from the seed; the file has the tensors that ComfyUI's trainer writes
for the attention layers of SDXL (`diffusion_model.*`, alpha 1), in the rank that was asked for.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from local.comfyui.folders import SavePath
from local.comfyui.node import Inputs, NodeFunction, Output, Run
from local.comfyui.saving import spoil
from local.comfyui.values import Conditioning, Latent, Lora, Model, Pictures, TrainedLora

_IMAGE_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".webp"})
_TEXT_WIDTH: Final = 2048
# Places of SDXL's transformers in its U-Net: name, width, number of blocks.
_TRANSFORMERS: Final = (
    ("input_blocks.4.1", 640, 2),
    ("input_blocks.5.1", 640, 2),
    ("input_blocks.7.1", 1280, 10),
    ("input_blocks.8.1", 1280, 10),
    ("middle_block.1", 1280, 10),
    ("output_blocks.0.1", 1280, 10),
    ("output_blocks.1.1", 1280, 10),
    ("output_blocks.2.1", 1280, 10),
    ("output_blocks.3.1", 640, 2),
    ("output_blocks.4.1", 640, 2),
    ("output_blocks.5.1", 640, 2),
)


def load_dataset(run: Run, inputs: Inputs) -> Output:
    """LoadImageTextDataSetFromFolder: every picture with the text file of its name.

    Those of a folder named `10_words` below come ten times.
    """
    folder = run.folders.input_file(inputs["folder"])
    files = _pictures_of(folder)
    for below in sorted(path for path in folder.iterdir() if path.is_dir()):
        number = below.name.split("_")[0]
        files += _pictures_of(below) * (int(number) if number.isdigit() else 1)
    if not files:
        raise ValueError("No valid images found in input")
    return Output(([_picture(file) for file in files], [_caption(file) for file in files]))


def _pictures_of(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.suffix.lower() in _IMAGE_SUFFIXES)


def make_dataset(_run: Run, inputs: Inputs) -> Output:
    """MakeTrainingDataset: pictures as latents, captions as conditionings."""
    images: list[Pictures] = inputs["images"]
    texts: list[str] = inputs.get("texts") or [""]
    if len(texts) == 1:
        texts = texts * len(images)
    if len(texts) != len(images):
        raise ValueError(
            f"Number of texts ({len(texts)}) does not match number of images ({len(images)}). "
            f"Text list should have length {len(images)}, 1, or 0."
        )
    latents = [Latent(*image.size, 1, origin=image.frames) for image in images]
    return Output((latents, [Conditioning(text) for text in texts]))


def train(run: Run, inputs: Inputs) -> Output:
    """TrainLoraNode: as many steps as asked, each with its progress."""
    steps = inputs["steps"][0]
    for step in range(1, steps + 1):
        run.step(step, steps)
    lora = TrainedLora(inputs["rank"][0], steps, inputs["seed"][0])
    losses = [0.12 + 0.1 * 0.98**step for step in range(steps)]
    return Output((lora, {"loss": losses}, steps))


def save_lora(run: Run, inputs: Inputs) -> Output:
    """SaveLoRA: `prefix_N_steps_00001_.safetensors`; it reports nothing to history."""
    path = SavePath(run.folders.output, inputs["prefix"])
    steps = inputs.get("steps")
    middle = f"_{steps}_steps" if steps is not None else ""
    target = path.folder / f"{path.name}{middle}_{path.counter:05}_.safetensors"
    write(target, inputs["lora"])
    spoil(run.faults, target)
    return Output()


def plot_losses(run: Run, inputs: Inputs) -> Output:
    """LossGraphNode: the curve, as a preview."""
    losses: list[float] = inputs["loss"]["loss"]
    image = Image.new("RGB", (840, 520), "white")
    highest = max(losses) or 1.0
    points = [
        (40 + 800 * place / max(1, len(losses) - 1), 480 * (1 - loss / highest))
        for place, loss in enumerate(losses)
    ]
    ImageDraw.Draw(image).line(points, "blue", 2)
    path = SavePath(run.folders.temp, "ComfyUI_temp_loss")
    name = path.next_name(".png")
    image.save(path.folder / name)
    return Output((), {"images": [{"filename": name, "subfolder": "", "type": "temp"}]})


def apply_trained(_run: Run, inputs: Inputs) -> Output:
    """LoraModelLoader: the model with what was just trained."""
    model: Model = inputs["model"]
    return Output((model.with_lora(Lora("(just trained)", inputs["strength_model"])),))


def _picture(file: Path) -> Pictures:
    with Image.open(file) as image:
        return Pictures((image.convert("RGB"),))


def _caption(file: Path) -> str:
    text = file.with_suffix(".txt")
    return text.read_text(encoding="utf-8").strip() if text.exists() else ""


def write(target: Path, lora: TrainedLora) -> None:
    """Write a LoRA as bfloat16 safetensors, one tensor at a time: big ones need little memory."""
    header: dict[str, Any] = {}
    end = 0
    for name, shape in _tensors(lora.rank):
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    head = json.dumps(header).encode()
    chance = np.random.default_rng(lora.seed)
    with target.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for name, shape in _tensors(lora.rank):
            file.write(_bfloat16(_values(chance, name, shape)))


def _values(chance: np.random.Generator, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    if not shape:
        return np.array(1.0, np.float32)
    scale = 0.01 if "lora_up" in name else 1 / shape[0]
    return chance.standard_normal(shape, np.float32) * np.float32(scale)


def _bfloat16(values: NDArray[np.float32]) -> bytes:
    """The upper halves of the floats; numpy has no such type."""
    return (np.ascontiguousarray(values).view(np.uint32) >> 16).astype("<u2").tobytes()


def _tensors(rank: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor."""
    for name, width_in, width_out in _layers():
        yield f"diffusion_model.{name}.lora_up.weight", (width_out, rank)
        yield f"diffusion_model.{name}.lora_down.weight", (rank, width_in)
        yield f"diffusion_model.{name}.alpha", ()


def _layers() -> Iterator[tuple[str, int, int]]:
    """Name, inputs and outputs of each of the 722 attention layers."""
    for place, width, blocks in _TRANSFORMERS:
        yield f"{place}.proj_in", width, width
        yield f"{place}.proj_out", width, width
        for block in range(blocks):
            name = f"{place}.transformer_blocks.{block}"
            for attention, source in (("attn1", width), ("attn2", _TEXT_WIDTH)):
                yield f"{name}.{attention}.to_q", width, width
                yield f"{name}.{attention}.to_k", source, width
                yield f"{name}.{attention}.to_v", source, width
                yield f"{name}.{attention}.to_out.0", width, width
            yield f"{name}.ff.net.0.proj", width, 8 * width
            yield f"{name}.ff.net.2", 4 * width, width


NODES: Final[Mapping[str, NodeFunction]] = {
    "LoadImageTextDataSetFromFolder": load_dataset,
    "LoraModelLoader": apply_trained,
    "LossGraphNode": plot_losses,
    "MakeTrainingDataset": make_dataset,
    "SaveLoRA": save_lora,
    "TrainLoraNode": train,
}
