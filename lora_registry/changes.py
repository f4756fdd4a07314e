"""How a character changes, pure: every change is a function `record → record`.

None of them reads a clock, a bucket or a random number: `stamped` puts revision, write id and time
on what they answer, so that a change can be replayed on whatever record another writer left behind.
A change that changes nothing returns the record it was given, and nothing is written then.
"""

from datetime import datetime
from typing import Final

from lora_registry.character import CharacterRecord, CharacterVersion, Reference
from lora_registry.errors import (
    CharacterDeleted,
    CharacterInUse,
    CharacterNotFound,
    NothingToRollBack,
    VersionNotFound,
)

MAX_PREVIOUS: Final = 32
MAX_WRITES: Final = 32


def first_record(version: CharacterVersion, *, name: str) -> CharacterRecord:
    """The record of a character that has one version, not active yet."""
    return CharacterRecord(
        character_id=version.character_id,
        name=name,
        trigger=version.trigger,
        class_noun=version.class_noun,
        base_model=version.base_model,
        created_at=version.created_at,
        updated_at=version.created_at,
    )


def instant_record(character_id: str, created_at: datetime) -> CharacterRecord:
    """The record of a character that has no version: `referring` gives it its photos."""
    return CharacterRecord(
        character_id=character_id,
        name=character_id,
        trigger=character_id,
        class_noun="person",
        base_model="",
        created_at=created_at,
        updated_at=created_at,
    )


def referring(
    record: CharacterRecord,
    references: tuple[Reference, ...],
    *,
    trigger: str | None = None,
    class_noun: str | None = None,
) -> CharacterRecord:
    """Give a character other reference photos.

    Trigger and class noun are those that a LoRA was trained on as soon as there is one, and stay.

    Raises:
        CharacterDeleted: a tombstone is restored first, on purpose.
    """
    if record.deleted:
        raise CharacterDeleted(record.character_id)
    changed = record.model_copy(update={"references": references})
    if record.active is None:
        words = {
            "trigger": trigger or record.trigger,
            "class_noun": class_noun or record.class_noun,
        }
        changed = changed.model_copy(update=words)
    return record if changed == record else changed


def activated(record: CharacterRecord, version: CharacterVersion) -> CharacterRecord:
    """Make a version the active one, and its base model's; nothing changes if it is already.

    What a rollback goes back to are versions of the same base model: one of another stays active
    for the workflows of that other.

    Raises:
        CharacterDeleted: a tombstone is restored first, on purpose.
        VersionNotFound: the version is another character's.
    """
    if record.deleted:
        raise CharacterDeleted(record.character_id)
    if version.character_id != record.character_id:
        raise VersionNotFound(record.character_id, version.id)
    if record.active is not None and record.active.id == version.id:
        return record
    known = record.families.get(version.base_model)
    previous = () if known is None else known.previous
    if known is not None and known.id != version.id:
        previous = (*previous, known.id)[-MAX_PREVIOUS:]
    return _carrying(record, version, previous)


def renamed(record: CharacterRecord, name: str | None) -> CharacterRecord:
    """Give the character another display name; None keeps the one it has."""
    if name is None or name == record.name:
        return record
    return record.model_copy(update={"name": name})


def rollback_target(record: CharacterRecord) -> str:
    """The version that was active before. Raises CharacterDeleted, NothingToRollBack."""
    if record.deleted:
        raise CharacterDeleted(record.character_id)
    if not record.previous:
        raise NothingToRollBack(record.character_id)
    return record.previous[-1]


def rolled_back(record: CharacterRecord, version: CharacterVersion) -> CharacterRecord:
    """Make the version before (`rollback_target`) the active one again; a second goes further."""
    if rollback_target(record) != version.id:
        raise VersionNotFound(record.character_id, version.id)
    return _carrying(record, version, record.previous[:-1])


def deleted(record: CharacterRecord) -> CharacterRecord:
    """Turn the record into a tombstone; its files stay until the grace period is over."""
    return record if record.deleted else record.model_copy(update={"status": "deleted"})


def restored(record: CharacterRecord) -> CharacterRecord:
    """Take a tombstone back, with the version that was active.

    Raises:
        CharacterNotFound: its files are removed already.
    """
    if record.swept:
        raise CharacterNotFound(
            record.character_id,
            f"Character {record.character_id!r} was deleted and its files are removed; register it "
            "again under another id, or under this one when the sweep is over.",
        )
    return record.model_copy(update={"status": "active"}) if record.deleted else record


def swept(record: CharacterRecord) -> CharacterRecord:
    """Mark a tombstone whose files go now: it names none of them any more.

    Raises:
        CharacterInUse: it was restored meanwhile.
    """
    if not record.deleted:
        raise CharacterInUse(record.character_id)
    return record.model_copy(
        update={"swept": True, "active": None, "previous": (), "families": {}, "references": ()}
    )


def stamped(record: CharacterRecord, write_id: str, now: datetime) -> CharacterRecord:
    """Put the marks of one write on a changed record; its time never goes backwards."""
    return record.model_copy(
        update={
            "revision": record.revision + 1,
            "write_id": write_id,
            "writes": (*record.writes, write_id)[-MAX_WRITES:],
            "updated_at": max(now, record.updated_at),
        }
    )


def _carrying(
    record: CharacterRecord, version: CharacterVersion, previous: tuple[str, ...]
) -> CharacterRecord:
    entry = version.of_family(previous)
    return record.model_copy(
        update={
            "active": version.active,
            "trigger": version.trigger,
            "class_noun": version.class_noun,
            "base_model": version.base_model,
            "previous": previous,
            "families": {**record.families, version.base_model: entry},
        }
    )
