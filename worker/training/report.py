"""What is kept of a training, as documents; pure.

Two of them: the *notes*, written to the bucket before the character is registered, so that any
worker can finish the job; and the *report*, written last, whose presence says that all is done.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from worker.contract import TrainJob
from worker.training.captions import length_warning
from worker.training.dataset import GOOD_PHOTOS
from worker.training.defaults import chosen
from worker.training.trainer import TrainingSpec

REPORT_VERSION: Final = 1
_SHOWN: Final = (
    "steps",
    "rank",
    "alpha",
    "learning_rate",
    "resolution",
    "batch_size",
    "gradient_checkpointing",
    "seed",
    "class_noun",
)


def settings_of(job: TrainJob, spec: TrainingSpec, trainer: str, base_model: str) -> dict[str, Any]:
    """What was trained with, and why where the job did not say."""
    values = asdict(spec)
    return {
        "trainer": trainer,
        "base_model": base_model,
        **{name: values[name] for name in _SHOWN},
        "defaults": chosen(job),
    }


def metadata_of(
    spec: TrainingSpec, character_id: str, digest: str, trainer: str, base_model: str
) -> dict[str, str]:
    """What goes into the weights' header; text only, and the same for a retried job."""
    return {
        "character_id": character_id,
        "trigger": spec.trigger,
        "class_noun": spec.class_noun,
        "base_model": base_model,
        "dataset_digest": digest,
        "steps": str(spec.steps),
        "trainer": trainer,
        "modelspec.trigger_phrase": spec.trigger,
        "ss_network_dim": str(spec.rank),
        "ss_network_alpha": f"{spec.alpha:g}",
    }


def warnings_of(dataset: Mapping[str, Any], trigger: str | None) -> list[str]:
    """Sentences about what makes a character worse than it could be."""
    photos: Sequence[Mapping[str, Any]] = dataset["photos"]
    used = sum(photo["verdict"] != "rejected" for photo in photos)
    warned = sum(photo["verdict"] == "warned" for photo in photos)
    sentences = [trigger] if trigger else []
    if used < GOOD_PHOTOS:
        sentences.append(f"Only {used} photos were usable; {GOOD_PHOTOS} or more are better.")
    if used < len(photos):
        sentences.append(f"{len(photos) - used} of {len(photos)} photos were rejected.")
    if warned:
        sentences.append(f"{warned} photos have weaknesses; dataset.photos says which.")
    longer = length_warning(photo.get("caption", "") for photo in photos)
    if longer:
        sentences.append(longer)
    if unused := dataset.get("unused_count"):
        sentences.append(f"{unused} files were not used; dataset.unused says which and why.")
    return sentences


def notes(
    settings: Mapping[str, Any],
    dataset: Mapping[str, Any],
    check: Mapping[str, Any],
    warnings: Sequence[str],
) -> dict[str, Any]:
    """What the report needs and only the training worker knows, but for the losses."""
    return {
        "report_version": REPORT_VERSION,
        "training": dict(settings),
        "dataset": dict(dataset),
        "check": dict(check),
        "warnings": list(warnings),
    }


def report(
    known: Mapping[str, Any],
    previews: Mapping[str, Any],
    outputs: Sequence[Mapping[str, Any]],
    character: Mapping[str, Any],
) -> dict[str, Any]:
    """The whole of a finished training; keys of the bucket, never URLs, since those expire."""
    outputs = [
        {name: value for name, value in output.items() if name not in {"url", "expires_at"}}
        for output in outputs
    ]
    return {**known, "previews": dict(previews), "outputs": outputs, "character": dict(character)}
