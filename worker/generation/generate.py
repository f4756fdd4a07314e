"""What image and video jobs have in common: from a request to delivered outputs and a manifest."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from worker.contract import Generation
from worker.errors import EngineCrashed, EngineUnavailable, OutOfMemory, OutputDamaged, WorkerError
from worker.generation.attempt import Attempt, GenerationRequest
from worker.generation.delivery import output_folder
from worker.generation.likeness import judge_of
from worker.generation.used_characters import (
    Trigger,
    fill_triggers,
    leased_loras,
    place_triggers,
    placed_references,
    resolve_characters,
)
from worker.resources import JobContext, Resources
from workflows.template import Limits, Value, Workflow

log = logging.getLogger(__name__)

TRIES: Final = 2
MAX_DRAWN_SEED: Final = 2**53 - 1  # larger integers lose digits in JavaScript clients


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
    judge = judge_of(characters, resources, context) if request.likeness else None

    failure: WorkerError | None = None
    tries_left = TRIES
    with (
        leased_loras(characters, resources, context) as loras,
        placed_references(characters, resources, context) as photos,
    ):
        while True:
            tries_left -= 1
            short_of_memory = isinstance(failure, OutOfMemory)
            try:
                if short_of_memory:
                    resources.comfyui.free()
                one = Attempt(
                    *(request, characters, loras, params, judge),
                    low_memory=short_of_memory,
                    resources=resources,
                    context=context,
                )
                return one.make(folder, values, photos)
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


def _advised(error: WorkerError, lower: Sequence[str]) -> WorkerError:
    if not isinstance(error, OutOfMemory):
        return error
    advice = f"The GPU's memory does not suffice; lower {', '.join(lower)}."
    return OutOfMemory(advice, details=error.details)
