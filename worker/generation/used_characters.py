"""The characters of a job: looked up, their triggers placed, LoRAs and photos fetched and held.

They also decide which workflow runs where the job names none: their base model's default.
"""

import contextlib
import re
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lora_registry.character import CharacterRecord, Reference, UsableVersion, migrated
from lora_registry.errors import ReferenceMissing
from lora_registry.store import ObjectMissing
from worker.contract_fields import CharacterUse
from worker.errors import InvalidInput
from worker.generation.references import shared, shown_in
from worker.resources import JobContext, Resources
from worker.results import CharacterResult
from workflows.binding import LoraUse
from workflows.template import Workflow

Kind = Literal["image", "video"]
PLACE = re.compile(r"\{(?i:trigger)(?::(?P<character_id>[a-z0-9][a-z0-9_-]{0,63}))?\}")


@dataclass(frozen=True, slots=True)
class Trigger:
    """The word that a character's LoRA was trained on."""

    character_id: str
    word: str


@dataclass(frozen=True, slots=True)
class ResolvedCharacter:
    """One character of a job: the version that is used and how strongly, the photos that are.

    Attributes:
        version: None where the workflow takes its photos alone.
        strength: of the version's LoRA.
        references: input of the workflow -> the photo that goes there.
        word: what calls it in the prompt: the trigger of its LoRA, else where its photos are.
    """

    character_id: str
    version: UsableVersion | None
    strength: float
    references: Mapping[str, Reference]
    word: str

    @property
    def trigger(self) -> Trigger:
        """Its word, for the prompt."""
        return Trigger(self.character_id, self.word)

    def result(self) -> CharacterResult:
        """What the job's result says of it."""
        return CharacterResult(
            character_id=self.character_id,
            version=self.version.version if self.version else None,
            strength=self.strength if self.version else None,
            trigger=self.word,
            references=len(self.references) or None,
        )


def resolve_characters(
    uses: Sequence[CharacterUse],
    workflow: Workflow,
    resources: Resources,
    records: Mapping[str, CharacterRecord],
    brought: Collection[str] = (),
) -> tuple[ResolvedCharacter, ...]:
    """Look every character up, all at once: one conditional GET each that is not in `records`.

    Where a character has versions for several base models, the workflow's is meant; where it has
    none for it, its reference photos alone are used, if the workflow takes such.

    Args:
        uses: the characters that the job names.
        workflow: the one that runs.
        resources: the worker's.
        records: of the characters that were read already.
        brought: inputs that the job fills itself; no reference goes there.

    Raises:
        CharacterNotFound, VersionNotFound, StoreError: as the registry says.
        InvalidInput: a LoRA for another base model than the workflow's, or more characters by
            photo than it takes photos.
    """
    if not uses:
        return ()
    if not (workflow.loras or workflow.references):
        raise InvalidInput(f"workflow: {workflow.name!r} takes no characters.", field="workflow")

    def resolve(use: CharacterUse) -> tuple[CharacterRecord, UsableVersion | None]:
        record = records.get(use.character_id) or resources.registry.get(use.character_id)
        return record, _version(use, record, workflow, resources)

    found = list(resources.pool.map(resolve, uses))
    inputs = [name for name in workflow.references if name not in brought]
    placed = shared([record for record, _ in found], inputs) if inputs else {}
    resolved = []
    for use, (record, version) in zip(uses, found, strict=True):
        photos = placed.get(record.character_id, {})
        if version is None and not photos:
            raise InvalidInput(
                f"character_id: workflow {workflow.name!r} takes {len(inputs)} reference photos, "
                f"and there is none left for {record.character_id!r}; name fewer characters.",
                field="character_id",
                details={"references": len(inputs), "characters": len(uses)},
            )
        strength = version.strength if version else 0.0
        resolved.append(
            ResolvedCharacter(
                record.character_id,
                version,
                strength if use.strength is None else use.strength,
                photos,
                version.trigger if version else shown_in(record.class_noun, photos, workflow),
            )
        )
    return tuple(resolved)


def _version(
    use: CharacterUse, record: CharacterRecord, workflow: Workflow, resources: Resources
) -> UsableVersion | None:
    """The LoRA that the workflow takes of a character; None: it takes its photos alone."""
    photos = bool(workflow.references and record.references)
    fits = workflow.loras and workflow.base_model in migrated(record).families
    if photos and use.version is None and not fits:
        return None
    if not workflow.loras:
        raise InvalidInput(
            f"character_id: workflow {workflow.name!r} takes reference photos and no LoRA; "
            f"create {use.character_id!r} from its photos, or choose another workflow.",
            field="character_id",
        )
    version = resources.registry.chosen(record, use.version, base_model=workflow.base_model)
    if version.base_model != workflow.base_model:
        raise InvalidInput(
            f"character_id: {use.character_id!r} was trained on {version.base_model}, workflow "
            f"{workflow.name!r} runs on {workflow.base_model}; choose another workflow.",
            field="character_id",
            details={"character": version.base_model, "workflow": workflow.base_model},
        )
    return version


