"""The registry's command line, without its input and output: words in, lines out.

Every verb yields lines; each is a document for programs and a text for people.
"""

import argparse
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from lora_registry.character import CharacterRecord, CharacterVersion
from lora_registry.fields import trigger_of
from lora_registry.listing import all_character_ids
from lora_registry.migration import export_characters, import_characters
from lora_registry.registry import Registry
from lora_registry.store import Store
from lora_registry.sweep import Sweep
from lora_registry.verification import Checked, Verification
from lora_registry.versions import NewVersion

_RECORD_COLUMNS: Final = ("character", "name", "status", "active version", "trigger", "updated")
_VERSION_COLUMNS: Final = ("version", "rank", "base model", "size", "strength", "trigger")


@dataclass(frozen=True, slots=True)
class Line:
    """One piece of output; `failed` makes the program's exit status 1."""

    document: dict[str, Any]
    text: str
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Examined:
    """What `register` keeps of a file; the caller finds it, this package knows no families."""

    base_model: str
    format: str
    rank: int
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Commands:
    """What the verbs need.

    Attributes:
        registry: of the bucket.
        store: the bucket itself, for the verbs that look at all of it.
        fetch: puts the LoRA that `register` names at a local path.
        examine: says what the file is, given the base model that a person named.
    """

    registry: Registry
    store: Store
    fetch: Callable[[argparse.Namespace], Path]
    examine: Callable[[Path, str | None], Examined]

    def run(self, words: argparse.Namespace) -> Iterator[Line]:
        """Do what the words say, in a method of the verb's name."""
        verbs: dict[str, Callable[[argparse.Namespace], Iterator[Line]]] = {
            "list": self._list,
            "get": self._get,
            "versions": self._versions,
            "register": self._register,
            "activate": self._activate,
            "rollback": self._rollback,
            "delete": self._delete,
            "restore": self._restore,
            "sweep": self._sweep,
            "verify": self._verify,
            "export": self._export,
            "import": self._import,
        }
        return verbs[words.verb](words)

    def _list(self, words: argparse.Namespace) -> Iterator[Line]:
        cursor = words.cursor
        while True:
            page = self.registry.list(
                order=words.order, status=words.status, limit=words.limit, cursor=cursor
            )
            cursor = page.cursor
            text = _records_text(page.characters)
            if cursor is not None and not words.all:
                text += f"\nmore follow: --cursor {cursor}"
            rows = [character.summary() for character in page.characters]
            yield Line({"characters": rows, "cursor": cursor}, text)
            if cursor is None or not words.all:
                return

    def _get(self, words: argparse.Namespace) -> Iterator[Line]:
        record = self.registry.get(words.character_id, tombstone=True)
        versions = self.registry.versions(words.character_id)
        document = {
            "character": record.model_dump(mode="json"),
            "versions": [version.model_dump(mode="json") for version in versions],
        }
        yield Line(document, f"{_records_text([record])}\n\n{_versions_text(versions)}")

    def _versions(self, words: argparse.Namespace) -> Iterator[Line]:
        versions = self.registry.versions(words.character_id)
        documents = [version.model_dump(mode="json") for version in versions]
        yield Line({"versions": documents}, _versions_text(versions))

    def _register(self, words: argparse.Namespace) -> Iterator[Line]:
        weights = self.fetch(words)
        found = self.examine(weights, words.base_model)
        new = NewVersion(
            character_id=words.character_id,
            job_id=words.job_id or f"cli-{uuid.uuid4().hex[:12]}",
            weights=weights,
            base_model=found.base_model,
            format=found.format,
            rank=found.rank,
            trigger=trigger_of(
                words.trigger, found.metadata.get("modelspec.trigger_phrase"), words.character_id
            ),
            class_noun=words.class_noun,
            name=words.name,
            strength=words.strength,
        )
        version = self.registry.add_version(new, activate=not words.no_activate)
        yield Line(version.model_dump(mode="json"), _versions_text([version]))

    def _activate(self, words: argparse.Namespace) -> Iterator[Line]:
        yield _record_line(self.registry.activate(words.character_id, words.version))

    def _rollback(self, words: argparse.Namespace) -> Iterator[Line]:
        yield _record_line(self.registry.rollback(words.character_id))

    def _delete(self, words: argparse.Namespace) -> Iterator[Line]:
        yield _record_line(self.registry.delete(words.character_id))

    def _restore(self, words: argparse.Namespace) -> Iterator[Line]:
        yield _record_line(self.registry.restore(words.character_id))

    def _sweep(self, words: argparse.Namespace) -> Iterator[Line]:
        grace = timedelta(days=words.grace_days)
        objects = size = 0
        for removal in Sweep(self.store, grace=grace, dry_run=not words.delete).run():
            objects, size = objects + 1, size + removal.size
            yield Line(asdict(removal), f"{removal.reason}: {removal.key}")
        done = "removed" if words.delete else "would be removed; --delete removes them"
        summary = {"objects": objects, "bytes": size, "dry_run": not words.delete}
        yield Line(summary, f"{objects} objects, {bytes_text(size)}, {done}")

    def _verify(self, words: argparse.Namespace) -> Iterator[Line]:
        verification = Verification(self.store, contents=words.contents, repair=words.repair)
        characters = versions = problems = 0
        for checked in verification.run(words.character_id):
            characters, versions = characters + 1, versions + checked.versions
            problems += sum(finding.problem for finding in checked.findings)
            if checked.findings:
                yield Line(asdict(checked), _findings_text(checked))
        summary = {"characters": characters, "versions": versions, "problems": problems}
        text = f"{characters} characters, {versions} versions, {problems} problems"
        yield Line(summary, text, failed=problems > 0)

    def _export(self, words: argparse.Namespace) -> Iterator[Line]:
        ids = words.character_ids or all_character_ids(self.store)
        for character_id in export_characters(self.store, words.file, ids):
            yield Line({"character_id": character_id}, f"exported {character_id}")

    def _import(self, words: argparse.Namespace) -> Iterator[Line]:
        for imported in import_characters(self.store, words.file):
            kept = "" if imported.head else ", the record that was there stays"
            text = f"imported {imported.character_id}: {imported.versions} versions{kept}"
            yield Line(asdict(imported), text)


def _record_line(record: CharacterRecord) -> Line:
    return Line(record.model_dump(mode="json"), _records_text([record]))


def _records_text(records: Sequence[CharacterRecord]) -> str:
    rows = [
        (
            record.character_id,
            record.name,
            record.status,
            "none" if record.active is None else record.active.id,
            record.trigger,
            f"{record.updated_at:%Y-%m-%d %H:%M:%S}",
        )
        for record in records
    ]
    return table(_RECORD_COLUMNS, rows)


def _versions_text(versions: Sequence[CharacterVersion]) -> str:
    rows = [
        (
            version.id,
            version.rank,
            version.base_model,
            bytes_text(version.size),
            f"{version.strength:g}",
            version.trigger,
        )
        for version in versions
    ]
    return table(_VERSION_COLUMNS, rows)


def _findings_text(checked: Checked) -> str:
    return "\n".join(
        f"{'PROBLEM' if finding.problem else 'note'}: {finding.key}: {finding.message}"
        for finding in checked.findings
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lay out rows under their headings, one line each, without trailing blanks."""
    cells = [[str(value) for value in row] for row in (columns, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def bytes_text(size: int) -> str:
    """A size as people read it: `170.4 MB`."""
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:  # noqa: PLR2004 - decimal units
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"
