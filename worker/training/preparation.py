"""From a train job's photos to a captioned dataset on our disk."""

from typing import Final

from PIL import Image

from lora_registry import layout
from worker.errors import DatasetRejected
from worker.generation.delivery import upload_file
from worker.training.captions import TemplateCaptioner
from worker.training.dataset import (
    Judged,
    judge_photos,
    manifest,
    require_enough,
    restored,
    write_captions,
)
from worker.training.defaults import TIERS, resolution_of
from worker.training.fetching import Limits, fetch_archive, fetch_photos
from worker.training.people import Looked, contact_sheet, look
from worker.training.photos import MIN_SHORT_SIDE
from worker.training.tagger import load_tagger
from worker.training.trainer import PreparedDataset
from worker.training.work import TrainingWork
from worker.training_results import DatasetResult, SubjectResult

IDENTITY: Final = "identity.json"
"""The subject's face in the training's folder, for the record; absent where it is no person."""
REFERENCE: Final = "reference.png"
"""A small copy of the most typical photo, for the sheet of checkpoints."""
REFERENCE_SIDE: Final = 512
_DATASET: Final = "dataset.json"
_PHOTOS: Final = "photos"


def prepare(work: TrainingWork) -> tuple[PreparedDataset, DatasetResult]:
    """The dataset and its description; what an earlier run of this job finished is not done again.

    Raises:
        DatasetRejected: the archive is unusable, too few photos are, or they show two people; with
            all verdicts.
        SourceForbidden, SourceUnreachable, InvalidInput, StoreError, Cancelled.
    """
    known = work.folder.load(_DATASET, DatasetResult)
    if known is not None:
        photos = work.folder.path / _PHOTOS
        return restored(known, photos), known
    job, check_cancelled = work.job, work.context.cancel.check
    settings, sources = work.resources.settings, work.resources.sources
    limits = Limits(
        resolution=resolution_of(job, work.gpu_memory, work.recipe.tiers or TIERS),
        photo_bytes=settings.source_max_bytes,
        archive_bytes=settings.archive_max_bytes,
    )
    work.progress.at("photos")
    with work.context.timings.phase("photos"):
        incoming = work.folder.fresh("incoming")
        if job.archive is not None:
            fetched = fetch_archive(
                job.archive, sources, incoming, limits, check_cancelled, work.on_fetched
            )
        else:
            pool = work.resources.pool
            fetched = fetch_photos(
                job.images or [], sources, incoming, limits, pool, check_cancelled
            )
        judged = judge_photos(
            fetched.photos,
            work.folder.fresh(_PHOTOS),
            limits,
            work.resources.pictures,
            check_cancelled,
            work.on_judged,
        )
        looked = _looked(work, judged, limits)
    require_enough(looked.judged, "archive" if job.images is None else "images")
    # The tagger where its files are in the image, else the same two words for every photo; models
    # that read sentences are not told what they are by tags.
    tagger = load_tagger(settings.tagger_dir) if work.recipe.captions == "tags" else None
    captioner = tagger or TemplateCaptioner(work.trigger, work.class_noun)
    with work.context.timings.phase("captions"):
        words = (work.trigger, work.class_noun)
        dataset = write_captions(looked.judged, fetched.photos, captioner, words, work.on_caption)
    described = manifest(dataset, looked.judged.verdicts, captioner.name, fetched.unused)
    described = described.model_copy(update=_likeness(looked))
    _keep_face(work, looked)
    work.folder.save(_DATASET, described)
    return dataset, described


def _looked(work: TrainingWork, judged: Judged, limits: Limits) -> Looked:
    """The photos judged by whom they show.

    Raises:
        DatasetRejected: two people about equally, with a sheet of their faces.
    """
    scorer = work.resources.scorer
    if scorer.lacking is not None:
        return Looked(judged, not_measured=scorer.lacking)
    looked = look(
        judged,
        scorer,
        min(MIN_SHORT_SIDE, limits.resolution),
        crop=work.job.crop == "auto",
        check_cancelled=work.context.cancel.check,
        on_share=work.on_looked,
    )
    if looked.two is None:
        return looked
    path = work.context.folder / "people.png"
    contact_sheet(looked).save(path)
    # The name of no version, so that a sweep takes it away once it is old.
    part = layout.job_part(work.context.job_id)
    key = f"{layout.folder(work.job.character_id)}training/{part}.people.png"
    sheet = upload_file(work.resources, work.context, path, key, kind="sheet")
    shown = (len(looked.two.first), len(looked.two.second))
    raise DatasetRejected(
        f"The photos show two people about equally: one in {shown[0]}, the other in {shown[1]} "
        f"of {len(judged.photos)}; send photos of one person. details.sheet shows whom.",
        field="archive" if work.job.images is None else "images",
        details={
            "sheet": sheet.to_json(),
            "photos": [verdict.as_json() for verdict in judged.verdicts],
        },
    )


def _keep_face(work: TrainingWork, looked: Looked) -> None:
    """The subject's face, as numbers and as a small picture, for the steps to come."""
    if looked.identity is not None:
        work.folder.save(IDENTITY, looked.identity)
    if looked.reference is not None:
        with Image.open(looked.reference) as image:
            image.thumbnail((REFERENCE_SIDE, REFERENCE_SIDE))
            image.save(work.folder.path / REFERENCE)


def _likeness(looked: Looked) -> dict[str, object]:
    """What the dataset's description says of its subject."""
    identity = looked.identity
    if identity is None:
        return {"not_measured": looked.not_measured}
    return {
        "subject": SubjectResult(
            photos=identity.photos,
            likeness=identity.typical,
            scorer=identity.scorer,
            scorer_version=identity.scorer_version,
        )
    }
