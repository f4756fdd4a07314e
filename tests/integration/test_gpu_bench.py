"""The GPU's benchmark, whole and small, on the stand-ins: every part runs and is written down."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu.__main__ import PARTS, main

pytestmark = pytest.mark.process


def test_every_part_is_measured_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    argv = ["--tiny", "--work", str(tmp_path / "work"), "--out", str(out)]
    assert main([*argv, "--price-per-second", "0.001"]) == 0, capsys.readouterr().out
    document = json.loads((out / "figures.json").read_text())
    assert list(document["figures"]) == list(PARTS)
    assert document["pretends"] == ["ComfyUI", "sd-scripts"]
    trainings = document["figures"]["training"]
    assert len(trainings["kohya"]) == 8
    assert all(run["fits"] and run["whole_s"] > 0 for run in trainings["kohya"])
    assert trainings["out_of_memory"]["outcome"] == "trained at half the batch"
    assert trainings["comfyui"]["whole_s"] > 0
    assert set(document["figures"]["characters"]["loaders"]) == {"LoraLoader", "LoraLoaderBypass"}
    assert document["figures"]["queue"]["gpu_utilisation"] > 0
    assert document["prices"]["picture_usd"] > 0
    assert (out / "figures.md").read_text() in capsys.readouterr().out


def test_a_part_that_fails_is_named_and_the_rest_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KOHYA_FAULTS", str(tmp_path / "faults"))
    (tmp_path / "faults").write_text("none\n" * 8 + "silent\n")
    argv = ["--tiny", "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    assert main([*argv, "--only", "training"]) == 1
    [part] = json.loads((tmp_path / "out" / "figures.json").read_text())["figures"].values()
    assert part["failed"].startswith("JobFailed: train: ")
    assert len(part["kohya"]) == 8
    assert "| training | JobFailed: train: " in capsys.readouterr().out


def test_without_comfyui_it_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "--comfyui" in capsys.readouterr().err


def test_packed_it_measures_elsewhere(tmp_path: Path) -> None:
    assert main(["pack", str(tmp_path / "packed"), "--no-wheels"]) == 0
    done = subprocess.run(
        [sys.executable, str(tmp_path / "packed" / "run.py"), "--tiny", "--only", "queue"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "gpu" / "figures.json").read_text())["figures"]
    assert figures["queue"]["jobs"] == 3
