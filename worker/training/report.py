"""The end of a training job: previews, curve, documents, and the result. Any worker can do it."""

import contextlib
import io
import logging
from functools import partial
from pathlib import Path
from typing import TypeVar

from PIL import Image
from pydantic import ValidationError

from lora_registry import layout
from lora_registry.character import CharacterVersion
from lora_registry.store import ObjectMissing
from worker.contract import TrainJob
from worker.generation.delivery import upload_file
from worker.resources import JobContext, Resources
from worker.results import CharacterResult, ManifestResult, OutputResult, Result, StoredOutput
from worker.storage.upload import content_type_for
from worker.training import previews
from worker.training.drawing import draw_curve, draw_sheet
from worker.training.previews import Previews
from worker.training.record import TrainingRecord, TrainingReport
from worker.training.work import TrainingProgress
from worker.training_results import (
    DatasetResult,
    GateResult,
    LoraCheckResult,
    PreviewResult,
    PreviewsResult,
    TrainedCharacterResult,
    TrainingSettings,
    TrainResult,
)

log = logging.getLogger(__name__)

_R = TypeVar("_R", bound=Result)


def record_key(character_id: str, job_id: str) -> str:
    """Where a training's record lies from before its registration until its report is written."""
    return f"{layout.folder(character_id)}training/{layout.job_part(job_id)}.record.json"


def sheet_key(character_id: str, job_id: str) -> str:
    """Where the sheet of a training's checkpoints lies until its report is written."""
    return f"{layout.folder(character_id)}training/{layout.job_part(job_id)}.checkpoints.png"


def report(
    job: TrainJob,
    version: CharacterVersion,
    record: TrainingRecord | None,
    resources: Resources,
    context: JobContext,
    progress: TrainingProgress,
) -> TrainResult:
    """Write the report, unless an earlier run of the job did, and return the job's result.

    Everything goes below one prefix of the bucket, the report last: its presence says that all is
    done.

    Args:
        job: the train job.
        version: what it registered.
        record: of the training; None when an earlier run trained, whose record is read back then.
        resources: the worker's.
        context: the job's.
        progress: the job's.

    Raises:
        Cancelled, StoreError: the character stays registered; the same job, run again, goes on.
    """
    prefix = layout.training_prefix(job.character_id, version.id)
    key = f"{prefix}report.json"
    written = _read(resources, key, TrainingReport)
    if written is None:
        kept = record_key(job.character_id, context.job_id)
        record = record or _read(resources, kept, TrainingRecord) or _without_record(version)
        if record.identity is not None:
            resources.identities.put(job.character_id, version.id, record.identity)
        measured = record.gate is not None and record.gate.likeness is not None
        shown = (
            Previews((), "")
            if measured
            else _previews(job, version, record, resources, context, progress)
        )
        progress.at("uploading")
        with context.timings.phase("upload"):
            files = _files(version, record, shown, resources, context)
        written = TrainingReport(
            **{name: getattr(record, name) for name in TrainingRecord.model_fields},
            previews=_shown_by(record.gate) if measured and record.gate else shown.result(),
            outputs=[_weights_of(version), *files],
            character=CharacterResult(
                character_id=version.character_id,
                version=version.id,
                strength=version.strength,
                trigger=version.trigger,
            ),
        )
        body = written.model_dump_json(indent=1, exclude_none=True, exclude={"losses", "identity"})
        resources.store.put(key, body.encode())
        resources.store.delete(kept)
        if measured:
            resources.store.delete(sheet_key(job.character_id, context.job_id))
    progress.at("uploading", 1.0)
    return _result(written, key, resources, context)


def _previews(
    job: TrainJob,
    version: CharacterVersion,
    record: TrainingRecord,
    resources: Resources,
    context: JobContext,
    progress: TrainingProgress,
) -> Previews:
    prompts = previews.prompts_of(job.preview_prompts, version.class_noun)
    usable = resources.registry.resolve(version.character_id, version.id)
    with context.timings.phase("previews"):
        return previews.render(
            usable,
            prompts,
            previews.side_for(record.training.resolution),
            resources,
            context,
            partial(progress.at, "previews"),
        )


