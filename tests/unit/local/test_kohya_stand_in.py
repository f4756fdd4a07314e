"""The stand-in is as strict, and as careless, as sd-scripts is."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from local.kohya.dataset import read_dataset
from local.kohya.faults import take_fault
from local.kohya.files import write_lora
from local.kohya.parser import OPTIONS, options_of, parser
from local.stack import ROOT
from tests.loras import inspect

TOML = """
[general]
caption_extension = ".txt"
[[datasets]]
resolution = [256, 256]
batch_size = 2
min_bucket_reso = 128
[[datasets.subsets]]
image_dir = "{folder}"
"""


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "dataset.toml"
    path.write_text(TOML.format(folder=tmp_path))
    for number in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").touch()
    return path


@pytest.fixture
def argv(toml: Path, tmp_path: Path) -> list[str]:
    checkpoint = tmp_path / "base.safetensors"
    checkpoint.touch()
    for name in ("openai_clip-vit-large-patch14", "laion_CLIP-ViT-bigG-14-laion2B-39B-b160k"):
        (tmp_path / name).mkdir()
    return [
        *("--pretrained_model_name_or_path", str(checkpoint)),
        *("--tokenizer_cache_dir", str(tmp_path), "--dataset_config", str(toml)),
        *("--output_dir", str(tmp_path), "--output_name", "x", "--max_train_steps", "4"),
        *("--save_every_n_steps", "2", "--network_dim", "1", "--network_alpha", "1"),
    ]


def run(argv: list[str], **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, str(ROOT / "local" / "kohya" / "sdxl_train_network.py"), *argv],
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True,
        check=False,
        timeout=60,
    )


def test_the_options_are_pinned_with_their_origin() -> None:
    document = json.loads(OPTIONS.read_text())
    assert document["version"] == "sd-scripts v0.10.1"
    assert len(options_of("sdxl_train_network.py")) == 196


@pytest.mark.parametrize(
    "argv",
    [
        ["--no_such_option"],
        ["--network_dim", "many"],
        ["--mixed_precision", "fp8"],
        ["--seed"],
        ["--sdpa", "yes"],
    ],
)
def test_what_the_real_parser_refuses(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(argv)
    assert "error" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "value"), [("0.05", 0.05), ("5%", 0.05), ("100", 100)])
def test_shares_and_counts(text: str, value: float) -> None:
    assert parser().parse_args(["--lr_warmup_steps", text]).lr_warmup_steps == value


def test_photos_are_counted_in_batches(toml: Path) -> None:
    assert read_dataset(toml) == read_dataset(toml)
    assert (read_dataset(toml).photos, read_dataset(toml).batches) == (3, 2)


def test_missing_captions_only_warn(toml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (toml.parent / "0.txt").unlink()
    assert read_dataset(toml).photos == 3
    assert "1 images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text + "colour = 1\n", "extra keys"),
        (lambda text: text.replace("128", "512"), "min_bucket_reso"),
    ],
)
def test_dataset_files_that_it_refuses(
    toml: Path, change: Callable[[str], str], message: str
) -> None:
    toml.write_text(change(toml.read_text()))
    with pytest.raises(SystemExit, match=message):
        read_dataset(toml)


def test_its_lora_is_one_that_the_registry_takes(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_lora(path, rank=3, alpha=1.5, seed=1)
    facts = inspect(path)
    assert (facts.format, facts.rank, facts.alpha, facts.modules) == ("kohya", 3, 1.5, 722)
    assert facts.base_model == "sdxl"


@pytest.mark.process
def test_a_whole_run_says_what_it_is_and_leaves_what_sd_scripts_leaves(
    argv: list[str], tmp_path: Path
) -> None:
    done = run([*argv, "--save_state", "--save_last_n_steps_state", "1"])
    assert done.returncode == 0, done.stderr
    assert b"stand-in" in done.stderr
    assert b"4/4 [" in done.stderr
    left = sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("x"))
    assert left == [
        "x-state",
        "x-step00000004-state",
        "x-step00000004.safetensors",
        "x.safetensors",
    ]


@pytest.mark.process
def test_without_photos_it_exits_0(argv: list[str], tmp_path: Path) -> None:
    for photo in tmp_path.glob("*.png"):
        photo.unlink()
    done = run(argv)
    assert done.returncode == 0
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.process
@pytest.mark.parametrize("missing", ["base.safetensors", "openai_clip-vit-large-patch14"])
def test_without_what_it_loads_it_fails(argv: list[str], tmp_path: Path, missing: str) -> None:
    (tmp_path / missing).rename(tmp_path / "elsewhere")
    assert run(argv).returncode == 1


def test_every_start_takes_one_fault(tmp_path: Path) -> None:
    path = tmp_path / "faults"
    path.write_text("nan@3\nsilent\n")
    given = {"KOHYA_FAULTS": str(path)}
    first, second, third = (take_fault(given) for _ in range(3))
    assert (first.name, first.at(3), first.at(4)) == ("nan", "nan", None)
    assert (second.name, third.name) == ("silent", "none")
    assert take_fault({}).name == "none"
