"""The kohya engine against the stand-in: real processes, real bytes, real files, real faults."""

import contextlib
import itertools
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from worker.cancel import CancelToken
from worker.errors import (
    Cancelled,
    DiskFull,
    EngineCrashed,
    EngineUnavailable,
    ModelMissing,
    OutOfMemory,
    TimedOut,
    TrainingDiverged,
    TrainingFailed,
)
from worker.training.kohya import KohyaTrainer
from worker.training.kohya_command import KohyaOptions
from worker.training.trainer import PreparedDataset, TrainingSpec, TrainingStep, low_memory
from worker.training.weights import SDXL_MODULES, Expected, check_lora

pytestmark = pytest.mark.process


class KohyaHarness:
    """One training with what it needs, and what it reported."""

    def __init__(
        self, options: KohyaOptions, spec: TrainingSpec, dataset: PreparedDataset, folder: Path
    ) -> None:
        self.options, self.spec, self.dataset, self.folder = options, spec, dataset, folder
        self.cancel = CancelToken()
        self.steps: list[TrainingStep] = []

    def train(self) -> Path:
        return KohyaTrainer(self.options).train(
            self.spec, self.dataset, self.folder, self.steps.append, self.cancel
        )

    def numbers(self) -> list[int]:
        return [step.step for step in self.steps]


@pytest.fixture
def harness(
    kohya: KohyaOptions, spec: TrainingSpec, dataset: PreparedDataset, tmp_path: Path
) -> KohyaHarness:
    folder = tmp_path / "work"
    folder.mkdir()
    return KohyaHarness(kohya, spec, dataset, folder)


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "faults"
    monkeypatch.setenv("KOHYA_FAULTS", str(path))
    return path


