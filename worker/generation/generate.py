"""What image and video jobs have in common: from a request to delivered outputs and a manifest."""

import datetime
import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from lora_registry.character import CharacterRecord
from worker.contract import Generation
from worker.errors import (
    EngineCrashed,
    EngineUnavailable,
    OutOfMemory,
    OutputDamaged,
    TimedOut,
    WorkerError,
)
from worker.generation.delivery import Delivery, FinishOutput, manifest_of
from worker.generation.uptake import applied, warnings_of
from worker.generation.used_characters import (
    ResolvedCharacter,
    Trigger,
    fill_triggers,
    leased_loras,
    place_triggers,
    placed_references,
    resolve_characters,
)
from worker.resources import QUEUED, UPLOADING, JobContext, ProgressTracker, Resources
from worker.results import GenerationResult, ManifestResult, WorkflowResult
from workflows.binding import Bound, LoraUse, Values, bind
from workflows.template import Limits, Value, Workflow

log = logging.getLogger(__name__)

TRIES: Final = 2
MAX_DRAWN_SEED: Final = 2**53 - 1  # larger integers lose digits in JavaScript clients


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A job translated into a workflow's words.

    Attributes:
        values: what the workflow's roles get; None leaves what its graph says. Prompt and seed
            are added by `generate`.
        records: of the characters, where they were read already.
        files: file of the workflow's own -> its name where ComfyUI reads inputs.
        finish: checks a produced file, and says what of it is uploaded.
        lower: the fields that a person lowers when the GPU's memory does not suffice.
    """

    task: Literal["image", "video", "workflow"]
    job: Generation
    workflow: Workflow
    values: Mapping[str, Value | None]
    finish: FinishOutput
    records: Mapping[str, CharacterRecord] = field(default_factory=dict)
    prompt: str | None = None
    output_format: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    lower: tuple[str, ...] = ()

    @property
    def brought(self) -> frozenset[str]:
        """The roles and inputs that the job fills itself."""
        return frozenset(name for name, value in self.values.items() if value is not None)


def generate(
    request: GenerationRequest, resources: Resources, context: JobContext
) -> dict[str, Any]:
    """Make a job's outputs: resolve, lease, bind, run, deliver, and write the manifest.

    What a second try can mend (a ComfyUI that died, memory that did not suffice, a file cut short)
    is tried once more.

    Raises:
        ModelMissing, WorkflowRejected, WorkflowError: the workflow cannot run, or not like that.
        RegistryError, StoreError: characters, their LoRAs, the delivery.
        ExecutionFailed, OutOfMemory, EngineCrashed, EngineUnavailable, TimedOut, Cancelled.
    """
    job, workflow = request.job, request.workflow
    resources.availability.require(workflow)
    with context.timings.phase("registry"):
        characters = resolve_characters(
            job.used_characters, workflow, resources, request.records, request.brought
        )
    context.progress.report("characters", 2)
    prompt = request.prompt and place_triggers(request.prompt, [c.trigger for c in characters])
    seed = _seed(job, workflow, context)
    values = {**request.values, "prompt": prompt, "seed": seed}
    params = _with_triggers(job.params, workflow, [c.trigger for c in characters])
    folder = output_folder(characters, context)

    failure: WorkerError | None = None
    tries_left = TRIES
    with (
        leased_loras(characters, resources, context) as loras,
        placed_references(characters, resources, context) as photos,
    ):
        while True:
            tries_left -= 1
            try:
                if isinstance(failure, OutOfMemory):
                    resources.comfyui.free()
                with Delivery(resources, context, folder, request.finish) as delivery:
                    bound = _bind(request, {**values, **photos}, params, loras, delivery, failure)
                    seconds = _run(request, bound, delivery, resources, context)
                    warnings = _unapplied(seconds, request, characters, loras, resources)
                    with context.timings.phase("upload"):
                        result = _conclude(
                            request, values, characters, delivery, resources, context
                        )
                    return {**result, "warnings": warnings} if warnings else result
            except (EngineCrashed, EngineUnavailable, OutOfMemory, OutputDamaged) as error:
                log.warning("try failed", extra={"tries_left": tries_left, "code": error.code})
                if not tries_left:
                    raise _advised(error, request.lower) from error
                failure = error


def drawn_seed(job_id: str, limits: Limits | None = None) -> int:
    """A seed for a job that gave none: another for every job, the same when RunPod retries it.

    Within what the workflow allows, since nodes that take 32 bits refuse more.
    """
    low = int(limits.minimum or 0) if limits else 0
    high = MAX_DRAWN_SEED
    if limits and limits.maximum is not None:
        high = min(high, int(limits.maximum))
    drawn = int.from_bytes(hashlib.sha256(job_id.encode()).digest()[:8])
    return low + drawn % (high - low + 1)


def _seed(job: Generation, workflow: Workflow, context: JobContext) -> int | None:
    """The job's, or a drawn one; none where the workflow would not take it."""
    if job.seed is not None or "seed" not in workflow.roles:
        return job.seed
    return drawn_seed(context.job_id, workflow.limits.get("seed"))


