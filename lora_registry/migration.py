"""Moving characters between buckets: export into an archive, import from one."""

import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lora_registry import layout
from lora_registry.conditions import Conditions
from lora_registry.errors import CharacterNotFound
from lora_registry.export_archive import ArchiveReader, ArchiveWriter
from lora_registry.records import CharacterRecords, Replay
from lora_registry.store import ObjectMissing, Store
from lora_registry.versions import WEIGHTS_TYPE, Versions

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did for a character; `head`: its record was written, none was there."""

    character_id: str
    versions: int
    head: bool


def export_characters(
    store: Store,
    path: Path,
    character_ids: Iterable[str],
    *,
    clock: Callable[[], float] = time.time,
) -> Iterator[str]:
    """Write an archive; yields each character that is in it. The file appears whole, or not.

    Raises:
        CharacterNotFound: there is nothing of that id.
        StoreError: the store failed; no file is left.
    """
    with ArchiveWriter(path) as archive, tempfile.TemporaryDirectory(prefix="export-") as scratch:
        for character_id in character_ids:
            _export(store, archive, character_id, Path(scratch) / "object")
            yield character_id
        archive.finish(clock())


def import_characters(store: Store, path: Path) -> Iterator[Imported]:
    """Check a whole archive, then write: weights, versions, records; yields each character.

    What the bucket has already is left as it is: an import can be run again, and undoes nothing
    that others did.

    Raises:
        ArchiveInvalid: cut off, damaged or not one of ours; nothing was written.
        StoreError: the store failed; run it again.
    """
    conditions, replay = Conditions(store), Replay()
    versions = Versions(store, conditions, replay)
    records = CharacterRecords(store, conditions, replay)
    with ArchiveReader(path) as archive, tempfile.TemporaryDirectory(prefix="import-") as scratch:
        for character_id, names in archive.characters().items():
            record_key, prefix = (
                layout.record_key(character_id),
                layout.versions_prefix(character_id),
            )
            documents = [name for name in names if name.startswith(prefix)]
            for name in names:
                if name != record_key and name not in documents:
                    _place(store, archive, name, Path(scratch) / "object")
            for name in documents:
                versions.write(archive.version(name))
            placed = record_key in names and records.place(archive.head(record_key))
            log.info("character imported", extra={"character_id": character_id, "head": placed})
            yield Imported(character_id, len(documents), placed)


def _export(store: Store, archive: ArchiveWriter, character_id: str, scratch: Path) -> None:
    """The record first: every version that it names is exported, and what comes meanwhile too."""
    found = 0
    for key in _keys(store, character_id):
        try:
            store.download(key, scratch)
        except ObjectMissing:
            if key == layout.record_key(character_id):  # versions without a record move as they are
                continue
            raise
        archive.add(key, scratch)
        found += 1
    if not found:
        raise CharacterNotFound(character_id)


def _keys(store: Store, character_id: str) -> Iterator[str]:
    yield layout.record_key(character_id)
    folder = layout.folder(character_id)
    for part in ("versions/", "loras/", "training/", "references/"):
        yield from (info.key for info in store.list(f"{folder}{part}"))


def _place(store: Store, archive: ArchiveReader, name: str, scratch: Path) -> None:
    """Send a file, unless one of that name and size is there."""
    try:
        if store.head(name).size == archive.size(name):
            return
    except ObjectMissing:
        pass
    archive.save(name, scratch)
    store.upload(scratch, name, WEIGHTS_TYPE, shared=True)
