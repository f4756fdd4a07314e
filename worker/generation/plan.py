"""What image and video jobs have in common: from a plan to delivered outputs and a manifest."""

import datetime
import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from worker.contract import Generation
from worker.errors import OutOfMemory, WorkerError
from worker.generation import casting, execution
from worker.generation.casting import Role
from worker.generation.delivery import Prepare
from worker.generation.execution import Attempt
from worker.generation.prompts import place_triggers
from worker.results import GenerationResult, ManifestResult, OutputResult, WorkflowResult
from worker.rooms import JobContext, Rooms
from workflows.binding import LoraUse, Values, bind
from workflows.template import Value, Workflow

MANIFEST_VERSION: Final = 1
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


def generate(plan: Plan, rooms: Rooms, context: JobContext) -> dict[str, Any]:
    """Cast, bind, run, upload, and write the manifest.

    Raises: whatever `casting`, `workflows.bind` and `execution` raise.
    """
    rooms.availability.require(plan.workflow)
    with context.timings.phase("registry"):
        roles = casting.cast(plan.job.cast, plan.workflow, rooms)
    settled = _settle(plan, roles, context)
    context.progress.report("characters", 2)
    with casting.held_loras(roles, rooms, context) as loras:
        outputs = _run(settled, loras, rooms, context)
    return _result(settled, outputs, rooms, context)


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
    settled: _Settled, loras: tuple[LoraUse, ...], rooms: Rooms, context: JobContext
) -> list[OutputResult]:
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

    try:
        return execution.execute(
            attempt,
            rooms,
            context,
            folder=settled.folder,
            prepare=plan.prepare,
            timeout_s=plan.job.timeout_s or rooms.settings.job_timeout_s,
        )
    except OutOfMemory as error:
        raise OutOfMemory(
            f"The GPU's memory does not suffice; lower {', '.join(plan.lower)}.",
            details=error.details,
        ) from error


def _result(
    settled: _Settled, outputs: list[OutputResult], rooms: Rooms, context: JobContext
) -> dict[str, Any]:
    plan = settled.plan
    people = [role.result() for role in settled.roles]
    manifest = ManifestResult(key=f"{settled.folder}/manifest.json", url="")
    result = GenerationResult(
        task=plan.task,
        job_id=context.job_id,
        outputs=outputs,
        seed=settled.seed,
        prompt=settled.prompt,
        character=people[0] if len(people) == 1 else None,
        characters=people if len(people) > 1 else None,
        workflow=WorkflowResult(name=plan.workflow.name, digest=plan.workflow.digest),
        manifest=manifest,
        timings_ms=context.timings.milliseconds(),
    )
    url = _write_manifest(settled, result, rooms)
    return result.model_copy(
        update={
            "manifest": ManifestResult(key=manifest.key, url=url),
            "timings_ms": context.timings.milliseconds(),
        }
    ).to_json()


def _write_manifest(settled: _Settled, result: GenerationResult, rooms: Rooms) -> str:
    """All it takes to make the outputs again, beside them; never a URL, since those expire."""
    plan = settled.plan
    document = {
        "manifest_version": MANIFEST_VERSION,
        **result.to_json(),
        "input": described_input(plan.job),
        "values": {name: value for name, value in settled.values.items() if value is not None},
        "loras": [
            {
                "character_id": role.version.character_id,
                "version": role.version.version,
                "sha256": role.version.sha256,
                "key": role.version.key,
                "strength": role.strength,
            }
            for role in settled.roles
        ],
        "versions": rooms.availability.versions,
    }
    del document["manifest"]
    for output in document["outputs"]:
        del output["url"]
        output.pop("expires_at", None)
    key = result.manifest.key
    rooms.store.put(key, json.dumps(document, indent=2, ensure_ascii=False).encode())
    return rooms.store.presign(
        key, rooms.settings.url_lifetime_s, content_type="application/json"
    ).url


def described_input(job: Generation) -> dict[str, Any]:
    """The job's input as the manifest keeps it: a base64 source by its digest, not its bytes."""
    described = job.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    for value in described.values():
        if isinstance(value, dict) and "base64" in value:
            digest = hashlib.sha256(value.pop("base64").encode()).hexdigest()
            value["base64_sha256"] = digest
    return {"task": job.model_dump()["task"], **described}
