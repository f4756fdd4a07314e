"""From a train job's photos to a captioned dataset on our disk."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from worker.contract import TrainJob
from worker.resources import JobContext, Resources
from worker.training.captions import Captioner, TemplateCaptioner
from worker.training.dataset import (
    judge_photos,
    manifest,
    require_enough,
    restored,
    unused_files,
    write_captions,
)
from worker.training.fetching import FetchedPhotos, Limits, fetch_archive, fetch_photos
from worker.training.stages import TrainingStages
from worker.training.tagger import load_tagger
from worker.training.trainer import PreparedDataset
from worker.training.workdir import TrainingFolder

_DATASET: Final = "dataset.json"
_PHOTOS: Final = "photos"


@dataclass(frozen=True, slots=True)
class TrainingWork:
    """One train job and everything its steps share."""

    job: TrainJob
    trigger: str
    resources: Resources
    context: JobContext
    folder: TrainingFolder
    stages: TrainingStages


def prepared_dataset(work: TrainingWork, resolution: int) -> tuple[PreparedDataset, dict[str, Any]]:
    """The dataset and its manifest; what an earlier run of this job finished is not done again.

    Raises:
        DatasetRejected: the archive is unusable, or too few photos are; with all verdicts.
        SourceForbidden, SourceUnreachable, InvalidInput, StoreError, Cancelled.
    """
    described = work.folder.noted(_DATASET)
    if described is not None:
        return restored(described, work.folder.path / _PHOTOS), described
    dataset, described = _prepare(work, resolution)
    work.folder.note(_DATASET, described)
    return dataset, described


def _prepare(work: TrainingWork, resolution: int) -> tuple[PreparedDataset, dict[str, Any]]:
    check_cancelled, stages, timings = work.context.cancel.check, work.stages, work.context.timings
    limits = _limits(work, resolution)
    stages.at("photos")
    with timings.phase("photos"):
        fetched = _fetch(work, limits)
        judged = judge_photos(
            fetched.photos,
            work.folder.fresh(_PHOTOS),
            limits,
            work.resources.pictures,
            check_cancelled,
            lambda done: stages.at("photos", (1 + done) / 2),
        )
    require_enough(judged, "archive" if work.job.images is None else "images")
    captioner = _captioner(work)

    def on_photo(share: float) -> None:
        check_cancelled()
        stages.at("captions", share)

    with timings.phase("captions"):
        words = (work.trigger, work.job.class_noun)
        dataset = write_captions(judged, fetched.photos, captioner, words, on_photo)
    described = manifest(dataset, judged.verdicts) | {"captioner": captioner.name}
    return dataset, described | unused_files(fetched.unused)


def _limits(work: TrainingWork, resolution: int) -> Limits:
    settings = work.resources.settings
    return Limits(
        resolution=resolution,
        photo_bytes=settings.source_max_bytes,
        archive_bytes=settings.archive_max_bytes,
    )


def _fetch(work: TrainingWork, limits: Limits) -> FetchedPhotos:
    folder: Path = work.folder.fresh("incoming")
    sources, check_cancelled = work.resources.sources, work.context.cancel.check
    if work.job.archive is not None:
        return fetch_archive(
            work.job.archive,
            sources,
            folder,
            limits,
            check_cancelled,
            lambda share: work.stages.at("photos", share / 2),
        )
    photos = work.job.images or []
    return fetch_photos(photos, sources, folder, limits, work.resources.pool, check_cancelled)


def _captioner(work: TrainingWork) -> Captioner:
    """The tagger where its files are in the image, else the template."""
    tagger = load_tagger(work.resources.settings.tagger_dir)
    return tagger or TemplateCaptioner(work.trigger, work.job.class_noun)