def still_running(harness: KohyaHarness) -> list[str]:
    """The command lines of processes that work in the training's folder."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended while we looked
            lines.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in lines if str(harness.folder) in line]


def test_a_training_leaves_a_whole_lora_and_every_step(harness: KohyaHarness) -> None:
    path = harness.train()
    found = check_lora(path, Expected(rank=2, alpha=1.0, min_modules=SDXL_MODULES))
    assert found.modules == 722
    assert harness.numbers()[-1] == 12
    assert {step for step in harness.numbers() if step} == set(range(1, 13))
    losses = {step.step: step.loss for step in harness.steps}
    assert losses[12] == pytest.approx(0.148, abs=0.01)


def test_nan_ends_it_at_once(harness: KohyaHarness, faults: Path) -> None:
    faults.write_text("nan@3")
    harness.spec = replace(harness.spec, steps=5000)
    with pytest.raises(TrainingDiverged) as caught:
        harness.train()
    assert caught.value.details["step"] < 500
    assert not still_running(harness)


def test_out_of_memory_is_tried_again_at_half_the_batch(
    harness: KohyaHarness, faults: Path
) -> None:
    faults.write_text("oom@1")
    path = harness.train()
    toml = (path.parent / "dataset.toml").read_text()
    assert "batch_size = 1" in toml
    assert harness.numbers()[-1] == 2 * harness.spec.steps  # each photo is seen as often


def test_out_of_memory_late_gives_up_the_states_of_the_larger_batch(
    harness: KohyaHarness, faults: Path
) -> None:
    faults.write_text("oom@8")
    harness.train()
    last = max(place for place, step in enumerate(harness.numbers()) if step == 1)
    assert set(range(1, 8)) <= set(harness.numbers()[:last])
    assert set(harness.numbers()[last:]) == set(range(1, 25))


def test_out_of_memory_twice_is_the_end(harness: KohyaHarness, faults: Path) -> None:
    harness.spec = replace(harness.spec, batch_size=4)
    faults.write_text("oom@1\noom@1\nnone")
    with pytest.raises(OutOfMemory):
        harness.train()
    assert faults.read_text() == "none"


def test_nothing_is_left_to_spare(spec: TrainingSpec) -> None:
    least = replace(spec, batch_size=1, gradient_checkpointing=True)
    assert low_memory(least) == least
    assert low_memory(replace(spec, batch_size=1)) == replace(least, save_every=spec.save_every)


@pytest.mark.parametrize("fault", ["kill@8", "crash@8"])
def test_a_crash_is_continued_from_the_saved_state(
    harness: KohyaHarness, faults: Path, fault: str
) -> None:
    faults.write_text(fault)
    harness.train()
    after = harness.numbers()[harness.numbers().index(7) + 1 :]
    assert min(step for step in after if step > 5) == 6
    assert 1 not in after
    assert after[-1] == 12


def test_a_second_crash_is_continued_from_the_true_step(
    harness: KohyaHarness, faults: Path
) -> None:
    """sd-scripts counts too few steps once it was resumed; ours must not."""
    harness.spec = replace(harness.spec, steps=30, save_every=4)
    faults.write_text("kill@7\nkill@18\nnone")
    harness.train()
    numbers = harness.numbers()
    resumed_at = [b for a, b in itertools.pairwise(numbers) if b < a]
    assert resumed_at == [4, 15]
    assert numbers[-1] == 30


def test_it_does_not_crash_for_ever(harness: KohyaHarness, faults: Path) -> None:
    faults.write_text("kill@2\nkill@2\nkill@2\nnone")
    with pytest.raises(EngineCrashed, match="killed"):
        harness.train()
    assert faults.read_text() == "none"


def test_a_training_that_another_process_began_is_continued(
    harness: KohyaHarness, faults: Path
) -> None:
    faults.write_text("kill@8\nkill@9\nkill@9\nnone")
    with pytest.raises(EngineCrashed):
        harness.train()
    harness.steps.clear()
    harness.train()
    assert harness.numbers()[0] == 8
    assert harness.numbers()[-1] == 12


def test_exit_0_without_a_file_is_no_success(harness: KohyaHarness, faults: Path) -> None:
    faults.write_text("silent")
    with pytest.raises(TrainingFailed, match="0 of 12 steps"):
        harness.train()


def test_no_photos_exits_0_too(harness: KohyaHarness) -> None:
    for photo in harness.dataset.photos:
        photo.path.unlink()
    with pytest.raises(TrainingFailed, match="without a result"):
        harness.train()


def test_a_wrong_command_line_is_not_retried(harness: KohyaHarness) -> None:
    harness.options = replace(harness.options, tokenizers=Path("/nowhere"))
    with pytest.raises(TrainingFailed, match="tokenizers are missing") as failed:
        harness.train()
    assert failed.value.details["trainer_error"].startswith("OSError: Can't load tokenizer")


def test_silence_ends_it(harness: KohyaHarness, faults: Path) -> None:
    faults.write_text("hang@3")
    harness.options = replace(harness.options, stall_timeout_s=1.0)
    with pytest.raises(TrainingFailed, match="said nothing"):
        harness.train()
    assert not still_running(harness)


def test_garbage_on_its_output_is_survived(harness: KohyaHarness, faults: Path) -> None:
    faults.write_text("garbage@4")
    assert harness.train().is_file()


def test_a_full_disk_is_named(harness: KohyaHarness, faults: Path) -> None:
    faults.write_text("disk_full@4")
    with pytest.raises(DiskFull):
        harness.train()


def test_the_deadline_holds(harness: KohyaHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOHYA_STEP_S", "0.2")
    harness.spec = replace(harness.spec, steps=500, deadline_s=1.5)
    with pytest.raises(TimedOut):
        harness.train()
    assert not still_running(harness)


@pytest.mark.parametrize("fault", ["none", "deaf@3"])
def test_a_cancel_takes_less_than_five_seconds(
    harness: KohyaHarness, faults: Path, fault: str
) -> None:
    faults.write_text(fault)
    harness.spec = replace(harness.spec, steps=100_000)
    harness.options = replace(harness.options, stall_timeout_s=60.0)
    stepping = threading.Event()
    outcome: list[BaseException] = []

    def run() -> None:
        try:
            KohyaTrainer(harness.options).train(
                harness.spec,
                harness.dataset,
                harness.folder,
                lambda step: stepping.set() if step.step >= 2 else None,
                harness.cancel,
            )
        except Cancelled as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert stepping.wait(20)
    asked = time.monotonic()
    harness.cancel.cancel()
    thread.join(10)
    assert time.monotonic() - asked < 5
    assert len(outcome) == 1
    assert not still_running(harness)


def test_what_is_not_installed_is_said(harness: KohyaHarness) -> None:
    whole = harness.options
    for lacking in (replace(whole, folder=Path("/no")), replace(whole, python="/no/python")):
        harness.options = lacking
        with pytest.raises(EngineUnavailable, match="not installed"):
            harness.train()
    harness.options = replace(harness.options, checkpoint=Path("/nowhere/base.safetensors"))
    with pytest.raises(ModelMissing, match=r"base\.safetensors"):
        harness.train()
