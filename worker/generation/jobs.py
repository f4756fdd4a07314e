"""Image, video and workflow jobs, each put into the words of its workflow, and run."""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from lora_registry.character import CharacterRecord, migrated
from worker.contract import ImageJob, WorkflowJob
from worker.contract_fields import CharacterUse
from worker.errors import InvalidInput, WorkflowRejected
from worker.generation.attempt import GenerationRequest
from worker.generation.clips import finish_clip
from worker.generation.delivery import FinishOutput
from worker.generation.generate import generate
from worker.generation.inputs import GenerationJob, PlacedInputs, placed_inputs
from worker.generation.likeness import Wish
from worker.generation.metadata import stripped
from worker.generation.products import SUFFIXES, Finished, finish_picture, finish_sound, kind_of
from worker.generation.used_characters import (
    Kind,
    check_places,
    default_workflow,
    reference_workflow,
)
from worker.media import ImageFormat
from worker.resources import JobContext, Resources
from worker.settings import Settings
from workflows.binding import LoraUse, Values, bind, field_of
from workflows.errors import InvalidParam, UnboundRole
from workflows.formats import written_formats
from workflows.template import OWN_FIELDS, ROLES, Value, Workflow

PIXELS: Final = 1024 * 1024  # what SDXL was trained at
SIDE_STEP: Final = 64
MIN_SIDE, MAX_SIDE = 256, 2048
OUT_OF_REACH: Final = (
    "The ComfyUI at COMFYUI_URL does not see this worker's LoRAs; set LORA_CACHE_DIR to its "
    "models/loras folder, shared with this worker."
)
# The fields that a person lowers when the GPU's memory does not suffice.
_LOWER: Final = {
    "image": ("width", "height", "count"),
    "video": ("frames", "width", "height"),
    "workflow": ("width", "height", "count", "frames"),
}


# Of jobs without a character.
DEFAULT_WORKFLOWS: Final[Mapping[Kind, str]] = {"image": "sdxl", "video": "svd"}


@dataclass(frozen=True, slots=True)
class Choice:
    """A workflow's name, and the records that were read to find it, by character."""

    workflow: str
    records: Mapping[str, CharacterRecord] = field(default_factory=dict)


def run(job: GenerationJob, resources: Resources, context: JobContext) -> dict[str, Any]:
    """Make what the job asks for. Raises what any step raises."""
    choice = _choice(job, resources, context)
    sources = job.sources()
    from_prompt = ("prompt",) if job.prompt and not sources else ()
    workflow = resources.workflows.variant(choice.workflow, *sources, *from_prompt)
    _check_task(job, workflow)
    _check_reach(job, workflow, resources)
    values = _values(job, workflow)
    output_format = _output_format(job, workflow)
    _check_binding(job, workflow, values, output_format)
    finish = partial(_finish, job, workflow)
    brings = bool(sources or workflow.files)
    with (
        placed_inputs(job, workflow, resources, context) if brings else nullcontext(PlacedInputs())
    ) as inputs:
        request = GenerationRequest(
            task=job.task,
            job=job,
            workflow=workflow,
            records=choice.records,
            prompt=job.prompt,
            finish=_finish_stripped(finish) if _strips(job, resources) else finish,
            output_format=output_format,
            lower=_LOWER[job.task],
            values={**values, **_open_sides(job, workflow, inputs), **inputs.names},
            files=inputs.files,
            likeness=_wish(job),
        )
        return generate(request, resources, context)


def _wish(job: GenerationJob) -> Wish | None:
    """What the job asks of likeness."""
    if not isinstance(job, ImageJob) or not job.measured:
        return None
    return Wish(job.count, job.most, job.min_likeness)


def _choice(job: GenerationJob, resources: Resources, context: JobContext) -> Choice:
    if isinstance(job, WorkflowJob):
        return Choice(job.workflow)
    return choose_workflow(job.task, job.workflow, job.used_characters, resources, context)


def _check_task(job: GenerationJob, workflow: Workflow) -> None:
    if job.task not in {workflow.kind, "workflow"}:
        task = workflow.kind if workflow.kind in {"image", "video"} else "workflow"
        raise InvalidInput(
            f"workflow: {workflow.name!r} is of kind {workflow.kind}; send it as task {task!r}.",
            field="workflow",
        )


