"""Versions in the bucket: immutable documents, one for each LoRA, and the weights they name."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from lora_registry import fields, layout
from lora_registry.character import (
    CharacterVersion,
    VersionLikeness,
    milliseconds,
    parse_version,
)
from lora_registry.conditions import Conditions
from lora_registry.errors import DocumentInvalid, VersionNotFound, refused_as
from lora_registry.records import Memory, Replay, unless_torn
from lora_registry.store import ObjectMissing, PreconditionFailed, Store
from lora_registry.tensorfile import sha256_of

DEFAULT_STRENGTH: Final = 1.0
_REMEMBERED: Final = 4096  # documents of about 1 KB each, which never change
_READERS: Final = 16
WEIGHTS_TYPE: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A LoRA file about to be registered, and what is said about it.

    Attributes:
        character_id: whose it is.
        job_id: the job that made it; the same id again means the same version.
        weights: the local .safetensors file.
        base_model: the family it is for, as the caller found it.
        format: the file's key layout, for people.
        rank: the rank that most of its modules have.
        trigger: the word that calls the character in a prompt.
        class_noun: what the character is ("person").
        name: the character's display name; None keeps the present one, or takes the id.
        strength: what a job uses that names none, -2 to 2.
        training: what is worth keeping about how it came to be, JSON values only.
        likeness: how alike its pictures are, where that was measured.
    """

    character_id: str
    job_id: str
    weights: Path
    base_model: str
    format: str
    rank: int
    trigger: str
    class_noun: str = "person"
    name: str | None = None
    strength: float = DEFAULT_STRENGTH
    training: dict[str, Any] | None = None
    likeness: VersionLikeness | None = None


class Versions:
    """The versions of one bucket; safe to share between threads.

    Args:
        store: the bucket.
        conditions: asked on the write path only.
        replay: for how long a write is replayed.
        clock: epoch seconds, for ids and documents.
    """

    def __init__(
        self,
        store: Store,
        conditions: Conditions,
        replay: Replay,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._conditions = conditions
        self._replay = replay
        self._clock = clock
        self._memory: Memory[CharacterVersion] = Memory(_REMEMBERED)

    def get(self, character_id: str, version: str) -> CharacterVersion:
        """One document, from memory after the first time.

        Raises:
            VersionNotFound: the store says that there is none.
            StoreError: the store did not say.
        """
        key = layout.version_key(character_id, version)
        known = self._memory.get(key)
        if known is not None:
            return known
        try:
            return unless_torn(lambda: self._remember(self._read(character_id, version)))
        except ObjectMissing as error:
            raise VersionNotFound(character_id, version) from error

    def _read(self, character_id: str, version: str) -> CharacterVersion:
        key = layout.version_key(character_id, version)
        found = parse_version(self._store.get(key).body, key)
        # A cache that mixes answers up must not give one character another's face.
        if (found.character_id, found.id) != (character_id, version):
            raise DocumentInvalid(key, "what the bucket gives for it is another version's")
        return found

    def ids(self, character_id: str) -> tuple[str, ...]:
        """Every version's id, oldest first; one request."""
        prefix = layout.versions_prefix(character_id)
        return tuple(layout.version_of(info.key) for info in self._store.list(prefix))

    def all(self, character_id: str) -> tuple[CharacterVersion, ...]:
        """Every version, oldest first: one request, and one for each not read before."""
        ids = self.ids(character_id)
        with ThreadPoolExecutor(_READERS) as readers:
            return tuple(readers.map(lambda version: self.get(character_id, version), ids))

    def add(
        self, new: NewVersion, ids: Sequence[str], check_cancelled: Callable[[], None] | None
    ) -> CharacterVersion:
        """Write the weights, then the document; or answer what this job wrote before.

        Args:
            new: the file and what is said about it.
            ids: the versions there are.
            check_cancelled: called during hashing and upload; what it raises ends the call.

        Raises:
            StoreError: the store failed; doing it again is safe.
        """
        for version in ids:
            if layout.made_by(version, new.job_id):
                return self.get(new.character_id, version)
        document = self._document(new, ids, check_cancelled)
        self._replay.run(lambda: self._upload(new.weights, document, check_cancelled))
        return self.write(document)

    def write(self, version: CharacterVersion) -> CharacterVersion:
        """Write a document whose weights are in the bucket already."""
        key, body = layout.version_key(version.character_id, version.id), version.to_json()

        def attempt() -> CharacterVersion:
            try:
                self._conditions.create(key, body)
            except PreconditionFailed:
                return self._written(version)
            return self._remember(version)

        return self._replay.run(attempt)

    def _written(self, version: CharacterVersion) -> CharacterVersion:
        """What is there already: ours, behind a lost reply, or that of the same job run twice."""
        try:
            return self.get(version.character_id, version.id)
        except VersionNotFound as error:  # refused for another reason: try again
            key = layout.version_key(version.character_id, version.id)
            raise PreconditionFailed(key) from error

    def _upload(
        self, weights: Path, document: CharacterVersion, check_cancelled: Callable[[], None] | None
    ) -> None:
        """Send the weights, also if they are there: a sweep then takes them for new."""
        self._store.upload(
            weights,
            document.key,
            WEIGHTS_TYPE,
            metadata={"sha256": document.sha256},
            check_cancelled=check_cancelled,
            shared=True,
        )

    def _document(
        self, new: NewVersion, ids: Sequence[str], check_cancelled: Callable[[], None] | None
    ) -> CharacterVersion:
        sha256 = sha256_of(new.weights, check_cancelled=check_cancelled)
        created_at = _after(ids, milliseconds(self._clock()))
        return CharacterVersion(
            character_id=new.character_id,
            id=layout.version_id(created_at, new.job_id),
            job_id=new.job_id,
            key=layout.weights_key(new.character_id, sha256),
            sha256=sha256,
            size=new.weights.stat().st_size,
            rank=new.rank,
            strength=new.strength,
            format=new.format,
            trigger=new.trigger,
            class_noun=new.class_noun,
            base_model=new.base_model,
            created_at=created_at,
            training=new.training,
            likeness=new.likeness,
        )

    def _remember(self, version: CharacterVersion) -> CharacterVersion:
        return self._memory.put(layout.version_key(version.character_id, version.id), version)


def checked(new: NewVersion) -> NewVersion:
    """The same with every text in its one form, or refused: what no job could use.

    Raises:
        InvalidRequest: with the field; cheap, so ask before anything that is not.
    """
    with refused_as("character_id"):
        fields.character_id(new.character_id)
    with refused_as("strength"):
        fields.strength(new.strength)
    with refused_as("trigger"):
        trigger = fields.short_text(new.trigger)
    with refused_as("class_noun"):
        class_noun = fields.short_text(new.class_noun)
    with refused_as("name"):
        name = None if new.name is None else fields.short_text(new.name)
    return replace(new, trigger=trigger, class_noun=class_noun, name=name)


def _after(ids: Sequence[str], now: datetime) -> datetime:
    """A time later than that of every version there is, however the clocks differ."""
    times = [at for at in map(layout.made_at, ids) if at is not None]
    return max(now, max(times) + timedelta(milliseconds=1)) if times else now