@contextlib.contextmanager
def leased_loras(
    characters: Sequence[ResolvedCharacter], resources: Resources, context: JobContext
) -> Iterator[tuple[LoraUse, ...]]:
    """Fetch every LoRA, all at once, and keep the files from eviction for the block.

    Raises:
        LoraCorrupt, VersionNotFound, StoreError, Cancelled: as the cache says.
    """
    trained = [(each.version, each.strength) for each in characters if each.version]
    with ExitStack() as leases:

        def lease(version: UsableVersion) -> Path:
            held = resources.loras.lease(version, check_cancelled=context.cancel.check)
            return leases.enter_context(held)

        with context.timings.phase("loras"):
            futures = [resources.pool.submit(lease, version) for version, _ in trained]
            wait(futures)  # all of them: a failed one must not leave another's lease behind
            paths = [future.result() for future in futures]
        yield tuple(
            LoraUse(path.name, strength) for path, (_, strength) in zip(paths, trained, strict=True)
        )


@contextlib.contextmanager
def placed_references(
    characters: Sequence[ResolvedCharacter], resources: Resources, context: JobContext
) -> Iterator[dict[str, str]]:
    """Have every photo in ComfyUI's input folder while inside: input of the workflow -> file.

    Raises:
        ReferenceMissing: a photo is not in the bucket.
        StoreError, Cancelled, DiskFull.
    """
    wanted = [
        (name, character.character_id, photo)
        for character in characters
        for name, photo in character.references.items()
    ]
    if not wanted:
        yield {}
        return

    def fetch(item: tuple[str, str, Reference]) -> bytes:
        _, character_id, photo = item
        context.cancel.check()
        try:
            return resources.store.get(photo.key).body
        except ObjectMissing as error:
            raise ReferenceMissing(character_id) from error

    placed: dict[str, str] = {}
    try:
        with context.timings.phase("media"):
            bodies = list(resources.pool.map(fetch, wanted))
            run = uuid.uuid4().hex[:12]
            for (name, _, _), body in zip(wanted, bodies, strict=True):
                placed[name] = resources.comfyui.place_input(body, f"{run}-{name}.jpg")
        yield placed
    finally:
        for file in placed.values():
            resources.comfyui.remove_input(file)


def place_triggers(prompt: str, triggers: Sequence[Trigger]) -> str:
    """Put every trigger into the prompt once.

    `{trigger}` marks the place (with several characters: of all that have no place of their own),
    `{trigger:mira}` the place of one; a trigger that the prompt carries already is left alone; any
    other leads the prompt. Without characters the marks are taken out.
    """
    words = {trigger.character_id: trigger.word for trigger in triggers}
    own = {match["character_id"] for match in PLACE.finditer(prompt)} & set(words)
    bare = PLACE.sub(" ", prompt)
    others = [
        trigger.word
        for trigger in triggers
        if trigger.character_id not in own and not carries(bare, trigger.word)
    ]
    marked = any(match["character_id"] is None for match in PLACE.finditer(prompt))

    def replacement(match: re.Match[str]) -> str:
        named = match["character_id"]
        return ", ".join(others) if named is None else words.get(named, "")

    placed = _tidy(PLACE.sub(replacement, prompt)) if PLACE.search(prompt) else prompt
    return placed if marked or not others else ", ".join([*others, placed])


def fill_triggers(text: str, triggers: Sequence[Trigger]) -> str:
    """Put triggers where a text marks their places, and nowhere else: `{trigger}` takes all."""
    words = {trigger.character_id: trigger.word for trigger in triggers}

    def replacement(match: re.Match[str]) -> str:
        named = match["character_id"]
        return ", ".join(words.values()) if named is None else words.get(named, "")

    return PLACE.sub(replacement, text)


def check_places(text: str, field: str, uses: Sequence[CharacterUse]) -> None:
    """See to it that every `{trigger:id}` is of a character that the job names.

    Raises:
        InvalidInput: with `field`.
    """
    known = [use.character_id for use in uses]
    for match in PLACE.finditer(text):
        if match["character_id"] is not None and match["character_id"] not in known:
            raise InvalidInput(
                f"{field}: {match[0]} is of no character of this job "
                f"(it has: {', '.join(known) or 'none'}).",
                field=field,
            )


def carries(prompt: str, word: str) -> bool:
    """Whether the prompt has the trigger as a word of its own, in any case."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", prompt, re.IGNORECASE) is not None


def _tidy(text: str) -> str:
    return re.sub(r"\s+([,.])", r"\1", re.sub(r" {2,}", " ", text)).strip(" ,")


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
