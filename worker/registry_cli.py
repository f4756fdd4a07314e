"""`python -m worker.registry_cli`: the registry from the command line, with the worker's settings.

The verbs are `lora_registry.commands`; here are settings, bucket and sources, which that package
does not know.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from errors import CodedError
from families.library import load_families
from families.recognition import Recogniser
from lora_registry import fields
from lora_registry.commands import Commands, Examined
from lora_registry.registry import Registry
from lora_registry.sweep import DEFAULT_GRACE
from lora_registry.versions import DEFAULT_STRENGTH
from worker.assembly import source_options
from worker.contract_fields import Source
from worker.errors import InvalidSettings
from worker.logs import configure
from worker.loras import examine
from worker.settings import Settings
from worker.sources import SourceReader
from worker.storage import ObjectStore
from worker.storage_settings import storage_options

T = TypeVar("T")

_FAILED: Final = 1
_MISUSED: Final = 2  # argparse's own


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status: 0, 1 (it failed, or found problems), 2 (misused)."""
    words = _parser().parse_args(argv)
    try:
        settings = Settings.from_environment()
    except InvalidSettings as error:
        sys.stderr.write(f"{error}\n")
        return _MISUSED
    configure("text", settings.log_level if words.verbose else "WARNING")
    try:
        return _run(words, settings)
    except CodedError as error:
        document = {"error": str(error), "code": error.code, "retryable": error.retryable}
        sys.stderr.write(f"{json.dumps(document) if words.json else error}\n")
    except OSError as error:  # of a file that a person named: its path helps here
        sys.stderr.write(f"{error.filename}: {error.strerror}\n")
    return _FAILED


def _run(words: argparse.Namespace, settings: Settings) -> int:
    failed = False
    with (
        ObjectStore(storage_options(settings)) as store,
        tempfile.TemporaryDirectory(prefix="registry-") as scratch,
    ):

        def fetch(words: argparse.Namespace) -> Path:
            return words.file or _fetched(words, settings, store, Path(scratch) / "lora")

        def look_into(path: Path, base_model: str | None) -> Examined:
            recogniser = Recogniser(load_families(settings.families_dir))
            found = examine(path, recogniser, base_model=base_model)
            return Examined(found.base_model, found.format, found.rank, found.metadata)

        commands = Commands(Registry(store), store, fetch, look_into)
        for line in commands.run(words):
            sys.stdout.write(f"{json.dumps(line.document) if words.json else line.text}\n")
            sys.stdout.flush()
            failed = failed or line.failed
    return _FAILED if failed else 0


def _fetched(words: argparse.Namespace, settings: Settings, store: ObjectStore, path: Path) -> Path:
    sources = SourceReader(store, source_options(settings))
    source = Source(url=words.url, key=words.key)
    sources.save(source, path, field="source", max_bytes=settings.lora_max_bytes)
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m worker.registry_cli", description=main.__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON document a line")
    parser.add_argument("--verbose", action="store_true", help="log what is done, to stderr")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_list(verbs.add_parser("list", help="a page of characters"))
    for verb, meaning in (
        ("get", "a character and its versions"),
        ("versions", "the versions of a character"),
        ("rollback", "make the version active that was before"),
        ("delete", "leave a tombstone; files go with a later sweep"),
        ("restore", "take a tombstone back"),
        ("activate", "make a version the active one"),
        ("register", "add a LoRA file as a version"),
    ):
        verb_parser = verbs.add_parser(verb, help=meaning)
        verb_parser.add_argument("character_id", type=_by(fields.character_id))
        if verb == "activate":
            verb_parser.add_argument("version", type=_by(fields.version_id))
        elif verb == "register":
            _add_register(verb_parser)
    _add_bucket_verbs(verbs)
    for verb_parser in verbs.choices.values():  # so that --json may stand behind the verb, too
        verb_parser.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )
    return parser


def _by(rule: Callable[[str], T]) -> Callable[[str], T]:
    """A rule as argparse takes it, which shows only its own error's words."""

    def parse(text: str) -> T:
        try:
            return rule(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--order", choices=("id", "newest"), default="id")
    parser.add_argument("--status", choices=("active", "deleted"))
    parser.add_argument("--limit", type=int, default=50, help="characters a page, at most 1000")
    parser.add_argument("--cursor", help="go on where a page before ended")
    parser.add_argument("--all", action="store_true", help="page after page, to the end")


def _add_register(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--file", type=Path, help="a local .safetensors file")
    source.add_argument("--url", help="a public URL")
    source.add_argument("--key", help="an object of the bucket")
    text, strength = _by(fields.short_text), _by(lambda value: fields.strength(float(value)))
    parser.add_argument("--name", type=text, help="display name")
    parser.add_argument(
        "--trigger", type=text, help="default: the file's own, else the character id"
    )
    parser.add_argument("--class-noun", type=text, default="person")
    parser.add_argument("--base-model", help="a family; only where the file fits several alike")
    parser.add_argument("--strength", type=strength, default=DEFAULT_STRENGTH)
    parser.add_argument("--job-id", help="the same id again registers nothing twice")
    parser.add_argument("--no-activate", action="store_true")


def _add_bucket_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    sweep = verbs.add_parser("sweep", help="what nobody can use any more; a dry run by default")
    sweep.add_argument("--grace-days", type=float, default=DEFAULT_GRACE.days)
    sweep.add_argument("--delete", action="store_true", help="really remove")
    verify = verbs.add_parser("verify", help="check everything against everything")
    verify.add_argument("character_id", nargs="?")
    verify.add_argument("--contents", action="store_true", help="fetch and hash every weight file")
    verify.add_argument("--repair", action="store_true", help="write missing listing markers")
    export = verbs.add_parser("export", help="characters into one archive; all by default")
    export.add_argument("file", type=Path)
    export.add_argument("character_ids", nargs="*", metavar="character_id")
    importing = verbs.add_parser("import", help="characters from an archive")
    importing.add_argument("file", type=Path)


if __name__ == "__main__":
    sys.exit(main())
