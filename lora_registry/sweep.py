"""Removing what nobody can use any more: tombstones past their grace period, and orphans.

Orphans are weight files that no version names (a writer died between the two), what a training left
whose version was never written, photos that no record names, markers without their record, and
objects of a probe. A version
whose record was never written is no orphan: it can be activated, and stays.

Nothing younger than the grace period is touched, so a writer that is still at work is safe as long
as the period is longer than any training takes.
"""

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

from lora_registry import layout
from lora_registry.changes import swept
from lora_registry.character import CharacterRecord, milliseconds, parse_version
from lora_registry.conditions import Conditions
from lora_registry.errors import CharacterInUse, CharacterNotFound, DocumentInvalid
from lora_registry.listing import all_character_ids
from lora_registry.parallel_map import parallel_map
from lora_registry.records import CharacterRecords, Replay
from lora_registry.store import ObjectInfo, ObjectMissing, Store

log = logging.getLogger(__name__)

DEFAULT_GRACE: Final = timedelta(days=7)

Reason = Literal[
    "deleted character",
    "orphan weights",
    "orphan training",
    "orphan reference",
    "marker",
    "probe",
]


@dataclass(frozen=True, slots=True)
class Removal:
    """One object that goes, and why; `size` in bytes."""

    key: str
    size: int
    reason: Reason


class ListingUntrusted(Exception):
    """A listing that lacks what is there for sure: nothing is removed on its word."""

    def __init__(self, prefix: str) -> None:
        super().__init__(f"The bucket does not list all that lies below {prefix!r}.")


