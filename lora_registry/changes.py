"""How a character changes, pure: every change is a function `head → head`.

None of them reads a clock, a bucket or a random number: `stamped` puts revision, write id and time
on what they answer, so that a change can be replayed on whatever head another writer left behind.
A change that changes nothing returns the head it was given, and nothing is written then.
"""

from datetime import datetime
from typing import Final

from lora_registry.character import CharacterHead, CharacterVersion
from lora_registry.errors import (
    CharacterDeleted,
    CharacterInUse,
    CharacterNotFound,
    NothingToRollBack,
    VersionNotFound,
)

MAX_PREVIOUS: Final = 32
MAX_WRITES: Final = 32


def first_head(version: CharacterVersion, *, name: str) -> CharacterHead:
    """The head of a character that has one version, not active yet."""
    return CharacterHead(
        character_id=version.character_id,
        name=name,
        trigger=version.trigger,
        class_noun=version.class_noun,
        base_model=version.base_model,
        created_at=version.created_at,
        updated_at=version.created_at,
    )


def activated(head: CharacterHead, version: CharacterVersion) -> CharacterHead:
    """Make a version the active one; nothing changes if it is already.

    Raises:
        CharacterDeleted: a tombstone is restored first, on purpose.
        VersionNotFound: the version is another character's.
    """
    if head.deleted:
        raise CharacterDeleted(head.character_id)
    if version.character_id != head.character_id:
        raise VersionNotFound(head.character_id, version.id)
    if head.active is not None and head.active.id == version.id:
        return head
    before = () if head.active is None else (head.active.id,)
    previous = (*head.previous, *before)[-MAX_PREVIOUS:]
    return _carrying(head, version).model_copy(update={"previous": previous})


def renamed(head: CharacterHead, name: str | None) -> CharacterHead:
    """Give the character another display name; None keeps the one it has."""
    if name is None or name == head.name:
        return head
    return head.model_copy(update={"name": name})


def rollback_target(head: CharacterHead) -> str:
    """The version that was active before. Raises CharacterDeleted, NothingToRollBack."""
    if head.deleted:
        raise CharacterDeleted(head.character_id)
    if not head.previous:
        raise NothingToRollBack(head.character_id)
    return head.previous[-1]


def rolled_back(head: CharacterHead, version: CharacterVersion) -> CharacterHead:
    """Make the version before (`rollback_target`) the active one again; a second goes further."""
    if rollback_target(head) != version.id:
        raise VersionNotFound(head.character_id, version.id)
    return _carrying(head, version).model_copy(update={"previous": head.previous[:-1]})


def deleted(head: CharacterHead) -> CharacterHead:
    """Turn the head into a tombstone; its files stay until the grace period is over."""
    return head if head.deleted else head.model_copy(update={"status": "deleted"})


def restored(head: CharacterHead) -> CharacterHead:
    """Take a tombstone back, with the version that was active.

    Raises:
        CharacterNotFound: its files are removed already.
    """
    if head.swept:
        raise CharacterNotFound(
            head.character_id,
            f"Character {head.character_id!r} was deleted and its files are removed; register it "
            "again under another id, or under this one when the sweep is over.",
        )
    return head.model_copy(update={"status": "active"}) if head.deleted else head


def swept(head: CharacterHead) -> CharacterHead:
    """Mark a tombstone whose files go now: it names none of them any more.

    Raises:
        CharacterInUse: it was restored meanwhile.
    """
    if not head.deleted:
        raise CharacterInUse(head.character_id)
    return head.model_copy(update={"swept": True, "active": None, "previous": ()})


def stamped(head: CharacterHead, write_id: str, now: datetime) -> CharacterHead:
    """Put the marks of one write on a changed head; its time never goes backwards."""
    return head.model_copy(
        update={
            "revision": head.revision + 1,
            "write_id": write_id,
            "writes": (*head.writes, write_id)[-MAX_WRITES:],
            "updated_at": max(now, head.updated_at),
        }
    )


def _carrying(head: CharacterHead, version: CharacterVersion) -> CharacterHead:
    return head.model_copy(
        update={
            "active": version.active,
            "trigger": version.trigger,
            "class_noun": version.class_noun,
            "base_model": version.base_model,
        }
    )
