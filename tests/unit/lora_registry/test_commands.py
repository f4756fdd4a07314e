"""The command line: words in, lines for people and documents for programs out."""

import json
from pathlib import Path

import pytest

from lora_registry.commands import Commands, Examined, Line, bytes_text, table
from lora_registry.errors import CharacterNotFound, LoraCorrupt
from lora_registry.registry import Registry
from tests.loras import inspect, write_lora
from tests.stores import MemoryStore
from worker.registry_cli import _parser, main


def look_into(path: Path, base_model: str | None) -> Examined:
    found = inspect(path, base_model)
    return Examined(found.base_model, found.format, found.rank, found.metadata)


@pytest.fixture
def commands(memory: MemoryStore) -> Commands:
    return Commands(Registry(memory), memory, lambda words: words.file, look_into)


def run(commands: Commands, text: str) -> list[Line]:
    lines = list(commands.run(_parser().parse_args(text.split())))
    assert all(json.loads(json.dumps(line.document)) for line in lines)
    return lines


def test_register_list_get(commands: Commands, lora: Path) -> None:
    words = f"register mira --file {lora} --name Mira --trigger ohwx --job-id job-1 --strength 0.8"
    [registered] = run(commands, words)
    assert registered.document["strength"] == 0.8
    assert run(commands, words)[0].document["id"] == registered.document["id"]
    [listed] = run(commands, "list")
    assert listed.document["cursor"] is None
    [row] = listed.document["characters"]
    assert set(row) == {"character_id", "name", "status", "trigger", "active", "updated_at"}
    assert listed.text.splitlines()[1].split()[:3] == ["mira", "Mira", "active"]
    [got] = run(commands, "get mira")
    assert got.document["character"]["trigger"] == "ohwx"
    assert [version["rank"] for version in got.document["versions"]] == [2]


def test_register_without_activating(commands: Commands, lora: Path) -> None:
    run(commands, f"register mira --file {lora} --no-activate")
    assert run(commands, "get mira")[0].document["character"]["active"] is None


def test_register_looks_at_the_values(commands: Commands, lora: Path) -> None:
    content = lora.read_bytes()
    lora.write_bytes(content[:-2] + b"\x00\x7c")  # infinity, in the file's last fp16
    with pytest.raises(LoraCorrupt, match="not finite"):
        run(commands, f"register mira --file {lora}")


def test_the_life_of_a_character(commands: Commands, tmp_path: Path) -> None:
    versions = [
        run(commands, f"register mira --file {write_lora(tmp_path / str(n), seed=n)}")[0].document[
            "id"
        ]
        for n in range(3)
    ]

    def active(text: str) -> str:
        [line] = run(commands, text)
        return str(line.document["active"]["id"])

    assert active("rollback mira") == versions[1]
    assert active("activate mira " + versions[0]) == versions[0]
    assert run(commands, "delete mira")[0].document["status"] == "deleted"
    assert "deleted" in run(commands, "list --status deleted")[0].text
    assert active("restore mira") == versions[0]
    assert len(run(commands, "versions mira")[0].document["versions"]) == 3


def test_every_page_with_all(commands: Commands, lora: Path) -> None:
    for number in range(5):
        run(commands, f"register c{number} --file {lora}")
    pages = run(commands, "list --order newest --limit 2 --all")
    assert [len(page.document["characters"]) for page in pages] == [2, 2, 1]
    [page] = run(commands, "list --limit 2")
    assert f"--cursor {page.document['cursor']}" in page.text


def test_a_sweep_is_a_dry_run_unless_told(
    commands: Commands, memory: MemoryStore, lora: Path
) -> None:
    run(commands, f"register mira --file {lora}")
    run(commands, "delete mira")
    *removals, summary = run(commands, "sweep --grace-days -1")
    assert len(removals) == summary.document["objects"] == 4
    assert summary.document["dry_run"]
    assert "--delete removes them" in summary.text
    run(commands, "sweep --grace-days -1 --delete")
    assert list(memory.objects) == ["registry/conditions.json"]


def test_verify_fails_when_it_finds_a_problem(
    commands: Commands, memory: MemoryStore, lora: Path
) -> None:
    [registered] = run(commands, f"register mira --file {lora}")
    [summary] = run(commands, "verify --contents")
    assert (summary.failed, summary.document["problems"]) == (False, 0)
    memory.delete(registered.document["key"])
    *_, summary = run(commands, "verify mira")
    assert summary.failed


def test_export_and_import(commands: Commands, lora: Path, tmp_path: Path) -> None:
    run(commands, f"register mira --file {lora}")
    run(commands, f"export {tmp_path / 'a.tar'}")
    target = MemoryStore()
    other = Commands(Registry(target), target, lambda words: words.file, look_into)
    [imported] = run(other, f"import {tmp_path / 'a.tar'}")
    assert imported.document == {"character_id": "mira", "versions": 1, "head": True}


def test_an_unknown_character_raises(commands: Commands) -> None:
    with pytest.raises(CharacterNotFound):
        run(commands, "get nobody")


@pytest.mark.parametrize("words", [["--json", "list"], ["list", "--json"]])
def test_json_stands_where_one_likes(words: list[str]) -> None:
    assert _parser().parse_args(words).json


def test_missing_settings_are_misuse(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("S3_BUCKET", "BUCKET_NAME", "S3_ACCESS_KEY_ID", "BUCKET_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)
    assert main(["list"]) == 2
    assert "S3_BUCKET is missing" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("S3_BUCKET", "S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "made-up")
    assert main(["register", "mira", "--file", "not-there.safetensors"]) == 1
    assert "not-there.safetensors: No such file" in capsys.readouterr().err


def test_a_table_is_as_wide_as_what_is_in_it() -> None:
    assert table(("a", "bb"), [("ccc", 1)]) == "a    bb\nccc  1"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (170_400_000, "170.4 MB"), (2 * 10**12, "2.0 TB")],
)
def test_sizes_read_well(size: int, text: str) -> None:
    assert bytes_text(size) == text
