"""What ComfyUI's console says of LoRAs: counted, kept by time, and one line in our log."""

import logging
from pathlib import Path

import pytest

from families.adapters import split_key
from local.lora_file import write_demo_lora
from lora_registry.tensorfile import read_header
from worker.comfyui.console import LoraLog, OutputLog, Unapplied
from worker.errors import InvalidInput
from worker.generation.uptake import applied, warnings_of


def test_thousands_of_lines_become_one(caplog: pytest.LogCaptureFixture) -> None:
    log = LoraLog()
    output = OutputLog(log)
    with caplog.at_level(logging.INFO, logger="comfyui"):
        for number in range(1656):
            output(f"[WARNING] lora key not loaded: lora_unet_a_{number}.alpha\n".encode())
        output(b"[INFO] Prompt executed in 2.0 seconds\n")
    assert [record.message for record in caplog.records] == [
        "parts of a lora were not applied",
        "Prompt executed in 2.0 seconds",
    ]
    assert vars(caplog.records[0])["lines"] == 1656
    assert len(log.of_prompt(60, ("demo", "sdxl")).keys) == 1656


@pytest.mark.parametrize(
    "line",
    [
        "ERROR lora diffusion_model.a.weight shape '[320, 320]' is invalid for input of size 16",
        "ERROR lokr diffusion_model.a.weight mat1 and mat2 shapes cannot be multiplied",
        "WARNING SHAPE MISMATCH diffusion_model.a.weight WEIGHT NOT MERGED (1,) != (2,)",
        "NOT LOADED diffusion_model.a.weight",
        "Calculate Weight Failed: lora diffusion_model.a.weight",
    ],
)
def test_every_way_in_which_comfyui_says_it(line: str) -> None:
    log = LoraLog()
    assert log.take(line)
    assert log.of_prompt(60, ("demo", "sdxl")).weights == {"diffusion_model.a.weight"}


def test_only_what_was_said_during_the_prompt_counts() -> None:
    now = [0.0]
    log = LoraLog(lambda: now[0])
    for at, name in enumerate("abc"):
        now[0] = float(at)
        log.take(f"lora key not loaded: {name}")
    assert not log.take("Requested to load SDXL")
    assert log.of_prompt(1.5, ("file", "sdxl")).keys == {"b", "c"}


def test_what_comfyui_says_once_is_remembered_for_its_cache() -> None:
    now = [0.0]
    log = LoraLog(lambda: now[0])
    log.take("lora key not loaded: a")
    assert log.of_prompt(1, ("file", "sdxl")).keys == {"a"}
    now[0] = 100.0
    assert log.of_prompt(1, ("file", "sdxl")).keys == {"a"}
    assert not log.of_prompt(1, ("file", "other")).keys


def test_a_lora_of_which_nothing_was_taken_is_an_error(tmp_path: Path) -> None:
    write_demo_lora(tmp_path / "demo", rank=1)
    keys = frozenset(read_header(tmp_path / "demo").tensors)
    with pytest.raises(InvalidInput, match=r"takes none of the 722 modules of 'mira'") as error:
        warnings_of([applied("mira", tmp_path / "demo", Unapplied(keys), alone=True)], "sdxl")
    assert error.value.details["not_applied"] == 722


def test_one_of_which_some_was_taken_is_a_warning(tmp_path: Path) -> None:
    write_demo_lora(tmp_path / "demo", rank=1)
    keys = sorted(read_header(tmp_path / "demo").tensors)[:30]
    lost = {split[0] for key in keys if (split := split_key(key))}
    said = Unapplied(frozenset(keys), frozenset({"x.weight", "y.weight"}))
    used = applied("mira", tmp_path / "demo", said, alone=True)
    assert used.lost == len(lost) + 2
    assert f"takes {722 - used.lost} of the 722 modules" in warnings_of([used], "sdxl")[0]
    beside = applied("mira", tmp_path / "demo", said, alone=False)
    assert beside.lost == len(lost)
    assert not warnings_of([applied("mira", tmp_path / "demo", Unapplied(), alone=True)], "sdxl")
