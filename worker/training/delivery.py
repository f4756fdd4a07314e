"""The end of a training job: previews, curve, documents, and the result. Any worker can do it."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

from lora_registry import layout
from lora_registry.character import CharacterVersion, UsableVersion
from lora_registry.store import ObjectMissing
from worker.contract import TrainJob
from worker.generation.delivery import upload_file
from worker.resources import JobContext, Resources
from worker.results import OutputResult, TrainResult
from worker.storage.upload import content_type_for
from worker.training import previews
from worker.training import report as documents
from worker.training.curve import draw_curve
from worker.training.previews import Previews
from worker.training.sheet import draw_sheet
from worker.training.stages import TrainingStages


def notes_key(character_id: str, job_id: str) -> str:
    """Where a training's notes lie from before its registration until its report is written."""
    return f"{layout.folder(character_id)}training/{layout.job_part(job_id)}.notes.json"


def deliver(
    job: TrainJob,
    version: CharacterVersion,
    resources: Resources,
    context: JobContext,
    stages: TrainingStages,
) -> TrainResult:
    """The job's result; what an earlier run of it reported is returned again.

    Raises:
        Cancelled, StoreError: the character stays registered; the same job, run again, goes on.
    """
    prefix = layout.training_prefix(job.character_id, version.id)
    found = _read(resources, f"{prefix}report.json")
    if found is None:
        found = _Report(job, version, resources, context, stages).write(prefix)
    stages.at("uploading", 1.0)
    return _result(found, f"{prefix}report.json", version, resources, context)


class _Report:
    """Makes the report of one version."""

    def __init__(
        self,
        job: TrainJob,
        version: CharacterVersion,
        resources: Resources,
        context: JobContext,
        stages: TrainingStages,
    ) -> None:
        self._job = job
        self._version = version
        self._resources = resources
        self._context = context
        self._stages = stages

    def write(self, prefix: str) -> dict[str, Any]:
        """Upload everything below `prefix`, the report last; its presence says that all is done."""
        key = notes_key(self._job.character_id, self._context.job_id)
        notes = _read(self._resources, key) or _bare(self._version)
        shown = self._previews(notes)
        self._stages.at("uploading")
        with self._context.timings.phase("upload"):
            outputs = [self._lora(), *self._files(notes, shown, prefix)]
        report = documents.report(
            {name: value for name, value in notes.items() if name != "losses"},
            shown.as_json(),
            [output.to_json() for output in outputs],
            self._character(),
        )
        self._resources.store.put(f"{prefix}report.json", json.dumps(report, indent=1).encode())
        self._resources.store.delete(key)
        return report

    def _previews(self, notes: dict[str, Any]) -> Previews:
        prompts = previews.prompts_of(self._job.preview_prompts, self._version.class_noun)
        side = previews.side_for(notes["training"].get("resolution"))
        done = iter(range(len(prompts)))

        def report() -> None:
            self._stages.at("previews", next(done) / len(prompts))

        with self._context.timings.phase("previews"):
            return previews.render(
                self._usable(), prompts, side, self._resources, self._context, report
            )

    def _files(self, notes: dict[str, Any], shown: Previews, prefix: str) -> list[OutputResult]:
        title = f"{self._version.character_id}, {self._version.id}"
        curve = draw_curve(dict(notes.get("losses", [])), title)
        outputs = [self._picture(curve, "curve", f"{prefix}loss.png")]
        if shown.rows:
            sheet = draw_sheet(shown.rows, title)
            outputs.append(self._picture(sheet, "sheet", f"{prefix}previews.png"))
        path = self._context.folder / "dataset.json"
        path.write_text(json.dumps(notes["dataset"], indent=1, ensure_ascii=False), "utf-8")
        key = f"{prefix}dataset.json"
        return [*outputs, upload_file(self._resources, self._context, path, key, kind="report")]

    def _picture(self, image: Image.Image, kind: str, key: str) -> OutputResult:
        path = self._context.folder / Path(key).name
        image.save(path, "PNG", optimize=True)
        size = {"width": image.width, "height": image.height}
        return upload_file(self._resources, self._context, path, key, kind=kind, **size)

    def _lora(self) -> OutputResult:
        version = self._version
        return OutputResult(
            kind="lora",
            url="",
            key=version.key,
            content_type=content_type_for(version.key),
            bytes=version.size,
            sha256=version.sha256,
        )

    def _character(self) -> dict[str, Any]:
        version = self._version
        return {
            "character_id": version.character_id,
            "version": version.id,
            "strength": version.strength,
            "trigger": version.trigger,
        }

    def _usable(self) -> UsableVersion:
        return self._resources.registry.resolve(self._version.character_id, self._version.id)


def _result(
    report: dict[str, Any],
    key: str,
    version: CharacterVersion,
    resources: Resources,
    context: JobContext,
) -> TrainResult:
    """The report with fresh URLs, as the job's result."""
    head = resources.registry.get(version.character_id, tombstone=True)
    active = head.active is not None and head.active.id == version.id
    outputs = [{**output, **_url(resources, output["key"])} for output in report["outputs"]]
    return TrainResult.model_validate(
        {
            "task": "train",
            "job_id": context.job_id,
            "character": report["character"] | {"name": head.name, "active": active},
            "outputs": outputs,
            "seed": report["training"].get("seed"),
            "training": report["training"],
            "dataset": report["dataset"],
            "check": report["check"],
            "previews": report["previews"],
            "warnings": report["warnings"],
            "manifest": {"key": key, "url": _url(resources, key)["url"]},
            "timings_ms": context.timings.milliseconds(),
        }
    )


def _url(resources: Resources, key: str) -> dict[str, Any]:
    presigned = resources.store.presign(key, resources.settings.url_expires_s)
    expires = {} if presigned.expires_at is None else {"expires_at": presigned.expires_at}
    return {"url": presigned.url, **expires}


def _read(resources: Resources, key: str) -> dict[str, Any] | None:
    try:
        document: dict[str, Any] = json.loads(resources.store.get(key).body)
    except ObjectMissing:
        return None
    return document


def _bare(version: CharacterVersion) -> dict[str, Any]:
    """What can be said of a training whose notes somebody removed."""
    training = version.training or {}
    known = ("trainer", "steps", "alpha")
    return documents.notes(
        {"trainer": "unknown"} | {name: training[name] for name in known if name in training},
        {"digest": training.get("dataset_digest"), "photos": []},
        {"rank": version.rank, "bytes": version.size},
        [],
    )
