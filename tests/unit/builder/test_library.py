import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from builder.errors import HashMismatch
from builder.library import Shelves, check, link
from builder.link_models import link_models, main
from builder.manifest import Model

BODY = b"weights" * 100
SHA256 = hashlib.sha256(BODY).hexdigest()
MODEL = Model(
    "a",
    "checkpoints",
    "https://huggingface.co/org/name/resolve/rev1/a.safetensors",
    SHA256,
    len(BODY),
    "MIT",
    ("worker-sdxl",),
)


def on_volume(volume: Path, body: bytes = BODY) -> Path:
    path = volume / "checkpoints" / "a.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    return path


def in_hub_cache(cache: Path, *, revision: str = "rev1", blob: str = SHA256) -> Path:
    """As huggingface_hub lays it out: the snapshot's file leads to a blob named by its sha256."""
    repository = cache / "models--org--name"
    (repository / "blobs").mkdir(parents=True, exist_ok=True)
    (repository / "blobs" / blob).write_bytes(BODY)
    snapshot = repository / "snapshots" / revision / "a.safetensors"
    snapshot.parent.mkdir(parents=True, exist_ok=True)
    snapshot.symlink_to(Path("../../blobs") / blob)
    return snapshot


def test_volume_is_looked_at_first(tmp_path: Path) -> None:
    shelves = Shelves((tmp_path / "volume",), (tmp_path / "hub",))
    assert shelves.find(MODEL) is None
    cached = in_hub_cache(tmp_path / "hub")
    assert shelves.find(MODEL) == cached
    on = on_volume(tmp_path / "volume")
    assert shelves.find(MODEL) == on


def test_any_snapshot_will_do(tmp_path: Path) -> None:
    cached = in_hub_cache(tmp_path, revision="rev9")
    assert Shelves((), (tmp_path,)).find(MODEL) == cached


def test_other_size_is_passed_over(tmp_path: Path) -> None:
    on_volume(tmp_path, BODY[:-1])
    assert Shelves((tmp_path,), ()).find(MODEL) is None


def test_blob_of_another_hash_is_passed_over_unread(tmp_path: Path) -> None:
    in_hub_cache(tmp_path, blob="0" * 64)
    assert Shelves((), (tmp_path,)).find(MODEL) is None


def test_broken_link_in_a_cache_is_passed_over(tmp_path: Path) -> None:
    cached = in_hub_cache(tmp_path)
    cached.resolve().unlink()
    assert Shelves((), (tmp_path,)).find(MODEL) is None


def test_models_from_elsewhere_are_only_on_volumes(tmp_path: Path) -> None:
    in_hub_cache(tmp_path)
    elsewhere = replace(MODEL, url="https://example.com/a.safetensors")
    assert Shelves((), (tmp_path,)).find(elsewhere) is None


def test_check_names_both_hashes(tmp_path: Path) -> None:
    check(on_volume(tmp_path), MODEL)
    other = on_volume(tmp_path, b"others!" * 100)
    with pytest.raises(HashMismatch) as caught:
        check(other, MODEL)
    assert caught.value.expected == SHA256
    assert caught.value.found in str(caught.value)
    assert SHA256 in str(caught.value)


def test_link_replaces_what_was_there(tmp_path: Path) -> None:
    source = on_volume(tmp_path / "volume")
    place = tmp_path / "models" / "a.safetensors"
    link(tmp_path / "gone", place)
    link(source, place)
    assert place.read_bytes() == BODY
    assert place.readlink().is_absolute()
    assert [path.name for path in place.parent.iterdir()] == ["a.safetensors"]


def test_start_links_what_a_volume_has_and_leaves_the_rest(tmp_path: Path) -> None:
    shelves = Shelves((tmp_path / "volume",), (tmp_path / "hub",))
    other = replace(MODEL, file="b.safetensors")
    on_volume(tmp_path / "volume")
    models = tmp_path / "models"
    assert link_models((MODEL, other), models, shelves) == [models / MODEL.relative]
    assert link_models((MODEL, other), models, shelves) == []
    assert not (models / other.relative).exists()


def test_baked_model_is_not_replaced(tmp_path: Path) -> None:
    on_volume(tmp_path / "volume")
    baked = on_volume(tmp_path / "models", b"baked")
    assert link_models((MODEL,), tmp_path / "models", Shelves((tmp_path / "volume",), ())) == []
    assert baked.read_bytes() == b"baked"


def test_volume_that_is_the_models_folder_itself(tmp_path: Path) -> None:
    place = on_volume(tmp_path)
    assert link_models((MODEL,), tmp_path, Shelves((tmp_path,), ())) == []
    assert not place.is_symlink()


def test_command_without_any_volume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--into", str(tmp_path / "models")]) == 0
    assert capsys.readouterr().out == ""
