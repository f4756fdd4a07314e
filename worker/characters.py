"""The characters branch: reading and changing the registry."""

from families.recognition import LoraFacts
from lora_registry.character import CharacterRecord
from lora_registry.errors import CharacterNotFound
from lora_registry.fields import trigger_of
from lora_registry.versions import DEFAULT_STRENGTH, NewVersion
from worker.contract import CharactersJob
from worker.errors import InvalidInput
from worker.instant import create
from worker.loras import examine
from worker.resources import JobContext, Resources
from worker.results import (
    CharacterChangedResult,
    CharacterDetailResult,
    CharacterErasedResult,
    CharacterPageResult,
    CharacterSummary,
)

CharactersResult = (
    CharacterPageResult | CharacterDetailResult | CharacterChangedResult | CharacterErasedResult
)


def run(job: CharactersJob, resources: Resources, context: JobContext) -> CharactersResult:
    """Do what the action says: `list` returns a page, `get` all versions, the others the head.

    `erase` says how much went.
    """
    if job.action == "list":
        return _list(job, resources)
    character_id = job.character_id or ""  # the contract requires it for every other action
    if job.action == "get":
        return _get(character_id, resources)
    if job.action == "erase":
        return _erase(character_id, resources, context)
    if job.action == "create":
        head = create(job, resources, context)
        return CharacterChangedResult(character=head, warnings=_reference_warnings(resources))
    if job.action == "register":
        return _register(job, character_id, resources, context)
    return CharacterChangedResult(character=_changed(job, character_id, resources, context))


def _changed(
    job: CharactersJob, character_id: str, resources: Resources, context: JobContext
) -> CharacterRecord:
    registry, job_id = resources.registry, context.job_id
    match job.action:
        case "activate":
            return registry.activate(character_id, job.version or "", job_id=job_id)
        case "rollback":
            return registry.rollback(character_id, job_id=job_id)
        case "delete":
            return registry.delete(character_id, job_id=job_id)
        case _:
            return registry.restore(character_id, job_id=job_id)


def _list(job: CharactersJob, resources: Resources) -> CharacterPageResult:
    page = resources.registry.list(
        order=job.order, status=job.status, limit=job.limit, cursor=job.cursor
    )
    lines = [CharacterSummary.model_validate(head.summary()) for head in page.characters]
    return CharacterPageResult(characters=lines, cursor=page.cursor)


def _get(character_id: str, resources: Resources) -> CharacterDetailResult:
    head = resources.registry.get(character_id, tombstone=True)
    versions = resources.registry.versions(character_id)
    return CharacterDetailResult(character=head, versions=list(versions))


def _erase(character_id: str, resources: Resources, context: JobContext) -> CharacterErasedResult:
    context.progress.report("erasing", 5)
    check = context.cancel.check
    gone = resources.registry.erase(character_id, resources.records, check_cancelled=check)
    return CharacterErasedResult(character_id=character_id, objects=gone.objects, jobs=gone.jobs)


def _register(
    job: CharactersJob, character_id: str, resources: Resources, context: JobContext
) -> CharacterChangedResult:
    """Fetch the LoRA, look into it, and add it as a version."""
    if job.source is None:
        raise InvalidInput("source: is required.", field="source")
    path = context.folder / "lora.safetensors"
    check_cancelled = context.cancel.check
    context.progress.report("fetching", 5)
    with context.timings.phase("fetch"):
        resources.sources.save(
            job.source,
            path,
            field="source",
            max_bytes=resources.settings.lora_max_bytes,
            check_cancelled=check_cancelled,
            on_share=lambda share: context.progress.report("fetching", 5 + 45 * share),
        )
    context.progress.report("checking", 50)
    found = examine(
        path, resources.recogniser, base_model=job.base_model, check_cancelled=check_cancelled
    )
    context.progress.report("uploading", 70)
    known = _known(character_id, resources)
    new = NewVersion(
        character_id=character_id,
        job_id=context.job_id,
        weights=path,
        base_model=found.base_model,
        format=found.format,
        rank=found.rank,
        trigger=trigger_of(
            job.trigger,
            found.metadata.get("modelspec.trigger_phrase"),
            known.trigger if known else None,
            character_id,
        ),
        class_noun=job.class_noun or (known.class_noun if known else "person"),
        name=job.name,
        strength=DEFAULT_STRENGTH if job.strength is None else job.strength,
    )
    resources.registry.add_version(new, activate=job.activate, check_cancelled=check_cancelled)
    head = resources.registry.get(character_id)
    return CharacterChangedResult(character=head, warnings=_warnings(found, resources))


def _known(character_id: str, resources: Resources) -> CharacterRecord | None:
    """The character as it is; what a job does not say of a further LoRA, its record does."""
    try:
        return resources.registry.get(character_id, tombstone=True)
    except CharacterNotFound:
        return None


def _reference_warnings(resources: Resources) -> list[str]:
    if any(workflow.references for workflow in resources.workflows.values()):
        return []
    told = (
        "No workflow of this worker takes reference photos; the character cannot be used until "
        "one is added, or it is trained."
    )
    return [told]


def _warnings(found: LoraFacts, resources: Resources) -> list[str]:
    """What a person should know who registers a file that is in order."""
    warnings = []
    if found.ignored:
        modules = found.modules + found.ignored
        warnings.append(f"ComfyUI ignores {found.ignored} of the file's {modules} modules.")
    workflows = resources.workflows.values()
    if not any(each.loras and each.base_model == found.base_model for each in workflows):
        warnings.append(
            f"No workflow of this worker runs on {found.base_model} with a LoRA; the character "
            "cannot be used until one is added."
        )
    return warnings
