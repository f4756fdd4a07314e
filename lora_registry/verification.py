"""Checking the whole registry: every record, version and weight file against each other."""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lora_registry import layout
from lora_registry.character import (
    CharacterRecord,
    CharacterVersion,
    parse_record,
    parse_version,
)
from lora_registry.errors import DocumentInvalid
from lora_registry.listing import all_character_ids
from lora_registry.parallel_map import parallel_map
from lora_registry.records import unless_torn
from lora_registry.store import ObjectInfo, ObjectMissing, Store
from lora_registry.tensorfile import sha256_of

_COPIED: Final = ("trigger", "class_noun", "base_model")


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found about an object; `problem` is False for what is only worth knowing."""

    key: str
    message: str
    problem: bool = True


@dataclass(frozen=True, slots=True)
class Checked:
    """A character that was looked at, with its versions counted and what was found."""

    character_id: str
    versions: int
    findings: tuple[Finding, ...]


class Verification:
    """One check of a bucket; reads only, unless it repairs.

    Args:
        store: the bucket.
        contents: also fetch every weight file and compare its SHA-256.
        repair: write the markers that are missing from the listing by time.
    """

    def __init__(self, store: Store, *, contents: bool = False, repair: bool = False) -> None:
        self._store = store
        self._contents = contents
        self._repair = repair

    def run(self, character_id: str | None = None) -> Iterator[Checked]:
        """Yield each character, or one; about five requests each and one a version.

        Raises:
            StoreError: the store failed; that is never a finding.
        """
        ids = all_character_ids(self._store) if character_id is None else iter((character_id,))
        for checked in parallel_map(self._character, ids):
            if checked is not None:
                yield checked

    def _character(self, character_id: str) -> Checked | None:
        """What was found; None for a folder without a record, versions and weights."""
        findings: list[Finding] = []
        record = self._record(character_id, findings)
        if record is not None and record.swept:
            return Checked(character_id, 0, (_note(character_id, "its files are being removed"),))
        versions = self._versions(character_id, findings)
        prefix = layout.weights_prefix(character_id)
        weights = {info.key: info for info in self._store.list(prefix)}
        if record is None and not (versions or weights or findings):
            return None
        if record is not None:
            findings.extend(_check_record(record, versions))
            findings.extend(self._check_marker(record))
            findings.extend(self._check_references(record))
        elif versions:
            findings.append(
                _note(character_id, "has versions but no record: activate one to use it")
            )
        for version in versions.values():
            findings.extend(self._check_weights(version, weights))
        named = {version.key for version in versions.values()}
        findings.extend(
            Finding(key, "no version names these weights; a sweep removes them", problem=False)
            for key in sorted(weights.keys() - named)
        )
        return Checked(character_id, len(versions), tuple(findings))

    def _record(self, character_id: str, findings: list[Finding]) -> CharacterRecord | None:
        key = layout.record_key(character_id)
        try:
            record = unless_torn(lambda: parse_record(self._store.get(key).body, key))
        except ObjectMissing:
            return None
        except DocumentInvalid as error:
            findings.append(Finding(key, str(error)))
            return None
        if record.character_id != character_id:
            findings.append(Finding(key, f"is the record of {record.character_id!r}"))
        return record

    def _versions(
        self, character_id: str, findings: list[Finding]
    ) -> Mapping[str, CharacterVersion]:
        versions: dict[str, CharacterVersion] = {}
        for info in self._store.list(layout.versions_prefix(character_id)):
            try:
                version = parse_version(self._store.get(info.key).body, info.key)
            except DocumentInvalid as error:
                findings.append(Finding(info.key, str(error)))
                continue
            versions[layout.version_of(info.key)] = version
            if (version.character_id, version.id) != (character_id, layout.version_of(info.key)):
                findings.append(Finding(info.key, "is another version's document"))
        return versions

    def _check_marker(self, record: CharacterRecord) -> Iterator[Finding]:
        key = layout.newest_key(record.character_id, record.created_at)
        try:
            self._store.head(key)
        except ObjectMissing:
            if self._repair:
                self._store.put(key, b"")
                yield Finding(key, "was missing from the listing by time; written", problem=False)
            else:
                yield Finding(key, "is missing: the listing by time leaves the character out")

    def _check_references(self, record: CharacterRecord) -> Iterator[Finding]:
        prefix = layout.references_prefix(record.character_id)
        photos = {info.key: info for info in self._store.list(prefix)}
        for reference in record.references:
            found = photos.pop(reference.key, None)
            if found is None:
                yield Finding(reference.key, "is a reference photo that is not there")
            elif found.size != reference.size:
                yield Finding(
                    reference.key, f"has {found.size} bytes, its record says {reference.size}"
                )
        for key in sorted(photos):
            yield Finding(key, "no record names this photo; a sweep removes it", problem=False)

    def _check_weights(
        self, version: CharacterVersion, weights: Mapping[str, ObjectInfo]
    ) -> Iterator[Finding]:
        found = weights.get(version.key)
        if found is None:
            yield Finding(version.key, f"version {version.id} names weights that are not there")
        elif found.size != version.size:
            yield Finding(version.key, f"has {found.size} bytes, its version says {version.size}")
        elif self._contents and self._sha256(version.key) != version.sha256:
            yield Finding(version.key, "its bytes are not those that its version names")

    def _sha256(self, key: str) -> str:
        with tempfile.TemporaryDirectory(prefix="verify-") as folder:
            path = Path(folder) / "weights"
            self._store.download(key, path)
            return sha256_of(path)


def _check_record(
    record: CharacterRecord, versions: Mapping[str, CharacterVersion]
) -> Iterator[Finding]:
    key = layout.record_key(record.character_id)
    if record.active is None:
        if not record.references:
            yield Finding(key, "has no active version: activate one to use it", problem=False)
    else:
        active = versions.get(record.active.id)
        if active is None:
            yield Finding(key, f"its active version {record.active.id} is not there")
        elif record.active != active.active:
            yield Finding(key, f"its copy of version {active.id} differs from the version")
        elif any(getattr(record, name) != getattr(active, name) for name in _COPIED):
            yield Finding(key, f"its trigger, class or base model is not version {active.id}'s")
    others = {entry.id for name, entry in record.families.items() if name != record.base_model}
    for version in sorted(others - versions.keys()):
        yield Finding(key, f"its version {version}, active for its base model, is not there")
    for version in sorted(set(record.previous) - versions.keys()):
        yield Finding(key, f"version {version}, to roll back to, is not there", problem=False)


def _note(character_id: str, message: str) -> Finding:
    return Finding(layout.folder(character_id), message, problem=False)