def output_folder(characters: Sequence[ResolvedCharacter], context: JobContext) -> str:
    """`characters/{id}/outputs/{yyyy}/{mm}/{dd}/{job_id}`, or `base/…` without a character."""
    owner = f"characters/{characters[0].character_id}" if characters else "base"
    day = datetime.datetime.fromtimestamp(context.started_at, datetime.UTC)
    return f"{owner}/outputs/{day:%Y/%m/%d}/{context.job_id}"


def _with_triggers(
    given: Mapping[str, Value], workflow: Workflow, triggers: Sequence[Trigger]
) -> dict[str, Value]:
    """The params, with the characters' words where a text of them marks their places."""
    marked = {name: param for name, param in workflow.params.items() if param.triggers}
    texts = {name: given.get(name, workflow.param_default(name)) for name in marked}
    filled = {
        name: fill_triggers(text, triggers) for name, text in texts.items() if isinstance(text, str)
    }
    return {**given, **filled}


def _bind(
    request: GenerationRequest,
    values: Mapping[str, Value | None],
    params: Mapping[str, Value],
    loras: tuple[LoraUse, ...],
    delivery: Delivery,
    failure: WorkerError | None,
) -> Bound:
    """The graph of one try: with names of its own, since cached nodes write no files."""
    return bind(
        request.workflow,
        Values(
            prefix=f"{delivery.run_id}/{request.task}",
            roles=values,
            params=params,
            loras=loras,
            output_format=request.output_format,
            files=request.files,
            low_memory=isinstance(failure, OutOfMemory),
        ),
    )


def _run(
    request: GenerationRequest,
    bound: Bound,
    delivery: Delivery,
    resources: Resources,
    context: JobContext,
) -> float:
    """Run one try's graph; returns the seconds that it took, without its wait."""
    limit_s = request.job.timeout_s or resources.settings.job_timeout_s
    left_s = limit_s - context.timings.busy_s
    if left_s <= 0:
        raise TimedOut(
            f"Preparing the job took longer than {limit_s:g} s; raise timeout_s or send less.",
            details={"timeout_s": limit_s},
        )
    context.progress.report("queued", QUEUED)
    begun = time.monotonic()
    try:
        execution = resources.comfyui.run(
            bound.graph,
            timeout_s=left_s,
            cancel=context.cancel,
            on_step=ProgressTracker(bound.graph, context.progress).on_step,
            on_files=delivery.listener(bound.outputs),
        )
    except (EngineCrashed, EngineUnavailable):
        # The second try has what this one had: another job's hang is not this one's time.
        context.timings.add("lost", (time.monotonic() - begun) * 1000)
        raise
    context.timings.add("queued", execution.queued_ms)
    context.timings.add("execution", execution.executed_ms)
    delivery.check_complete(bound.outputs)
    context.progress.report("uploading", UPLOADING)
    return execution.executed_ms / 1000


def _unapplied(
    seconds: float,
    request: GenerationRequest,
    characters: Sequence[ResolvedCharacter],
    loras: Sequence[LoraUse],
    resources: Resources,
) -> list[str]:
    """What the result warns of. Raises InvalidInput for a LoRA that changed nothing."""
    names = (*(lora.name for lora in loras), request.workflow.digest)
    said = resources.engine.lora_log.of_prompt(seconds, names)
    if not (said.keys or said.weights):
        return []
    folder, alone = resources.settings.loras_folder, len(loras) == 1
    trained = [character.character_id for character in characters if character.version]
    used = [
        applied(character_id, folder / lora.name, said, alone=alone)
        for character_id, lora in zip(trained, loras, strict=True)
    ]
    return warnings_of(used, request.workflow.name)


def _conclude(
    request: GenerationRequest,
    values: Mapping[str, Value | None],
    characters: Sequence[ResolvedCharacter],
    delivery: Delivery,
    resources: Resources,
    context: JobContext,
) -> dict[str, Any]:
    """Write the manifest while the outputs are still on their way, then wait for all of it."""
    key = f"{delivery.folder}/manifest.json"
    url = resources.store.presign(
        key, resources.settings.url_expires_s, content_type="application/json"
    ).url
    used = [character.result() for character in characters]
    seed, prompt = values["seed"], values["prompt"]
    result = GenerationResult(
        task=request.task,
        job_id=context.job_id,
        outputs=delivery.described(),
        seed=int(seed) if seed is not None else None,
        prompt=str(prompt) if prompt is not None else None,
        character=used[0] if len(used) == 1 else None,
        characters=used if len(used) > 1 else None,
        workflow=WorkflowResult(name=request.workflow.name, digest=request.workflow.digest),
        manifest=ManifestResult(key=key, url=url),
        timings_ms=context.timings.milliseconds(),
    )
    manifest = manifest_of(
        result,
        request.job,
        characters=characters,
        values=values,
        versions=resources.availability.versions,
    )
    delivery.add_document(key, manifest)
    delivery.wait()
    return {**result.to_json(), "timings_ms": context.timings.milliseconds()}


def _advised(error: WorkerError, lower: Sequence[str]) -> WorkerError:
    if not isinstance(error, OutOfMemory):
        return error
    advice = f"The GPU's memory does not suffice; lower {', '.join(lower)}."
    return OutOfMemory(advice, details=error.details)
