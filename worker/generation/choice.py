"""Which workflow a job runs that names none: the default of its characters' base model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from lora_registry.character import CharacterRecord, migrated
from worker.contract import CharacterUse
from worker.errors import InvalidInput
from worker.resources import JobContext, Resources

Kind = Literal["image", "video"]

DEFAULT_WORKFLOWS: Final[Mapping[Kind, str]] = {"image": "sdxl", "video": "svd"}
"""Of jobs without a character."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A workflow's name, and the records that were read to find it, by character."""

    workflow: str
    records: Mapping[str, CharacterRecord] = field(default_factory=dict)


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


def default_workflow(kind: Kind, base_model: str, resources: Resources) -> str | None:
    """The workflow that a family names for its LoRAs, else the first that takes them; or None."""
    if base_model in resources.families:
        named = resources.families[base_model].workflows.get(kind)
        if named in resources.workflows:
            return named
    fitting = (
        workflow.name
        for workflow in resources.workflows.values()
        if workflow.kind == kind and workflow.base_model == base_model and workflow.loras
    )
    return min(fitting, default=None)


def reference_workflow(kind: Kind, resources: Resources) -> str | None:
    """The first workflow that takes reference photos, one that can run before others; or None."""
    lacking = resources.availability.lacking()
    names = (flow.name for flow in resources.workflows.values() if flow.kind == kind)
    taking = [name for name in names if resources.workflows[name].references]
    return min(taking, key=lambda name: (name in lacking, name), default=None)


def _base_models(record: CharacterRecord, use: CharacterUse, resources: Resources) -> list[str]:
    """The base models that a character can be used on, the preferred one first."""
    if use.version is not None:
        return [resources.registry.chosen(record, use.version).base_model]
    families = migrated(record).families
    return sorted(families, key=lambda name: (name != record.base_model, name))
