"""The comfyui engine: ComfyUI's own training nodes, on the server that is already running.

What the nodes of ComfyUI 0.33 do not say of themselves (measured): pictures of different sizes are
fed to SDXL unscaled, so every picture gets one size; `checkpoint_depth` 2 and `bypass_mode` save
the memory that the defaults do not; a folder seen before is served from cache, so each run has one
of its own; SaveLoRA reports nothing, so its file is looked for; losses are told to nobody; alpha is
a parameter that is trained along, from 1.
"""

import contextlib
import logging
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from PIL import Image, ImageOps

from families.training import ComfyUIRecipe
from worker.cancel import CancelToken
from worker.comfyui.client import ComfyUIClient, Step
from worker.errors import EngineUnavailable, OutOfMemory, TrainingFailed
from worker.training.trainer import (
    OnStep,
    PreparedDataset,
    TrainingSpec,
    TrainingStep,
    low_memory,
)

log = logging.getLogger(__name__)

_TRAIN_NODE: Final = "TrainLoraNode"
_FACES_ARE_ABOVE_THE_MIDDLE: Final = (0.5, 0.35)


@dataclass(frozen=True, slots=True)
class ComfyUIPlaces:
    """Where the trainer's files are.

    Attributes:
        checkpoint: name of the model to train, as the recipe's loader takes it.
        input_directory: ComfyUI's input folder on our disk; None when it is another machine's.
        output_directory: its output folder, likewise.
        version: ComfyUI's.
    """

    checkpoint: str
    input_directory: Path | None
    output_directory: Path | None
    version: str
    recipe: ComfyUIRecipe


class ComfyUITrainer:
    """Trains with ComfyUI's nodes; running out of memory is tried once more at half the batch."""

    def __init__(self, client: ComfyUIClient, places: ComfyUIPlaces) -> None:
        self._client = client
        self._places = places

    @property
    def name(self) -> str:
        """`comfyui`, with the server's version."""
        return f"comfyui ({self._places.version})"

    def train(
        self,
        spec: TrainingSpec,
        dataset: PreparedDataset,
        workdir: Path,
        on_step: OnStep,
        cancel: CancelToken,
    ) -> Path:
        """See `Trainer.train`; a training that was cut off begins again."""
        run = _Run(self._client, self._places, dataset, workdir)
        try:
            return run.train(spec, on_step, cancel)
        except OutOfMemory:
            smaller = low_memory(spec)
            if smaller == spec:
                raise
            log.warning("out of memory", extra={"batch_size": smaller.batch_size})
            self._client.free()
            return run.train(smaller, on_step, cancel)


@dataclass(frozen=True, slots=True)
class _Run:
    client: ComfyUIClient
    places: ComfyUIPlaces
    dataset: PreparedDataset
    workdir: Path

    def train(self, spec: TrainingSpec, on_step: OnStep, cancel: CancelToken) -> Path:
        inputs, outputs = self.places.input_directory, self.places.output_directory
        if inputs is None or outputs is None:
            message = "The comfyui trainer needs a ComfyUI on the worker's own disk; use kohya."
            raise EngineUnavailable(message, field="trainer")
        run_id = f"train-{uuid.uuid4().hex}"
        folder = f"{run_id}-photos"
        try:
            with _placed(self.dataset, inputs / folder, spec.resolution, cancel.check):
                self.client.run(
                    training_graph(spec, self.places, folder, f"{run_id}/lora"),
                    timeout_s=spec.deadline_s,
                    cancel=cancel,
                    on_step=lambda step: _tell(step, spec.steps, on_step),
                    on_files=lambda _node, _files: None,
                )
            return _taken(outputs / run_id, self.workdir / f"{spec.name}.safetensors")
        finally:
            self.client.delete_folder(run_id)


def training_graph(
    spec: TrainingSpec, places: ComfyUIPlaces, folder: str, prefix: str
) -> dict[str, dict[str, Any]]:
    """The graph of one training; `folder` is below ComfyUI's input, `prefix` below its output."""
    recipe = places.recipe
    return {
        **recipe.loaders(places.checkpoint),
        "photos": {"class_type": "LoadImageTextDataSetFromFolder", "inputs": {"folder": folder}},
        "dataset": {
            "class_type": "MakeTrainingDataset",
            "inputs": {
                "images": ["photos", 0],
                "texts": ["photos", 1],
                "vae": list(recipe.vae),
                "clip": list(recipe.clip),
            },
        },
        "train": {
            "class_type": _TRAIN_NODE,
            "inputs": {"model": list(recipe.model), **_training_inputs(spec)},
        },
        "save": {
            "class_type": "SaveLoRA",
            "inputs": {"lora": ["train", 0], "prefix": prefix, "steps": ["train", 2]},
        },
    }


def _training_inputs(spec: TrainingSpec) -> dict[str, Any]:
    return {
        "latents": ["dataset", 0],
        "positive": ["dataset", 1],
        "batch_size": spec.batch_size,
        "grad_accumulation_steps": 1,
        "steps": spec.steps,
        "learning_rate": spec.learning_rate,
        "rank": spec.rank,
        "optimizer": "AdamW",
        "loss_function": "MSE",
        "seed": spec.seed,
        "training_dtype": "bf16",
        "lora_dtype": "bf16",
        "quantized_backward": False,
        "algorithm": "LoRA",
        "gradient_checkpointing": True,
        "checkpoint_depth": 2,
        "offloading": False,
        "existing_lora": "[None]",
        "bucket_mode": False,
        "bypass_mode": True,
    }


def _tell(step: Step, steps: int, on_step: OnStep) -> None:
    if step.node_type == _TRAIN_NODE and step.steps:
        on_step(TrainingStep(step.step, steps))


@contextlib.contextmanager
def _placed(
    dataset: PreparedDataset, folder: Path, side: int, check_cancelled: Callable[[], None]
) -> Iterator[None]:
    """The photos as squares of one size in a folder of ComfyUI's input, for as long as it lasts."""
    folder.mkdir(parents=True)
    try:
        for photo in dataset.photos:
            check_cancelled()
            with Image.open(photo.path) as image:
                square = ImageOps.fit(
                    image.convert("RGB"),
                    (side, side),
                    Image.Resampling.LANCZOS,
                    centering=_FACES_ARE_ABOVE_THE_MIDDLE,
                )
            # ComfyUI reads the number before a folder's name as kohya's scripts do.
            below = folder if photo.repeats == 1 else folder / f"{photo.repeats}_photos"
            below.mkdir(exist_ok=True)
            target = below / photo.path.name
            square.save(target, "PNG", compress_level=1)
            target.with_suffix(".txt").write_text(photo.caption, encoding="utf-8")
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _taken(folder: Path, target: Path) -> Path:
    """The one file that SaveLoRA left, moved to where it belongs."""
    found = sorted(folder.glob("lora_*.safetensors")) if folder.is_dir() else []
    if len(found) != 1:
        raise TrainingFailed("ComfyUI ended the training without a LoRA file.")
    shutil.move(found[0], target)
    return target
