"""The train branch: photos in, a registered and previewed character out.

Run again with the same job id after a crash at any point, it continues: what was registered is not
trained again, what was trained is not trained again, what was reported is answered again.
"""

import contextlib
import json
from typing import Any

from lora_registry.character import CharacterRecord, CharacterVersion
from lora_registry.errors import CharacterDeleted, CharacterNotFound
from lora_registry.store import StoreError
from lora_registry.versions import NewVersion
from worker.contract import TrainJob
from worker.loras import examine
from worker.resources import JobContext, Resources
from worker.results import TrainResult
from worker.training import delivery
from worker.training.captions import derived_trigger
from worker.training.preparation import TrainingWork
from worker.training.production import Trained, train_character
from worker.training.stages import TrainingStages
from worker.training.workdir import TrainingFolder


def run(job: TrainJob, resources: Resources, context: JobContext) -> TrainResult:
    """Train, register and preview a character.

    Raises:
        DatasetRejected, TrainingFailed, TrainingDiverged, OutOfMemory, DiskFull, Cancelled, …:
            nothing is registered then, and nothing is left on the disk.
    """
    stages = TrainingStages(context.progress)
    head = _head(job.character_id, resources)
    version = _made_before(job, resources, context)
    if version is None:
        with TrainingFolder(resources.settings.work_dir / "training", context.job_id) as folder:
            trigger = job.trigger or (head.trigger if head else derived_trigger(job.character_id))
            work = TrainingWork(job, trigger, resources, context, folder, stages)
            version = _register(work, train_character(work))
    return delivery.deliver(job, version, resources, context, stages)


def _head(character_id: str, resources: Resources) -> CharacterRecord | None:
    """The character as it is; a deleted one is refused before anything is trained."""
    try:
        return resources.registry.get(character_id)
    except CharacterDeleted:
        raise
    except CharacterNotFound:
        return None


def _made_before(
    job: TrainJob, resources: Resources, context: JobContext
) -> CharacterVersion | None:
    """The version that an earlier run of this job registered, its head written by now."""
    version = resources.registry.made_by(job.character_id, context.job_id)
    if version is not None:
        resources.registry.adopt(version, name=job.name, activate=job.activate)
    return version


def _register(work: TrainingWork, trained: Trained) -> CharacterVersion:
    """Weights, version, head; what the report needs lies in the bucket before, or not at all."""
    job, resources, context = work.job, work.resources, work.context
    work.stages.at("registering")
    found = examine(trained.weights, resources.recogniser, check_cancelled=context.cancel.check)
    new = NewVersion(
        character_id=job.character_id,
        job_id=context.job_id,
        weights=trained.weights,
        base_model=found.base_model,
        format=found.format,
        rank=found.rank,
        trigger=work.trigger,
        class_noun=job.class_noun,
        name=job.name,
        training=_kept(trained.notes),
    )
    key = delivery.notes_key(job.character_id, context.job_id)
    with context.timings.phase("registering"):
        resources.store.put(key, json.dumps(trained.notes).encode())
        try:
            return resources.registry.add_version(
                new, activate=job.activate, check_cancelled=context.cancel.check
            )
        except BaseException:
            with contextlib.suppress(StoreError):  # the registration's own failure matters
                resources.store.delete(key)
            raise


def _kept(notes: dict[str, Any]) -> dict[str, Any]:
    """What the version's own document says of its training: small, since every job may read it."""
    return {
        "trainer": notes["training"]["trainer"],
        "steps": notes["training"]["steps"],
        "alpha": notes["training"]["alpha"],
        "dataset_digest": notes["dataset"]["digest"],
        "photos": sum(photo["verdict"] != "rejected" for photo in notes["dataset"]["photos"]),
    }
