"""The registry's verbs: characters and their versions in a bucket, with no database beside it.

Reading needs no lock and no leader: a job reads one object. Adding a version writes weights, then
the version, then the record; a writer that dies in between leaves nothing that dangles, and its
job, run again with the same id, ends in exactly one version.
"""

import logging
import time
import uuid
from collections.abc import Callable

from lora_registry import layout, references
from lora_registry.changes import (
    activated,
    deleted,
    first_record,
    instant_record,
    referring,
    renamed,
    restored,
    rollback_target,
    rolled_back,
)
from lora_registry.character import (
    CharacterRecord,
    CharacterVersion,
    UsableVersion,
    milliseconds,
    pinned,
    usable,
)
from lora_registry.conditions import Conditions
from lora_registry.erasure import Erased, Erasure
from lora_registry.errors import CharacterDeleted, CharacterNotFound, VersionNotFound
from lora_registry.job_records import JobRecords
from lora_registry.listing import CharacterPage, Order, list_page
from lora_registry.records import CharacterRecords, RecordChange, Replay
from lora_registry.references import NewCharacter
from lora_registry.store import Store
from lora_registry.versions import NewVersion, Versions, checked

log = logging.getLogger(__name__)


class Registry:
    """The characters of one bucket; safe to share between threads.

    Args:
        store: the bucket.
        replay: for how long a change is replayed against other writers.
        clock: epoch seconds.
    """

    def __init__(
        self,
        store: Store,
        *,
        replay: Replay | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._replay = replay or Replay()
        self._clock = clock
        conditions = Conditions(store)
        self._versions = Versions(store, conditions, self._replay, clock)
        self._records = CharacterRecords(store, conditions, self._replay, clock)

    def get(self, character_id: str, *, tombstone: bool = False) -> CharacterRecord:
        """The record as it is now: one request, answered 304 when this process has read it before.

        Args:
            character_id: whose record.
            tombstone: answer a deleted character's record too, instead of raising.

        Raises:
            CharacterNotFound: the store says that there is none.
            CharacterDeleted: there is a tombstone.
            StoreError: the store did not say.
        """
        record = self._records.get(character_id)
        if record is None:
            raise CharacterNotFound(character_id)
        if record.deleted and not tombstone:
            raise CharacterDeleted(character_id)
        return record

    def resolve(
        self, character_id: str, version: str | None = None, *, base_model: str | None = None
    ) -> UsableVersion:
        """What a generation job needs: the active version, or the one that it names.

        One request (304 when warm); one more for a version other than an active one, once a
        process.

        Args:
            character_id: whose version.
            version: the one that a job names itself.
            base_model: the workflow's; its active version is meant, where there is one.

        Raises:
            CharacterNotFound, CharacterDeleted, VersionNotFound, NoActiveVersion, StoreError.
        """
        return self.chosen(self.get(character_id), version, base_model=base_model)

    def chosen(
        self, record: CharacterRecord, version: str | None = None, *, base_model: str | None = None
    ) -> UsableVersion:
        """`resolve` for a record that was read already."""
        if version is None or (record.active is not None and record.active.id == version):
            return usable(record, base_model if version is None else None)
        return pinned(record, self.version(record.character_id, version))

    def version(self, character_id: str, version: str) -> CharacterVersion:
        """One version's document, from memory after the first time.

        Raises:
            VersionNotFound: the store says that there is none.
            StoreError: the store did not say.
        """
        return self._versions.get(character_id, version)

    def versions(self, character_id: str) -> tuple[CharacterVersion, ...]:
        """Every version of a character, oldest first; also of one whose record was never written.

        One request, and one more for each version not read before.

        Raises:
            CharacterNotFound: there is neither a version nor a record.
        """
        versions = self._versions.all(character_id)
        if not versions:
            self.get(character_id, tombstone=True)
        return versions

    def made_by(self, character_id: str, job_id: str) -> CharacterVersion | None:
        """The version that an earlier run of a job wrote, if any; one request, or two."""
        for version in self._versions.ids(character_id):
            if layout.made_by(version, job_id):
                return self.version(character_id, version)
        return None

    def list(
        self,
        *,
        order: Order = "id",
        status: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> CharacterPage:
        """One page of characters; see `listing.list_page`."""
        return list_page(
            self._store, self._records, order=order, status=status, limit=limit, cursor=cursor
        )

    # Writing

    def add_version(
        self,
        new: NewVersion,
        *,
        activate: bool = True,
        check_cancelled: Callable[[], None] | None = None,
    ) -> CharacterVersion:
        """Register a LoRA: weights, then version, then record; five requests if nobody interferes.

        Run again with the same job id, also after a crash at any point and whatever the clock says,
        it ends in the same version; another file is then not sent.

        Args:
            new: the file and what is said about it.
            activate: make it the active version.
            check_cancelled: called during hashing and upload; what it raises ends the call.

        Raises:
            InvalidRequest: what is said about the file cannot be kept.
            CharacterDeleted: the character has a tombstone; the version is kept, to be activated
                once the character is restored.
            WriteConflict, StoreError: run it again.
        """
        new = checked(new)
        ids = self._replay.run(lambda: self._versions.ids(new.character_id))
        version = self._versions.add(new, ids, check_cancelled)
        self._adopt(version, new.name, activate=activate, fresh=not ids)
        return version

    def create(
        self, new: NewCharacter, *, check_cancelled: Callable[[], None] | None = None
    ) -> CharacterRecord:
        """Register reference photos: the photos, then the record; one request each and three.

        The character is there from then on, and stays when a version comes. One that there is gets
        these photos in the place of its own.

        Raises:
            InvalidRequest: no photos, too many, or texts that cannot be kept.
            CharacterDeleted: there is a tombstone; nothing was sent.
            WriteConflict, StoreError: run it again; photos that were sent stay until a sweep.
        """
        new = references.checked(new)
        known = self._records.get(new.character_id)
        if known is not None and known.deleted:
            raise CharacterDeleted(new.character_id)
        kept = self._replay.run(lambda: references.upload(self._store, new, check_cancelled))
        created_at = milliseconds(self._clock())

        def change(record: CharacterRecord | None) -> CharacterRecord:
            base = record or instant_record(new.character_id, created_at)
            changed = referring(base, kept, trigger=new.trigger, class_noun=new.class_noun)
            return renamed(changed, new.name)

        return self._change(new.character_id, change, "create", new.job_id)

    def adopt(
        self, version: CharacterVersion, *, name: str | None = None, activate: bool = True
    ) -> CharacterRecord:
        """The last step of `add_version` alone, for a version that `made_by` found.

        Changes nothing if the record was written before, whatever others made of it since.
        Raises as `add_version` does.
        """
        return self._adopt(version, name, activate=activate)

    def _adopt(
        self, version: CharacterVersion, name: str | None, *, activate: bool, fresh: bool = False
    ) -> CharacterRecord:
        def change(record: CharacterRecord | None) -> CharacterRecord:
            base = record or first_record(version, name=name or version.character_id)
            if base.deleted:
                raise CharacterDeleted(version.character_id)
            base = renamed(base, name)
            return activated(base, version) if activate else base

        write_id = f"add-{version.id}"
        record = self._records.change(version.character_id, change, write_id=write_id, fresh=fresh)
        log.info(
            "version added",
            extra={"character_id": version.character_id, "version": version.id, "active": activate},
        )
        return record

    def activate(
        self, character_id: str, version: str, *, job_id: str | None = None
    ) -> CharacterRecord:
        """Make a version the active one; writes a record where a crash left none.

        Args:
            character_id: whose version.
            version: its id.
            job_id: makes a retry of the same job change nothing again.

        Raises:
            VersionNotFound, CharacterDeleted, WriteConflict, StoreError.
        """
        document = self._known_version(character_id, version)

        def change(record: CharacterRecord | None) -> CharacterRecord:
            return activated(record or first_record(document, name=character_id), document)

        return self._change(character_id, change, "activate", job_id)

    def rollback(self, character_id: str, *, job_id: str | None = None) -> CharacterRecord:
        """Make the version active that was before the present one; a second goes further back.

        Raises:
            CharacterNotFound, CharacterDeleted, NothingToRollBack, WriteConflict, StoreError.
        """

        def change(record: CharacterRecord | None) -> CharacterRecord:
            found = _existing(record, character_id)
            return rolled_back(found, self.version(character_id, rollback_target(found)))

        return self._change(character_id, change, "rollback", job_id)

    def rename(self, character_id: str, name: str, *, job_id: str | None = None) -> CharacterRecord:
        """Give a character another display name.

        Raises:
            CharacterNotFound, CharacterDeleted, WriteConflict, StoreError.
        """

        def change(record: CharacterRecord | None) -> CharacterRecord:
            found = _existing(record, character_id)
            if found.deleted:
                raise CharacterDeleted(character_id)
            return renamed(found, name)

        return self._change(character_id, change, "rename", job_id)

    def delete(self, character_id: str, *, job_id: str | None = None) -> CharacterRecord:
        """Turn the record into a tombstone: refused by jobs from now on, files kept until swept.

        Raises:
            CharacterNotFound, WriteConflict, StoreError.
        """
        return self._change(
            character_id, lambda record: deleted(_existing(record, character_id)), "delete", job_id
        )

    def restore(self, character_id: str, *, job_id: str | None = None) -> CharacterRecord:
        """Take a tombstone back, as the character was.

        Raises:
            CharacterNotFound: never there, or its files are swept already.
            WriteConflict, StoreError.
        """
        return self._change(
            character_id,
            lambda record: restored(_existing(record, character_id)),
            "restore",
            job_id,
        )

    def erase(
        self,
        character_id: str,
        jobs: JobRecords,
        *,
        check_cancelled: Callable[[], None] = lambda: None,
    ) -> Erased:
        """Remove everything of a character at once and for good, the records of its jobs too.

        Raises:
            CharacterNotFound: there is none, nor anything left of one.
            CharacterInUse: a job of it is under way.
            StoreError: what is gone stays gone; run it again.
        """
        return Erasure(self._store, self._records, jobs, character_id, check_cancelled).run()

    def _change(
        self, character_id: str, change: RecordChange, verb: str, job_id: str | None
    ) -> CharacterRecord:
        part = layout.job_part(job_id) if job_id else uuid.uuid4().hex
        record = self._records.change(character_id, change, write_id=f"{verb}-{part}")
        facts = {"character_id": character_id, "verb": verb, "revision": record.revision}
        log.info("character changed", extra=facts)
        return record

    def _known_version(self, character_id: str, version: str) -> CharacterVersion:
        try:
            return self.version(character_id, version)
        except VersionNotFound:
            self.get(character_id, tombstone=True)  # says so if it is the character that is missing
            raise


def _existing(record: CharacterRecord | None, character_id: str) -> CharacterRecord:
    if record is None:
        raise CharacterNotFound(character_id)
    return record