def loras_out_of_reach(settings: Settings) -> bool:
    """Whether the ComfyUI that is used cannot see the LoRA cache."""
    return settings.comfyui_url is not None and settings.lora_cache_dir is None


def _check_reach(job: GenerationJob, workflow: Workflow, resources: Resources) -> None:
    """A ComfyUI of somebody else sees our LoRAs where its folder is our cache, and only there.

    Raises:
        WorkflowRejected: it would not find them.
    """
    if job.used_characters and workflow.loras and loras_out_of_reach(resources.settings):
        raise WorkflowRejected(OUT_OF_REACH, field="character_id")


def _values(job: GenerationJob, workflow: Workflow) -> dict[str, Value | None]:
    """What the job says of every role; None where it says nothing. The seed is `generate`'s."""
    values: dict[str, Value | None] = {role: getattr(job, role, None) for role in ROLES}
    del values["seed"]
    if job.task == "image" and values["count"] == 1:
        values["count"] = None  # what every workflow makes
    if "quality" not in workflow.roles and _encodes_pictures(job):
        values["quality"] = None  # for our own encoder
    return values


def _encodes_pictures(job: GenerationJob) -> bool:
    return isinstance(job, ImageJob) or job.format in SUFFIXES


def _output_format(job: GenerationJob, workflow: Workflow) -> str | None:
    """The format that chooses among the workflow's outputs; None where it has nothing to choose.

    Raises:
        InvalidParam: a format that neither the workflow's nodes nor we would write.
    """
    if workflow.formats:
        first = "mp4" if "mp4" in workflow.formats else workflow.formats[0]
        return job.format or first
    if job.format is None or (workflow.kind == "image" and job.format in SUFFIXES):
        return None  # as its node writes it, or encoded by us
    written = written_formats(workflow)
    if job.format not in written:
        raise InvalidParam(
            "format",
            f"is fixed by workflow {workflow.name!r}"
            + (f", which writes {', '.join(written)}" if written else "; leave it out"),
        )
    return None


def _check_binding(
    job: GenerationJob,
    workflow: Workflow,
    values: Mapping[str, Value | None],
    output_format: str | None,
) -> None:
    """Bind once with nothing fetched, so that what cannot be bound costs nobody anything.

    Raises:
        UnboundRole, InvalidParam: as `bind` says.
    """
    texts = {"prompt": job.prompt, **{f"params.{name}": text for name, text in job.params.items()}}
    for own, text in texts.items():
        if isinstance(text, str) and (own == "prompt" or _has_triggers(workflow, own)):
            check_places(text, own, job.used_characters)
    for name in job.sources():
        if name not in workflow.inputs:
            raise UnboundRole(workflow.name, field_of(name), tuple(workflow.inputs))
    brought: dict[str, Value] = dict.fromkeys(job.sources(), "brought")
    if job.used_characters:
        brought |= dict.fromkeys(workflow.references, "brought")  # of the characters' photos
    for name, declared in workflow.inputs.items():
        if declared.kind == "mask" and declared.follows in brought:
            brought[name] = "brought"  # it may be in the picture's transparency
    loras = [LoraUse("later", 1.0) for _ in job.used_characters] if workflow.loras else []
    seed = None if job.seed is None else {"seed": job.seed}
    bind(
        workflow,
        Values(
            prefix="later",
            roles={**values, **brought, **(seed or {})},
            params=job.params,
            loras=loras,
            output_format=output_format,
        ),
    )


def _has_triggers(workflow: Workflow, field: str) -> bool:
    param = workflow.params.get(field.removeprefix("params."))
    return param is not None and param.triggers


def _open_sides(
    job: GenerationJob, workflow: Workflow, inputs: PlacedInputs
) -> dict[str, Value | None]:
    """The sides that the job leaves open, after the picture that the workflow starts from."""
    for name in OWN_FIELDS:
        if name in inputs.sizes:
            size = inputs.sizes[name]
            if workflow.inputs[name].size == "as_is":
                size = fitted((job.width, job.height), size)
            sides = dict(zip(("width", "height"), size, strict=True))
            return {role: side for role, side in sides.items() if role in workflow.roles}
    return {}


