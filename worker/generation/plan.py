"""What image and video jobs have in common: from a plan to delivered outputs and a manifest."""

import datetime
import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from worker.contract import Generation
from worker.errors import OutOfMemory, WorkerError
from worker.generation import casting
from worker.generation.casting import Role
from worker.generation.delivery import Delivery, Prepare
from worker.generation.execution import Attempt, Order, execute
from worker.generation.manifest import manifest_of
from worker.generation.prompts import place_triggers
from worker.resources import JobContext, Resources
from worker.results import GenerationResult, ManifestResult, WorkflowResult
from workflows.binding import LoraUse, Values, bind
from workflows.template import Value, Workflow

MAX_DRAWN_SEED: Final = 2**53 - 1  # larger integers lose digits in JavaScript clients


@dataclass(frozen=True, slots=True)
class Plan:
    """A job translated into a workflow's words."""

    task: Literal["image", "video"]
    job: Generation
    workflow: Workflow
    values: Mapping[str, Value | None]
    prepare: Prepare
    prompt: str | None = None
    output_format: str | None = None
    lower: tuple[str, ...] = ()


def generate(plan: Plan, resources: Resources, context: JobContext) -> dict[str, Any]:
    """Cast, bind, run, upload, and write the manifest.

    Raises: whatever `casting`, `workflows.bind` and `execution` raise.
    """
    resources.availability.require(plan.workflow)
    with context.timings.phase("registry"):
        roles = casting.cast(plan.job.cast, plan.workflow, resources)
    settled = _settle(plan, roles, context)
    context.progress.report("characters", 2)
    with casting.held_loras(roles, resources, context) as loras:
        return _run(settled, loras, resources, context)


@dataclass(frozen=True, slots=True)
class _Settled:
    """A plan with everything drawn, looked up and placed."""

    plan: Plan
    roles: tuple[Role, ...]
    values: Mapping[str, Value | None]
    seed: int
    prompt: str | None
    folder: str


def _settle(plan: Plan, roles: tuple[Role, ...], context: JobContext) -> _Settled:
    seed = drawn_seed(context.job_id) if plan.job.seed is None else plan.job.seed
    prompt = None
    if plan.prompt is not None:
        prompt = place_triggers(plan.prompt, [role.trigger for role in roles])
    values = {**plan.values, "prompt": prompt, "seed": seed}
    return _Settled(plan, roles, values, seed, prompt, output_folder(roles, context))


def drawn_seed(job_id: str) -> int:
    """A seed for a job that gave none: another for every job, the same when RunPod retries it."""
    return int.from_bytes(hashlib.sha256(job_id.encode()).digest()[:8]) & MAX_DRAWN_SEED


def output_folder(roles: tuple[Role, ...], context: JobContext) -> str:
    """`characters/{id}/outputs/{yyyy}/{mm}/{dd}/{job_id}`, or `base/…` without a character."""
    owner = f"characters/{roles[0].version.character_id}" if roles else "base"
    day = datetime.datetime.fromtimestamp(context.started_at, datetime.UTC)
    return f"{owner}/outputs/{day:%Y/%m/%d}/{context.job_id}"


def _run(
    settled: _Settled, loras: tuple[LoraUse, ...], resources: Resources, context: JobContext
) -> dict[str, Any]:
    plan = settled.plan

    def attempt(failure: WorkerError | None) -> Attempt:
        run_id = uuid.uuid4().hex
        values = Values(
            prefix=f"{run_id}/{plan.task}",
            roles=settled.values,
            params=plan.job.params,
            loras=loras,
            output_format=plan.output_format,
            sparing=isinstance(failure, OutOfMemory),
        )
        return Attempt(bind(plan.workflow, values), run_id)

    order = Order(
        attempt=attempt,
        conclude=lambda delivery: _conclude(settled, delivery, resources, context),
        folder=settled.folder,
        prepare=plan.prepare,
        timeout_s=plan.job.timeout_s or resources.settings.job_timeout_s,
    )
    try:
        return execute(order, resources, context)
    except OutOfMemory as error:
        raise OutOfMemory(
            f"The GPU's memory does not suffice; lower {', '.join(plan.lower)}.",
            details=error.details,
        ) from error


def _conclude(
    settled: _Settled, delivery: Delivery, resources: Resources, context: JobContext
) -> dict[str, Any]:
    """Write the manifest while the outputs are still on their way, then wait for all of it."""
    plan, key = settled.plan, f"{settled.folder}/manifest.json"
    people = [role.result() for role in settled.roles]
    url = resources.store.presign(
        key, resources.settings.url_lifetime_s, content_type="application/json"
    ).url
    result = GenerationResult(
        task=plan.task,
        job_id=context.job_id,
        outputs=delivery.described(),
        seed=settled.seed,
        prompt=settled.prompt,
        character=people[0] if len(people) == 1 else None,
        characters=people if len(people) > 1 else None,
        workflow=WorkflowResult(name=plan.workflow.name, digest=plan.workflow.digest),
        manifest=ManifestResult(key=key, url=url),
        timings_ms=context.timings.milliseconds(),
    )
    manifest = manifest_of(
        result,
        plan.job,
        roles=settled.roles,
        values=settled.values,
        versions=resources.availability.versions,
    )
    delivery.add_document(key, manifest)
    delivery.results()
    return {**result.to_json(), "timings_ms": context.timings.milliseconds()}
