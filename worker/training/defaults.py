"""What a training job leaves out, decided here and nowhere else; each rule with its source.

Everything is a pure function of the job, the number of usable photos and the GPU's memory.
`EXPLAINED` goes into the report, so that a user sees why a value was chosen.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from families.training import Tier, Training
from worker.contract import TrainJob
from worker.errors import InvalidInput
from worker.training.trainer import TrainingSpec

STEPS_PER_PHOTO: Final = 80
MIN_STEPS: Final = 800
MAX_STEPS: Final = 3000
MAX_SAVE_EVERY: Final = 400
KOHYA_RANK: Final = 32
KOHYA_LEARNING_RATE: Final = 1e-4
COMFYUI_RANK: Final = 16
COMFYUI_LEARNING_RATE: Final = 5e-4
COMFYUI_ALPHA: Final = 1.0

EXPLAINED: Final[Mapping[str, str]] = {
    "steps": (
        f"{STEPS_PER_PHOTO} per photo over the batch size, between {MIN_STEPS} and {MAX_STEPS}: "
        "below it a likeness does not form, above it one subject is memorized (common practice)."
    ),
    "rank": (
        f"kohya {KOHYA_RANK}: enough for one subject, 170 MB at fp16 (measured); "
        f"comfyui {COMFYUI_RANK}: twice its node's own default."
    ),
    "alpha": (
        "kohya: half the rank, the usual scale of 0.5; comfyui: 1 at the start, its node has no "
        "choice and trains it along (measured)."
    ),
    "learning_rate": (
        f"kohya {KOHYA_LEARNING_RATE:g} with AdamW and a cosine schedule (common practice for "
        f"SDXL); comfyui {COMFYUI_LEARNING_RATE:g}, its node's own default."
    ),
    "resolution": "1024, what SDXL was trained at; 768 below 12 GB of GPU memory (an estimate).",
    "batch_size": (
        "4 without gradient checkpointing from 70 GB of GPU memory (measured by others on 80 GB); "
        "2 from 40 GB and 1 below, with gradient checkpointing (estimates on the safe side); "
        "never more than the photos there are."
    ),
    "seed": "From the job's id, so that a retried job trains the same again.",
    "save_every": f"Half of the steps, at most {MAX_SAVE_EVERY}: what a crash can cost.",
}


TIERS: Final = (
    Tier(memory_gb=70, resolution=1024, batch_size=4, gradient_checkpointing=False),
    Tier(memory_gb=40, resolution=1024, batch_size=2, gradient_checkpointing=True),
    Tier(memory_gb=12, resolution=1024, batch_size=1, gradient_checkpointing=True),
    Tier(memory_gb=0, resolution=768, batch_size=1, gradient_checkpointing=True),
)
"""SDXL's, and those of a family that names none."""
UNKNOWN_GPU: Final = 2  # the tier of a GPU that nobody could ask, where there are so many
FROM_RECIPE: Final = "What the base model's family.toml says."


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the defaults follow from; `gpu_memory` in bytes, None where there is no GPU.

    `rank` and `learning_rate` are the family's for the trainer, None where it names none.
    """

    job_id: str
    photos: int
    gpu_memory: int | None
    trigger: str
    class_noun: str
    deadline_s: float
    tiers: Sequence[Tier] = TIERS
    rank: int | None = None
    learning_rate: float | None = None


def tier_of(gpu_memory: int | None, tiers: Sequence[Tier] = TIERS) -> Tier:
    """The tier of a GPU with so many bytes of memory."""
    if gpu_memory is None:
        return tiers[min(UNKNOWN_GPU, len(tiers) - 1)]
    return next(tier for tier in tiers if gpu_memory >= tier.memory_gb * 1e9)


def resolution_of(job: TrainJob, gpu_memory: int | None, tiers: Sequence[Tier] = TIERS) -> int:
    """The resolution to train at; known before the photos are, which are scaled to it."""
    return job.resolution or tier_of(gpu_memory, tiers).resolution


def plan(job: TrainJob, known: Circumstances) -> TrainingSpec:
    """Decide every value of a training.

    Raises:
        InvalidInput: the job asks for what its trainer cannot do.
    """
    if job.trainer == "comfyui" and job.alpha not in (None, COMFYUI_ALPHA):
        raise InvalidInput(
            "alpha: the comfyui trainer always begins at alpha 1; leave alpha out or use kohya.",
            field="alpha",
        )
    tier = tier_of(known.gpu_memory, known.tiers)
    batch_size = job.batch_size or min(tier.batch_size, known.photos)
    steps = job.steps or default_steps(known.photos, batch_size)
    rank = job.rank or known.rank or (KOHYA_RANK if job.trainer == "kohya" else COMFYUI_RANK)
    return TrainingSpec(
        name=f"{job.character_id}-{short_digest(known.job_id)}",
        trigger=known.trigger,
        class_noun=known.class_noun,
        steps=steps,
        rank=rank,
        alpha=job.alpha or (rank / 2 if job.trainer == "kohya" else COMFYUI_ALPHA),
        learning_rate=job.learning_rate or known.learning_rate or _learning_rate(job),
        resolution=resolution_of(job, known.gpu_memory, known.tiers),
        batch_size=batch_size,
        gradient_checkpointing=tier.gradient_checkpointing or batch_size > tier.batch_size,
        seed=_seed(job, known.job_id),
        save_every=max(1, min(MAX_SAVE_EVERY, steps // 2)),
        deadline_s=known.deadline_s,
    )


def default_steps(photos: int, batch_size: int) -> int:
    """Steps for so many photos at that batch size."""
    return min(MAX_STEPS, max(MIN_STEPS, STEPS_PER_PHOTO * photos // batch_size))


def chosen(job: TrainJob, recipe: Training | None = None) -> dict[str, str]:
    """The defaults that a job was given, each with the rule it follows."""
    rules = dict(EXPLAINED)
    if recipe is not None and recipe.tiers:
        rules |= dict.fromkeys(("resolution", "batch_size"), FROM_RECIPE)
    engine = getattr(recipe, job.trainer, None)
    for name in ("rank", "learning_rate"):
        if getattr(engine, name, None) is not None:
            rules[name] = FROM_RECIPE
    return {name: why for name, why in rules.items() if getattr(job, name, None) is None}


def short_digest(text: str) -> str:
    """Twelve hex digits that name a text where it must be safe in a file name."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _learning_rate(job: TrainJob) -> float:
    return KOHYA_LEARNING_RATE if job.trainer == "kohya" else COMFYUI_LEARNING_RATE


def _seed(job: TrainJob, job_id: str) -> int:
    """The job's seed below 2**32: numpy, which sd-scripts seeds too, takes no more."""
    given = job.seed if job.seed is not None else int(short_digest(job_id), 16)
    return given % 2**32