def fitted(asked: tuple[int | None, int | None], picture: tuple[int, int]) -> tuple[int, int]:
    """A picture's sides in pixels; one that the job leaves open follows the init image's shape.

    Args:
        asked: width and height as the job says them.
        picture: width and height of the init image.
    """
    width, height = asked
    ratio = picture[0] / picture[1]
    if width:
        return width, height or _side(width / ratio)
    if height:
        return _side(height * ratio), height
    return _side(math.sqrt(PIXELS * ratio)), _side(math.sqrt(PIXELS / ratio))


def _side(length: float) -> int:
    return min(MAX_SIDE, max(MIN_SIDE, round(length / SIDE_STEP) * SIDE_STEP))


def _finish(job: GenerationJob, workflow: Workflow, path: Path) -> tuple[Finished, ...]:
    kind = kind_of(path)
    if kind == "image":
        return (finish_picture(path, _picture_format(job, workflow), job.quality),)
    if kind == "video":
        return finish_clip(path)
    return (finish_sound(path) if kind == "audio" else Finished(path, kind),)


def _strips(job: GenerationJob, resources: Resources) -> bool:
    return (job.metadata or resources.settings.output_metadata) == "strip"


def _finish_stripped(finish: FinishOutput) -> FinishOutput:
    def finish_and_strip(path: Path) -> tuple[Finished, ...]:
        finished = finish(path)
        bare = [replace(one, path=stripped(one.path)) for one in finished]
        for before, after in zip(finished, bare, strict=True):
            if before.path not in {path, after.path}:
                before.path.unlink()
        return tuple(bare)

    return finish_and_strip


def _picture_format(job: GenerationJob, workflow: Workflow) -> ImageFormat | None:
    """What still pictures are brought to; None: as their node wrote them."""
    if isinstance(job, WorkflowJob) and (job.format is None or workflow.kind != "image"):
        return None
    return next((name for name in SUFFIXES if name == job.format), "png")


def choose_workflow(
    kind: Kind,
    named: str | None,
    uses: Sequence[CharacterUse],
    resources: Resources,
    context: JobContext,
) -> Choice:
    """The workflow that a job names, or the default of a base model that all its characters have.

    The base model of the first character's latest version comes first. Characters of whom there are
    photos and no common base model get a workflow that takes photos. One conditional GET for each
    character, and none where the job names its workflow.

    Raises:
        InvalidInput: no workflow here fits the characters, or no base model is common to them.
        CharacterNotFound, CharacterDeleted, VersionNotFound, StoreError: as the registry says.
    """
    if named is not None or not uses:
        return Choice(named or DEFAULT_WORKFLOWS[kind])
    with context.timings.phase("registry"):
        found = resources.pool.map(lambda use: resources.registry.get(use.character_id), uses)
        records = {record.character_id: record for record in found}
        known = [_base_models(records[use.character_id], use, resources) for use in uses]
    common = [name for name in known[0] if all(name in others for others in known[1:])]
    for base_model in common:
        workflow = default_workflow(kind, base_model, resources)
        if workflow is not None:
            return Choice(workflow, records)
    if all(record.references for record in records.values()) and not any(
        use.version for use in uses
    ):
        workflow = reference_workflow(kind, resources)
        if workflow is not None:
            return Choice(workflow, records)
    told = " and ".join(
        f"{use.character_id!r} was trained on {', '.join(names) or 'nothing'}"
        for use, names in zip(uses, known, strict=True)
    )
    raise InvalidInput(
        f"character_id: {told}; no {kind} workflow of this worker fits. Add one, or name another.",
        field="character_id",
        details={"base_models": sorted({name for names in known for name in names})},
    )


def _base_models(record: CharacterRecord, use: CharacterUse, resources: Resources) -> list[str]:
    """The base models that a character can be used on, the preferred one first."""
    if use.version is not None:
        return [resources.registry.chosen(record, use.version).base_model]
    families = migrated(record).families
    return sorted(families, key=lambda name: (name != record.base_model, name))
