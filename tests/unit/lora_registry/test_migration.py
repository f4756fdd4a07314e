"""Characters from one bucket into another, and archives that are not what they should be."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_registry import layout
from lora_registry.errors import ArchiveInvalid, CharacterNotFound
from lora_registry.migration import export_characters, import_characters
from lora_registry.registry import Registry
from lora_registry.store import StoreThrottled
from lora_registry.verification import Verification
from tests.loras import new_version, write_lora
from tests.stores import Died, MemoryStore, WatchedStore


@pytest.fixture
def full(memory: MemoryStore, tmp_path: Path) -> MemoryStore:
    registry = Registry(memory)
    for number, character_id in enumerate(("mira", "mira", "zoe")):
        file = write_lora(tmp_path / f"{number}", seed=number)
        registry.add_version(new_version(file, character_id, f"job-{number}"))
    [version] = registry.versions("zoe")
    memory.put(f"{layout.training_prefix('zoe', version.id)}loss.json", b"[1, 2]")
    memory.put("characters/zoe/outputs/2026/01/02/job/0.png", b"png")
    return memory


@pytest.fixture
def archive(full: MemoryStore, tmp_path: Path) -> Path:
    path = tmp_path / "archive.tar"
    assert list(export_characters(full, path, ["mira", "zoe"])) == ["mira", "zoe"]
    return path


def clean(store: MemoryStore) -> bool:
    return not any(checked.findings for checked in Verification(store, contents=True).run())


def test_all_but_outputs_arrives_as_it_was(full: MemoryStore, archive: Path) -> None:
    target = MemoryStore()
    done = list(import_characters(target, archive))
    assert [(each.character_id, each.versions, each.head) for each in done] == [
        ("mira", 2, True),
        ("zoe", 1, True),
    ]
    for key, (body, _) in full.objects.items():
        if "/outputs/" not in key and not key.startswith("registry/"):
            assert target.get(key).body == body
    assert not any("/outputs/" in key for key in target.objects)
    assert clean(target)
    newest = [record.character_id for record in Registry(target).list(order="newest").characters]
    assert newest == ["zoe", "mira"]


def test_a_second_import_changes_nothing(archive: Path) -> None:
    target = MemoryStore()
    list(import_characters(target, archive))
    Registry(target).rollback("mira")
    before = {key: body for key, (body, _) in target.objects.items()}
    assert not any(each.head for each in import_characters(target, archive))
    assert {key: body for key, (body, _) in target.objects.items()} == before


def test_an_import_that_dies_anywhere_is_finished_by_the_next(archive: Path) -> None:
    target = MemoryStore()

    def die(verb: str, key: str) -> None:
        writes = verb.startswith("put") or verb == "upload"
        if writes and key not in seen and not key.startswith(layout.PROBES):
            seen.add(key)
            raise Died(key)

    seen: set[str] = set()
    deaths = 0
    for _ in range(100):
        watched = WatchedStore(target)
        watched.after = die
        try:
            list(import_characters(watched, archive))
            break
        except Died:
            deaths += 1
            assert not [
                finding
                for checked in Verification(target).run()
                for finding in checked.findings
                if finding.problem
            ]
    assert deaths > 8
    assert clean(target)


def test_an_export_of_nobody_leaves_no_file(memory: MemoryStore, tmp_path: Path) -> None:
    path = tmp_path / "archive.tar"
    with pytest.raises(CharacterNotFound):
        list(export_characters(memory, path, ["nobody"]))
    assert not list(tmp_path.iterdir())


def test_an_export_that_fails_leaves_no_file(full: MemoryStore, tmp_path: Path) -> None:
    watched = WatchedStore(full)

    def fail(verb: str, key: str) -> None:
        if verb == "download" and key.endswith("loss.json"):
            raise StoreThrottled(key)

    watched.before = fail
    with pytest.raises(StoreThrottled):
        list(export_characters(watched, tmp_path / "archive.tar", ["mira", "zoe"]))
    assert not list(tmp_path.glob("archive*"))


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_an_archive_that_is_cut_off_writes_nothing(archive: Path, kept: float) -> None:
    content = archive.read_bytes().rstrip(b"\0")  # a tar ends in padding that nobody misses
    archive.write_bytes(content[: int(len(content) * kept)])
    target = MemoryStore()
    with pytest.raises(ArchiveInvalid):
        list(import_characters(target, archive))
    assert not target.objects


def rewritten(archive: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """The archive with other members, and a manifest that fits them."""
    import hashlib  # noqa: PLC0415 - only here
    import io  # noqa: PLC0415

    with tarfile.open(archive) as tar:
        files = {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]
    manifest = json.loads(files.pop("manifest.json"))
    change(files)
    manifest["members"] = [
        {"name": name, "size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        for name, body in files.items()
    ]
    files["manifest.json"] = json.dumps(manifest).encode()
    with tarfile.open(archive, "w") as tar:
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return archive


def only(files: dict[str, bytes], part: str) -> str:
    return next(name for name in files if part in name)


def drop(part: str) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        del files[only(files, part)]

    return change


def edit(part: str, old: bytes, new: bytes) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        name = only(files, part)
        assert old in files[name]
        files[name] = files[name].replace(old, new)

    return change


def rename(part: str, name: str) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        files[name] = files.pop(only(files, part))

    return change


@pytest.mark.parametrize(
    "change",
    [
        drop("zoe/loras"),
        drop("zoe/versions"),
        edit("zoe/loras", b"lora_unet", b"lora_UNET"),
        edit("zoe/versions", b'"zoe"', b'"mira"'),
        edit("zoe/versions", b"/loras/", b"/other/"),
        edit("zoe/character.json", b'"zoe"', b'"mira"'),
        edit("zoe/character.json", b"{", b"["),
        rename("zoe/training", "characters/../../etc/passwd"),
        rename("zoe/training", "/etc/passwd"),
        rename("zoe/training", "characters/zoe/outputs/x"),
        rename("zoe/training", "registry/conditions.json"),
        rename("zoe/training", "characters/zoe/training//x"),
    ],
)
def test_an_archive_that_lies_writes_nothing(
    archive: Path, change: Callable[[dict[str, bytes]], None]
) -> None:
    target = MemoryStore()
    with pytest.raises(ArchiveInvalid):
        list(import_characters(target, rewritten(archive, change)))
    assert not target.objects


def test_an_unchanged_rewrite_is_accepted(archive: Path) -> None:
    target = MemoryStore()
    list(import_characters(target, rewritten(archive, lambda _: None)))
    assert clean(target)