def _shown_by(gate: GateResult) -> PreviewsResult:
    """The previews of a training whose steps were shown already: the chosen one's."""
    seeds = len(gate.seeds) // len(gate.prompts)
    texts = [prompt for prompt in gate.prompts for _ in range(seeds)]
    pictures = [
        PreviewResult(prompt=prompt, seed=seed, difference=changed)
        for prompt, seed, changed in zip(texts, gate.seeds, gate.differences, strict=True)
    ]
    return PreviewsResult(status="done", workflow=gate.workflow or "", pictures=pictures)


def _files(
    version: CharacterVersion,
    record: TrainingRecord,
    shown: Previews,
    resources: Resources,
    context: JobContext,
) -> list[StoredOutput]:
    """Curve, preview sheet where there are pictures, and the dataset's document."""
    prefix = layout.training_prefix(version.character_id, version.id)

    def picture(image: Image.Image, kind: str, name: str) -> StoredOutput:
        path = context.folder / name
        image.save(path, "PNG", optimize=True)
        size = {"width": image.width, "height": image.height}
        return _stored(upload_file(resources, context, path, f"{prefix}{name}", kind=kind, **size))

    title = f"{version.character_id}, {version.id}"
    files = [picture(draw_curve(dict(record.losses), title), "curve", "loss.png")]
    gate = record.gate
    if gate is not None and gate.likeness is not None:
        by_step = {one.step: one.likeness for one in gate.checkpoints}
        chart = draw_curve(by_step, title, "likeness to the photos")
        files.append(picture(chart, "curve", "likeness.png"))
        with contextlib.suppress(ObjectMissing):  # somebody removed it; the numbers are here
            body = resources.store.get(sheet_key(version.character_id, context.job_id)).body
            with Image.open(io.BytesIO(body)) as sheet:
                files.append(picture(sheet, "sheet", "checkpoints.png"))
    if shown.rows:
        files.append(picture(draw_sheet(shown.rows, title), "sheet", "previews.png"))
    path = context.folder / "dataset.json"
    path.write_text(record.dataset.model_dump_json(indent=1, exclude_none=True), "utf-8")
    described = upload_file(resources, context, path, f"{prefix}dataset.json", kind="report")
    return [*files, _stored(described)]


def _stored(output: OutputResult) -> StoredOutput:
    return StoredOutput(**{name: getattr(output, name) for name in StoredOutput.model_fields})


def _weights_of(version: CharacterVersion) -> StoredOutput:
    return StoredOutput(
        kind="lora",
        key=version.key,
        content_type=content_type_for(Path(version.key)),
        bytes=version.size,
        sha256=version.sha256,
    )


def _result(
    report: TrainingReport, key: str, resources: Resources, context: JobContext
) -> TrainResult:
    """The report with fresh URLs, and with what the character is called and uses by now."""
    character = report.character
    head = resources.registry.get(character.character_id, tombstone=True)
    lifetime = resources.settings.url_expires_s
    outputs = []
    for output in report.outputs:
        url = resources.store.presign(output.key, lifetime)
        outputs.append(OutputResult(**output.model_dump(), url=url.url, expires_at=url.expires_at))
    return TrainResult(
        task="train",
        job_id=context.job_id,
        character=TrainedCharacterResult(
            **character.model_dump(),
            name=head.name,
            active=head.active is not None and head.active.id == character.version,
        ),
        outputs=outputs,
        seed=report.training.seed,
        training=report.training,
        dataset=report.dataset,
        check=report.check,
        gate=report.gate,
        previews=report.previews,
        warnings=report.warnings,
        manifest=ManifestResult(key=key, url=resources.store.presign(key, lifetime).url),
        timings_ms=context.timings.milliseconds(),
    )


def _read(resources: Resources, key: str, kind: type[_R]) -> _R | None:
    """A document of ours; None where there is none, or another release's of another shape."""
    try:
        return kind.model_validate_json(resources.store.get(key).body)
    except ObjectMissing:
        return None
    except ValidationError:
        log.warning("document of another release ignored", extra={"key": key})
        return None


def _without_record(version: CharacterVersion) -> TrainingRecord:
    """What can be said of a training whose record somebody removed."""
    known = version.training or {}
    return TrainingRecord(
        training=TrainingSettings(
            trainer=known.get("trainer", "unknown"),
            steps=known.get("steps"),
            alpha=known.get("alpha"),
        ),
        dataset=DatasetResult(digest=known.get("dataset_digest")),
        check=LoraCheckResult(rank=version.rank, bytes=version.size),
    )