class Sweep:
    """One sweep of a bucket.

    Args:
        store: the bucket.
        grace: nothing that was written or deleted later than this ago is touched.
        dry_run: only say what would go.
        clock: epoch seconds; its difference from the store's clock adds to the grace period.
    """

    def __init__(
        self,
        store: Store,
        *,
        grace: timedelta = DEFAULT_GRACE,
        dry_run: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._dry_run = dry_run
        self._records = CharacterRecords(store, Conditions(store), Replay(), clock)
        self._cutoff = clock() - grace.total_seconds()

    def run(self) -> Iterator[Removal]:
        """Yield each object that goes (dry run: would go); it is gone when it is yielded.

        About five requests a character, in memory that does not grow with their number. It can be
        run again after any interruption.

        Raises:
            StoreError: the store failed; what was yielded before is gone.
        """
        for removals in parallel_map(self._character, all_character_ids(self._store)):
            yield from removals
        yield from self._markers()
        probes = (info for info in self._store.list(layout.PROBES) if self._is_old(info))
        yield from self._removed(probes, "probe")

    def _character(self, character_id: str) -> list[Removal]:
        try:
            record = self._records.peek(character_id)
            if record is not None and self._is_due(record):
                return list(self._purged(record))
            return [*self._orphans(character_id, record), *self._photos(character_id)]
        except (DocumentInvalid, ListingUntrusted) as error:
            # What is named is unknown, so nothing may go.
            log.warning("character not swept", extra={"reason": str(error)})
        except (CharacterInUse, CharacterNotFound) as error:
            log.info("character not swept", extra={"reason": str(error)})
        return []

    def _is_due(self, record: CharacterRecord) -> bool:
        return record.swept or (record.deleted and record.updated_at < milliseconds(self._cutoff))

    def _purged(self, record: CharacterRecord) -> Iterator[Removal]:
        """Everything of a tombstone, its outputs too, the record last.

        The record names nothing any more before the first file goes, and stays while a file is
        younger than the grace period: a writer that is under way then still meets a tombstone.
        """
        if not self._dry_run:
            self._records.change(record.character_id, _swept, write_id=f"sweep-{uuid.uuid4().hex}")
        record_key = layout.record_key(record.character_id)
        folder = layout.folder(record.character_id)
        kept = False
        for info in self._listed(folder, record_key):
            if info.key == record_key:
                continue
            if self._is_old(info):
                yield self._remove(info.key, info.size, "deleted character")
            else:
                kept = True
        if not self._dry_run:
            # Looked at again: the tombstone goes only when nothing of the character is left.
            kept = any(info.key != record_key for info in self._listed(folder, record_key))
        if not kept:
            marker = layout.newest_key(record.character_id, record.created_at)
            yield self._remove(record_key, len(record.to_json()), "deleted character")
            yield self._remove(marker, 0, "marker")

    def _listed(self, prefix: str, known: str) -> list[ObjectInfo]:
        """A listing in which an object stands that is there for sure.

        Raises:
            ListingUntrusted: it does not.
        """
        found = list(self._store.list(prefix))
        if all(info.key != known for info in found):
            raise ListingUntrusted(prefix)
        return found

    def _orphans(self, character_id: str, record: CharacterRecord | None) -> Iterator[Removal]:
        weights = self._old(layout.weights_prefix(character_id))
        trainings = self._old(f"{layout.folder(character_id)}training/")
        if not weights and not trainings:
            return
        # Listed after the files: a version that came meanwhile is seen.
        ids = self._versions(character_id, record)
        named = {self._weights_of(character_id, version) for version in ids}
        if record is not None:
            named |= {active.key for active in (record.active, *record.families.values()) if active}
        unnamed = [info for info in weights if info.key not in named]
        lost = [info for info in trainings if _training_version(info.key) not in ids]
        if unnamed or lost:
            # A store that shows less once must not cost a file: what goes is named by no two looks.
            again = self._versions(character_id, record)
            named |= {self._weights_of(character_id, version) for version in again - ids}
            ids |= again
        yield from self._removed((i for i in unnamed if i.key not in named), "orphan weights")
        yield from self._removed(
            (info for info in lost if _training_version(info.key) not in ids), "orphan training"
        )

    def _versions(self, character_id: str, record: CharacterRecord | None) -> set[str]:
        """The ids of a character's versions. Raises ListingUntrusted if the record knows more."""
        prefix = layout.versions_prefix(character_id)
        ids = {layout.version_of(info.key) for info in self._store.list(prefix)}
        active = () if record is None else (record.active, *record.families.values())
        if any(version is not None and version.id not in ids for version in active):
            raise ListingUntrusted(prefix)
        return ids

    def _photos(self, character_id: str) -> Iterator[Removal]:
        photos = self._old(layout.references_prefix(character_id))
        if not photos:
            return
        # Read after the listing: a record that names them meanwhile is seen.
        record = self._records.peek(character_id)
        named = {reference.key for reference in record.references} if record else set()
        unnamed = (info for info in photos if info.key not in named)
        yield from self._removed(unnamed, "orphan reference")

    def _weights_of(self, character_id: str, version: str) -> str:
        key = layout.version_key(character_id, version)
        return parse_version(self._store.get(key).body, key).key

    def _markers(self) -> Iterator[Removal]:
        markers = (info for info in self._store.list(layout.NEWEST) if self._is_old(info))
        checked = parallel_map(lambda info: (info, self._is_marker(info.key)), markers)
        yield from self._removed((info for info, used in checked if not used), "marker")

    def _is_marker(self, key: str) -> bool:
        character_id = layout.newest_of(key)
        if not layout.is_character_id(character_id):
            return False
        record = self._records.peek(character_id)
        return record is not None and layout.newest_key(character_id, record.created_at) == key

    def _old(self, prefix: str) -> list[ObjectInfo]:
        return [info for info in self._store.list(prefix) if self._is_old(info)]

    def _is_old(self, info: ObjectInfo) -> bool:
        return info.modified < self._cutoff

    def _removed(self, infos: Iterable[ObjectInfo], reason: Reason) -> Iterator[Removal]:
        """Remove orphans, unless somebody wrote them anew since they were listed."""
        for info in infos:
            with suppress(ObjectMissing):
                if self._dry_run or self._is_old(self._store.head(info.key)):
                    yield self._remove(info.key, info.size, reason)

    def _remove(self, key: str, size: int, reason: Reason) -> Removal:
        if not self._dry_run:
            self._store.delete(key)
            log.info("object swept", extra={"key": key, "reason": reason})
        return Removal(key, size, reason)


def _swept(record: CharacterRecord | None) -> CharacterRecord:
    if record is None:
        raise CharacterNotFound("", "The character was removed meanwhile.")
    return swept(record)


def _training_version(key: str) -> str:
    return key.split("/training/", 1)[1].split("/", 1)[0]
