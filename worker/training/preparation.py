"""From a train job's photos to a captioned dataset on our disk."""

from typing import Final

from worker.results import DatasetResult
from worker.training.captions import TemplateCaptioner
from worker.training.dataset import (
    judge_photos,
    manifest,
    require_enough,
    restored,
    write_captions,
)
from worker.training.defaults import resolution_of
from worker.training.fetching import Limits, fetch_archive, fetch_photos
from worker.training.tagger import load_tagger
from worker.training.trainer import PreparedDataset
from worker.training.work import TrainingWork

_DATASET: Final = "dataset.json"
_PHOTOS: Final = "photos"


def prepare(work: TrainingWork) -> tuple[PreparedDataset, DatasetResult]:
    """The dataset and its description; what an earlier run of this job finished is not done again.

    Raises:
        DatasetRejected: the archive is unusable, or too few photos are; with all verdicts.
        SourceForbidden, SourceUnreachable, InvalidInput, StoreError, Cancelled.
    """
    known = work.folder.load(_DATASET, DatasetResult)
    if known is not None:
        photos = work.folder.path / _PHOTOS
        return restored(known, photos), known
    job, check_cancelled = work.job, work.context.cancel.check
    settings, sources = work.resources.settings, work.resources.sources
    limits = Limits(
        resolution=resolution_of(job, work.gpu_memory),
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
    require_enough(judged, "archive" if job.images is None else "images")
    # The tagger where its files are in the image, else the same two words for every photo.
    captioner = load_tagger(settings.tagger_dir) or TemplateCaptioner(work.trigger, work.class_noun)
    with work.context.timings.phase("captions"):
        words = (work.trigger, work.class_noun)
        dataset = write_captions(judged, fetched.photos, captioner, words, work.on_caption)
    described = manifest(dataset, judged.verdicts, captioner.name, fetched.unused)
    work.folder.save(_DATASET, described)
    return dataset, described
