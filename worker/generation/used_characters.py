"""The characters of a job: looked up, their triggers placed, their LoRAs fetched and held."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from lora_registry.character import CharacterRecord, UsableVersion
from worker.contract import CharacterUse
from worker.errors import InvalidInput
from worker.resources import JobContext, Resources
from worker.results import CharacterResult
from workflows.binding import LoraUse
from workflows.template import Workflow

PLACE = re.compile(r"\{(?i:trigger)(?::(?P<character_id>[a-z0-9][a-z0-9_-]{0,63}))?\}")


@dataclass(frozen=True, slots=True)
class Trigger:
    """The word that a character's LoRA was trained on."""

    character_id: str
    word: str


@dataclass(frozen=True, slots=True)
class ResolvedCharacter:
    """One character of a job: the version that is used, and how strongly."""

    version: UsableVersion
    strength: float

    @property
    def trigger(self) -> Trigger:
        """Its trigger, for the prompt."""
        return Trigger(self.version.character_id, self.version.trigger)

    def result(self) -> CharacterResult:
        """What the job's result says of it."""
        return CharacterResult(
            character_id=self.version.character_id,
            version=self.version.version,
            strength=self.strength,
            trigger=self.version.trigger,
        )


def resolve_characters(
    uses: Sequence[CharacterUse],
    workflow: Workflow,
    resources: Resources,
    records: Mapping[str, CharacterRecord],
) -> tuple[ResolvedCharacter, ...]:
    """Look every character up, all at once: one conditional GET each that is not in `records`.

    Where a character has versions for several base models, the workflow's is meant.

    Raises:
        CharacterNotFound, VersionNotFound, StoreError: as the registry says.
        InvalidInput: a LoRA for another base model than the workflow's.
    """
    if not uses:
        return ()
    if not workflow.loras:
        raise InvalidInput(f"workflow: {workflow.name!r} takes no characters.", field="workflow")

    def resolve(use: CharacterUse) -> ResolvedCharacter:
        record = records.get(use.character_id) or resources.registry.get(use.character_id)
        version = resources.registry.chosen(record, use.version, base_model=workflow.base_model)
        if version.base_model != workflow.base_model:
            raise InvalidInput(
                f"character_id: {use.character_id!r} was trained on {version.base_model}, workflow "
                f"{workflow.name!r} runs on {workflow.base_model}; choose another workflow.",
                field="character_id",
                details={"character": version.base_model, "workflow": workflow.base_model},
            )
        return ResolvedCharacter(
            version, version.strength if use.strength is None else use.strength
        )

    return tuple(resources.pool.map(resolve, uses))


@contextlib.contextmanager
def leased_loras(
    characters: Sequence[ResolvedCharacter], resources: Resources, context: JobContext
) -> Iterator[tuple[LoraUse, ...]]:
    """Fetch every LoRA, all at once, and keep the files from eviction for the block.

    Raises:
        LoraCorrupt, VersionNotFound, StoreError, Cancelled: as the cache says.
    """
    with ExitStack() as leases:

        def lease(character: ResolvedCharacter) -> Path:
            held = resources.loras.lease(character.version, check_cancelled=context.cancel.check)
            return leases.enter_context(held)

        with context.timings.phase("loras"):
            futures = [resources.pool.submit(lease, character) for character in characters]
            wait(futures)  # all of them: a failed one must not leave another's lease behind
            paths = [future.result() for future in futures]
        yield tuple(
            LoraUse(path.name, character.strength)
            for path, character in zip(paths, characters, strict=True)
        )


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
