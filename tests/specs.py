"""The small training that unit and integration tests share."""

from families.training import ComfyUIRecipe, KohyaRecipe
from tests.loras import FAMILIES
from worker.training.trainer import TrainingSpec


def sdxl_kohya() -> KohyaRecipe:
    """How sd-scripts trains SDXL."""
    recipe = FAMILIES["sdxl"].training
    assert recipe is not None
    assert recipe.kohya is not None
    return recipe.kohya


def sdxl_comfyui() -> ComfyUIRecipe:
    """How ComfyUI trains SDXL."""
    recipe = FAMILIES["sdxl"].training
    assert recipe is not None
    assert recipe.comfyui is not None
    return recipe.comfyui


def small_spec() -> TrainingSpec:
    return TrainingSpec(
        name="mira-0123456789ab",
        trigger="mrzkqv",
        class_noun="person",
        steps=12,
        rank=2,
        alpha=1.0,
        learning_rate=1e-4,
        resolution=512,
        batch_size=2,
        gradient_checkpointing=False,
        seed=7,
        save_every=5,
        deadline_s=60.0,
    )
