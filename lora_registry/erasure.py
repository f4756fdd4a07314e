"""Erasing a character for good: whatever of it, or made from it, the bucket holds.

Unlike a tombstone's sweep it waits for no grace period, and it reaches beyond the character's
folder: the photos that were uploaded for it, clips that were made of its pictures, and the records
of its jobs. Order makes it safe to be run again after a crash: the tombstone comes first, so that
nothing new begins, and the records and the head, which tell what is left to do, go last.
"""

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from lora_registry import layout
from lora_registry.changes import deleted, swept
from lora_registry.character import CharacterRecord
from lora_registry.errors import CharacterInUse, CharacterNotFound
from lora_registry.job_records import JobNotFound, JobRecord, JobRecords
from lora_registry.parallel_map import parallel_map
from lora_registry.records import CharacterRecords
from lora_registry.store import ObjectMissing, Store

log = logging.getLogger(__name__)

_OURS: Final = ("inputs/", "base/outputs/")
"""Where else than in its own folder objects of a character lie."""


@dataclass(frozen=True, slots=True)
class Erased:
    """What went: objects of the bucket, and records of jobs."""

    objects: int
    jobs: int


@dataclass(frozen=True, slots=True)
class _Trace:
    """What one job's record says that matters here."""

    record: JobRecord
    characters: frozenset[str]
    keys: frozenset[str]


class Erasure:
    """The erasing of one character.

    Args:
        store: the bucket.
        heads: its characters.
        jobs: its records of jobs.
        character_id: whose.
        check_cancelled: raises where the job is to end; what is gone by then stays gone.
    """

    def __init__(
        self,
        store: Store,
        heads: CharacterRecords,
        jobs: JobRecords,
        character_id: str,
        check_cancelled: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._heads = heads
        self._jobs = jobs
        self._id = character_id
        self._folder = layout.folder(character_id)
        self._check_cancelled = check_cancelled
        self._objects = 0

    def run(self) -> Erased:
        """Erase; one request a record of any job, and two an object of the character.

        Raises:
            CharacterNotFound: there is none, nor anything left of one.
            CharacterInUse: a job of it is under way; it is deleted then, and can be erased later.
            StoreError: what is gone stays gone; run it again.
        """
        head = self._tombstone()
        layers = self._traces()
        touched = [each for layer in layers for each in layer]
        running = [each.record.id for each in touched if not each.record.final]
        if running:
            raise CharacterInUse(
                self._id,
                f"Jobs of {self._id!r} are under way ({', '.join(running[:3])}): cancel them or "
                "wait until they have ended, then erase it again.",
            )
        self._remove(self._beyond(touched))
        record_key = layout.record_key(self._id)
        self._remove(info.key for info in self._store.list(self._folder) if info.key != record_key)
        for layer in reversed(layers):  # a record leads to those behind it, so it goes after them
            for _ in parallel_map(self._jobs.forget, [each.record for each in layer]):
                self._check_cancelled()
        if head is not None:
            self._remove([layout.newest_key(self._id, head.created_at), record_key])
        log.info("character erased", extra={"character_id": self._id, "objects": self._objects})
        return Erased(self._objects, len(touched))

    def _tombstone(self) -> CharacterRecord | None:
        """The head as a tombstone that names no file; None where only files were left."""
        if self._heads.peek(self._id) is None:
            if next(iter(self._store.list(self._folder)), None) is None:
                raise CharacterNotFound(self._id)
            return None

        def change(record: CharacterRecord | None) -> CharacterRecord:
            if record is None:
                raise CharacterNotFound(self._id)
            return record if record.swept else swept(deleted(record))

        return self._heads.change(self._id, change, write_id=f"erase-{uuid.uuid4().hex}")

    def _traces(self) -> list[list[_Trace]]:
        """Jobs that name the character, then those that use what such jobs made, and so on."""
        left = [_traced(record) for record in self._records()]
        layers: list[list[_Trace]] = []
        theirs: set[str] = set()
        while grown := [each for each in left if self._touches(each, theirs)]:
            layers.append(grown)
            left = [each for each in left if each not in grown]
            theirs |= {key for each in grown for key in each.keys if key.startswith(_OURS)}
        return layers

    def _records(self) -> Iterator[JobRecord]:
        for record in parallel_map(self._record, self._jobs.ids()):
            self._check_cancelled()
            # An erasing job's own record says that it was done, and is all that stays.
            if record is not None and record.input.get("action") != "erase":
                yield record

    def _record(self, job_id: str) -> JobRecord | None:
        try:
            return self._jobs.get(job_id)
        except JobNotFound:
            return None

    def _touches(self, trace: _Trace, theirs: set[str]) -> bool:
        return (
            self._id in trace.characters
            or any(key.startswith(self._folder) for key in trace.keys)
            or not theirs.isdisjoint(trace.keys)
        )

    def _beyond(self, touched: Iterable[_Trace]) -> Iterator[str]:
        """Objects outside the character's folder: uploads, and outputs that lie elsewhere."""
        for trace in touched:
            made = {key for key in _keys(trace.record.outcome) if "/outputs/" in key}
            given = {key for key in _keys(trace.record.input) if key.startswith(_OURS)}
            yield from (key for key in made | given if not key.startswith(self._folder))

    def _remove(self, keys: Iterable[str]) -> None:
        for was_there in parallel_map(self._removed, dict.fromkeys(keys)):
            self._check_cancelled()
            self._objects += was_there

    def _removed(self, key: str) -> bool:
        try:
            self._store.head(key)
        except ObjectMissing:
            return False
        self._store.delete(key)
        return True


def _traced(record: JobRecord) -> _Trace:
    names = {str(value) for value in _named(record.input) | _named(record.outcome)}
    return _Trace(record, frozenset(names), frozenset(_keys([record.input, record.outcome])))


def _named(document: Mapping[str, Any]) -> set[Any]:
    """The characters that a job's input, or its answer, names."""
    used = [document, document.get("character"), *(document.get("characters") or ())]
    return {
        each["character_id"] for each in used if isinstance(each, dict) and each.get("character_id")
    }


def _keys(value: Any) -> Iterator[str]:
    """Every object's key in a document, at any depth."""
    if isinstance(value, list):
        for each in value:
            yield from _keys(each)
    elif isinstance(value, dict):
        for name, each in value.items():
            if name == "key" and isinstance(each, str):
                yield each
            else:
                yield from _keys(each)
