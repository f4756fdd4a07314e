from pathlib import Path

import pytest

from builder.errors import ManifestInvalid
from builder.manifest import HubFile, Model, load, select

ENTRY = {
    "name": '"a"',
    "folder": '"checkpoints"',
    "url": '"https://huggingface.co/org/name/resolve/main/deep/a.safetensors"',
    "sha256": f'"{"a" * 64}"',
    "bytes": "12",
    "licence": '"MIT"',
    "targets": '["worker-sdxl"]',
}


def written(folder: Path, *entries: dict[str, str]) -> Path:
    path = folder / "models.toml"
    texts = ["\n".join(f"{key} = {value}" for key, value in entry.items()) for entry in entries]
    path.write_text("".join(f"[[model]]\n{text}\n" for text in texts))
    return path


def test_our_manifest_is_well_formed_and_confirmed() -> None:
    models = load()
    assert all(model.verified and model.hub and model.licence for model in models)
    assert {"sd_xl_base_1.0.safetensors", "svd_xt.safetensors"} <= {m.relative.name for m in models}


@pytest.mark.parametrize(
    ("target", "count"),
    [("worker", 0), ("worker-sdxl", 1), ("worker-train", 10), ("worker-full", 12)],
)
def test_what_each_image_carries(target: str, count: int) -> None:
    assert len(select(load(), target=target)) == count


def test_trainer_finds_its_tokenizers_by_these_folders() -> None:
    folders = {model.folder for model in load() if model.folder.startswith("tokenizers/")}
    assert folders == {
        "tokenizers/openai_clip-vit-large-patch14",
        "tokenizers/laion_CLIP-ViT-bigG-14-laion2B-39B-b160k",
    }


def test_hub_file_from_url(tmp_path: Path) -> None:
    (model,) = load(written(tmp_path, ENTRY))
    assert model.hub == HubFile("org/name", "main", "deep/a.safetensors")


@pytest.mark.parametrize("url", ["https://example.com/org/name/resolve/main/a", "s3://bucket/a"])
def test_other_urls_are_not_hub_files(tmp_path: Path, url: str) -> None:
    (model,) = load(written(tmp_path, ENTRY | {"url": f'"{url}"'}))
    assert model.hub is None


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("sha256", '"abc"', "sha256"),
        ("sha256", f'"{"A" * 64}"', "sha256"),
        ("bytes", "0", "bytes"),
        ("url", '"ftp://example.com/a"', "url"),
        ("folder", '"../outside"', "folder"),
        ("folder", '"/etc"', "folder"),
        ("file", '"a/b"', "folder and file"),
        ("url", '"https://example.com/"', "give file"),
        ("extra", '"x"', "unknown field extra"),
    ],
)
def test_faults_are_named(tmp_path: Path, field: str, value: str, said: str) -> None:
    with pytest.raises(ManifestInvalid, match=said):
        load(written(tmp_path, ENTRY | {field: value}))


@pytest.mark.parametrize("field", ["sha256", "bytes", "targets", "licence"])
def test_missing_fields_are_named(tmp_path: Path, field: str) -> None:
    entry = {key: value for key, value in ENTRY.items() if key != field}
    with pytest.raises(ManifestInvalid, match=field):
        load(written(tmp_path, entry))


def test_two_models_at_one_place(tmp_path: Path) -> None:
    with pytest.raises(ManifestInvalid, match="more than one model is checkpoints/a"):
        load(written(tmp_path, ENTRY, ENTRY | {"name": '"b"'}))


def test_two_models_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(ManifestInvalid, match=r"more than one model is a$"):
        load(written(tmp_path, ENTRY, ENTRY | {"file": '"b"'}))


def test_file_may_be_called_otherwise(tmp_path: Path) -> None:
    (model,) = load(written(tmp_path, ENTRY | {"file": '"b.safetensors"'}))
    assert str(model.relative) == "checkpoints/b.safetensors"


def test_not_toml(tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text("[[model]\n")
    with pytest.raises(ManifestInvalid, match=r"models\.toml"):
        load(tmp_path / "models.toml")


def test_select_by_name_or_place() -> None:
    def model(name: str, folder: str) -> Model:
        return Model(name, folder, "https://x/y.bin", "a" * 64, 1, "MIT", ())

    models = (model("a", "one"), model("b", "two"))
    assert select(models, names=["a"]) == models[:1]
    assert select(models, names=["two/y.bin", "a"]) == (models[1], models[0])
    assert select(models) == ()
    with pytest.raises(ManifestInvalid, match="'c'"):
        select(models, names=["c"])
