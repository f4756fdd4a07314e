"""Instant characters: photos of a person, kept as references for workflows that take those."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from PIL import Image

from lora_registry.character import CharacterRecord
from lora_registry.references import MAX_REFERENCES, NewCharacter, NewReference
from worker import media
from worker.contract import CharactersJob, TrainJob
from worker.resources import JobContext, Resources
from worker.training.trainer import PreparedDataset

MAX_SIDE: Final = 1536  # of a reference; workflows bring it to about a megapixel
_QUALITY: Final = 95


def create(job: CharactersJob, resources: Resources, context: JobContext) -> CharacterRecord:
    """Register the photos of a job; nothing is kept unless all of them can be.

    Raises:
        SourceForbidden, SourceUnreachable, ImageRejected, InvalidInput: with the photo's field.
        CharacterDeleted, InvalidRequest, WriteConflict, StoreError, Cancelled.
    """
    photos = []
    check_cancelled = context.cancel.check
    given = job.references or []
    for number, source in enumerate(given):
        context.progress.report("fetching", 5 + 70 * number / len(given))
        field = f"references.{number}"
        with context.timings.phase("fetch"):
            body = resources.sources.read(source, field=field, check_cancelled=check_cancelled)
            image = resources.pictures.decode(
                body, field=field, max_side=MAX_SIDE, check_cancelled=check_cancelled
            ).image
        photos.append(_reference(image, context.folder / f"reference-{number}.jpg"))
    context.progress.report("uploading", 75)
    new = NewCharacter(
        character_id=job.character_id or "",
        job_id=context.job_id,
        photos=photos,
        trigger=job.trigger,
        class_noun=job.class_noun,
        name=job.name,
    )
    with context.timings.phase("upload"):
        return resources.registry.create(new, check_cancelled=check_cancelled)


def create_from_dataset(
    job: TrainJob,
    dataset: PreparedDataset,
    words: tuple[str, str],
    resources: Resources,
    context: JobContext,
) -> None:
    """Register the first photos of a training's dataset, so that it can be used meanwhile.

    Args:
        job: the train job.
        dataset: its photos; the first count, since callers send the best first.
        words: trigger and class noun.
        resources: the worker's.
        context: the job's.

    Raises:
        CharacterDeleted, WriteConflict, StoreError, Cancelled.
    """
    trigger, class_noun = words
    new = NewCharacter(
        character_id=job.character_id,
        job_id=context.job_id,
        photos=list(_photos(dataset, context.folder)),
        trigger=trigger,
        class_noun=class_noun,
        name=job.name,
    )
    resources.registry.create(new, check_cancelled=context.cancel.check)


def _photos(dataset: PreparedDataset, folder: Path) -> Iterable[NewReference]:
    for number, photo in enumerate(dataset.photos[:MAX_REFERENCES]):
        with Image.open(photo.path) as image:
            yield _reference(image.convert("RGB"), folder / f"reference-{number}.jpg")


def _reference(image: Image.Image, path: Path) -> NewReference:
    path.write_bytes(media.encode(image, "jpeg", _QUALITY))
    return NewReference(path, image.width, image.height)
