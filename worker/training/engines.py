"""Which engine trains a job: its recipe, its checkpoint, its trainer, and the GPU for it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from families.training import Training
from worker.contract import TrainJob
from worker.errors import InvalidInput
from worker.resources import Resources
from worker.settings import Settings, default_python
from worker.training.comfyui import ComfyUIPlaces, ComfyUITrainer
from worker.training.handover import engine_restored, gpu_released
from worker.training.kohya import KohyaTrainer
from worker.training.kohya_command import KohyaOptions
from worker.training.trainer import Trainer
from worker.training.weights import find_checkpoint
from worker.training.work import TrainingWork


def recipe_of(job: TrainJob, resources: Resources) -> Training:
    """How the family that a job names is trained. Raises InvalidInput where nothing does."""
    family = resources.families[job.base_model]
    if family.training is None:
        raise InvalidInput(
            f"base_model: nothing here trains {family.title}; train it elsewhere and register "
            "the LoRA.",
            field="base_model",
        )
    return family.training


def checkpoint_of(recipe: Training, settings: Settings) -> str:
    """The model to train, as folder and file below a models folder."""
    return recipe.checkpoint or f"checkpoints/{settings.train_checkpoint}"


def trainer_of(
    job: TrainJob, recipe: Training, resources: Resources, comfyui_version: str
) -> Trainer:
    """The trainer that a job asks for. Raises InvalidInput where it does not train that family."""
    settings, engine = resources.settings, resources.engine
    checkpoint = checkpoint_of(recipe, settings)
    if job.trainer == "comfyui" and recipe.comfyui is not None:
        places = ComfyUIPlaces(
            checkpoint=checkpoint.partition("/")[2],
            input_directory=engine.input_directory,
            output_directory=engine.output_directory,
            version=comfyui_version,
            recipe=recipe.comfyui,
        )
        return ComfyUITrainer(resources.comfyui, places)
    if job.trainer == "kohya" and recipe.kohya is not None:

        def found(name: str) -> Path:
            return find_checkpoint(name, settings.model_folders) or Path(name)

        return KohyaTrainer(
            KohyaOptions(
                folder=settings.kohya_dir,
                python=default_python(settings.kohya_dir, settings.kohya_python),
                checkpoint=found(checkpoint),
                tokenizers=settings.kohya_tokenizers,
                recipe=recipe.kohya,
                models={option: found(name) for option, name in recipe.kohya.models.items()},
            )
        )
    raise InvalidInput(
        f"trainer: {job.base_model} is trained by {' or '.join(recipe.engines)} here; say so.",
        field="trainer",
        details={"base_model": job.base_model, "trainers": list(recipe.engines)},
    )


@contextlib.contextmanager
def gpu_of(work: TrainingWork) -> Iterator[None]:
    """The GPU for the trainer: ComfyUI unloads its models for a process that is not its own."""
    engine, comfyui, cancel = work.resources.engine, work.resources.comfyui, work.context.cancel
    if work.job.trainer == "kohya":
        with gpu_released(engine, comfyui, cancel):
            yield
    else:
        with engine_restored(engine):
            yield
