"""What is kept of a training: one typed record, in the bucket from before the registration on.

Whoever finds a registered version without a report reads its record and finishes the job; the
report is the record with what came after, and its presence says that all is done.
"""

from dataclasses import asdict
from typing import Any, Final

from pydantic import Field

from families.training import Training
from lora_registry.character import VersionLikeness
from lora_registry.identity import FaceIdentity
from worker.contract import TrainJob
from worker.results import CharacterResult, Result, StoredOutput
from worker.training.captions import length_warning
from worker.training.dataset import GOOD_PHOTOS
from worker.training.defaults import chosen
from worker.training.trainer import TrainingSpec
from worker.training_results import (
    DatasetResult,
    GateResult,
    LoraCheckResult,
    PreviewsResult,
    TrainingSettings,
)

REPORT_VERSION: Final = 1


class TrainingRecord(Result):
    """What only the worker that trained knows; `losses` are steps with the loss at each.

    `identity` goes into a document of its own beside the report, and not into the report.
    """

    report_version: int = REPORT_VERSION
    training: TrainingSettings
    dataset: DatasetResult
    check: LoraCheckResult
    warnings: list[str] = Field(default_factory=list)
    losses: list[tuple[int, float]] = Field(default_factory=list)
    identity: FaceIdentity | None = None
    gate: GateResult | None = None

    def kept(self) -> dict[str, Any]:
        """What the version's own document says of it: small, since every job may read it."""
        return {
            "trainer": self.training.trainer,
            "steps": (self.gate and self.gate.step) or self.training.steps,
            "alpha": self.training.alpha,
            "dataset_digest": self.dataset.digest,
            "photos": sum(photo.verdict != "rejected" for photo in self.dataset.photos),
        }


class TrainingReport(TrainingRecord):
    """The whole of a finished training; keys of the bucket, never URLs, since those expire."""

    previews: PreviewsResult
    outputs: list[StoredOutput]
    character: CharacterResult


def settings_of(
    job: TrainJob, spec: TrainingSpec, trainer: str, base: str, recipe: Training
) -> TrainingSettings:
    """What was trained with, and why where the job did not say."""
    shown = set(TrainingSettings.model_fields) & set(asdict(spec))
    values = {name: getattr(spec, name) for name in shown}
    return TrainingSettings(
        trainer=trainer, base_model=base, defaults=chosen(job, recipe), **values
    )


def metadata_of(
    spec: TrainingSpec, character_id: str, digest: str | None, trainer: str, base_model: str
) -> dict[str, str]:
    """What goes into the weights' header; text only, and the same for a retried job."""
    return {
        "character_id": character_id,
        "trigger": spec.trigger,
        "class_noun": spec.class_noun,
        "base_model": base_model,
        "dataset_digest": digest or "",
        "steps": str(spec.steps),
        "trainer": trainer,
        "modelspec.trigger_phrase": spec.trigger,
        "ss_network_dim": str(spec.rank),
        "ss_network_alpha": f"{spec.alpha:g}",
    }


def warnings_of(dataset: DatasetResult, trigger: str | None) -> list[str]:
    """Sentences about what makes a character worse than it could be."""
    photos = dataset.photos
    used = sum(photo.verdict != "rejected" for photo in photos)
    warned = sum(photo.verdict == "warned" for photo in photos)
    sentences = [trigger] if trigger else []
    if used < GOOD_PHOTOS:
        sentences.append(f"Only {used} photos were usable; {GOOD_PHOTOS} or more are better.")
    if used < len(photos):
        sentences.append(f"{len(photos) - used} of {len(photos)} photos were rejected.")
    if warned:
        sentences.append(f"{warned} photos have weaknesses; dataset.photos says which.")
    longer = length_warning([photo.caption or "" for photo in photos])
    if longer:
        sentences.append(longer)
    if dataset.unused_count:
        sentences.append(
            f"{dataset.unused_count} files were not used; dataset.unused says which and why."
        )
    return sentences


def version_likeness(record: TrainingRecord) -> VersionLikeness | None:
    """What the version's document says of it."""
    gate, identity = record.gate, record.identity
    if gate is None or gate.likeness is None or identity is None:
        return None
    chosen = next(one for one in gate.strengths if one.chosen)
    return VersionLikeness(
        score=gate.likeness,
        by_prompt=dict(zip(gate.prompts, chosen.by_prompt, strict=True)),
        scorer=identity.scorer,
        scorer_version=identity.scorer_version,
        photos=identity.photos,
        step=chosen.step,
    )


def settled(record: TrainingRecord, gate: GateResult, least: float | None) -> TrainingRecord:
    """The record with what was chosen, and a sentence where that is not alike enough."""
    warnings = list(record.warnings)
    if least is not None and gate.likeness is None:
        warnings.append(f"likeness_gate was not applied: not measured, {gate.not_measured}.")
    if closed(gate, least):
        warnings.append(
            f"The version was not activated: its likeness of {gate.likeness:.2f} is below "
            f"likeness_gate {least:g}; activate it if you like it."
        )
    return record.model_copy(update={"gate": gate, "warnings": warnings})


def closed(gate: GateResult | None, least: float | None) -> bool:
    """Whether a version is less alike than its job wants."""
    measured = gate.likeness if gate is not None else None
    return least is not None and measured is not None and measured < least
