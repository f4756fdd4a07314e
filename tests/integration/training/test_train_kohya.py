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
from worker.training.trainer import PreparedDataset, TrainingSpec, TrainingStep, sparing
from worker.training.verify import SDXL_MODULES, Expected, verify

pytestmark = pytest.mark.process


class Bench:
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
def bench(
    kohya: KohyaOptions, spec: TrainingSpec, dataset: PreparedDataset, tmp_path: Path
) -> Bench:
    folder = tmp_path / "work"
    folder.mkdir()
    return Bench(kohya, spec, dataset, folder)


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "faults"
    monkeypatch.setenv("KOHYA_FAULTS", str(path))
    return path


def still_running(bench: Bench) -> list[str]:
    """The command lines of processes that work in the training's folder."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended while we looked
            lines.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in lines if str(bench.folder) in line]


def test_a_training_leaves_a_whole_lora_and_every_step(bench: Bench) -> None:
    path = bench.train()
    found = verify(path, Expected(rank=2, alpha=1.0, min_modules=SDXL_MODULES))
    assert found.modules == 722
    assert bench.numbers()[-1] == 12
    assert {step for step in bench.numbers() if step} == set(range(1, 13))
    losses = {step.step: step.loss for step in bench.steps}
    assert losses[12] == pytest.approx(0.148, abs=0.01)


def test_nan_ends_it_at_once(bench: Bench, faults: Path) -> None:
    faults.write_text("nan@3")
    bench.spec = replace(bench.spec, steps=5000)
    with pytest.raises(TrainingDiverged) as caught:
        bench.train()
    assert caught.value.details["step"] < 500
    assert not still_running(bench)


def test_out_of_memory_is_tried_again_at_half_the_batch(bench: Bench, faults: Path) -> None:
    faults.write_text("oom@1")
    path = bench.train()
    toml = (path.parent / "dataset.toml").read_text()
    assert "batch_size = 1" in toml


def test_out_of_memory_twice_is_the_end(bench: Bench, faults: Path) -> None:
    bench.spec = replace(bench.spec, batch_size=4)
    faults.write_text("oom@1\noom@1\nnone")
    with pytest.raises(OutOfMemory):
        bench.train()
    assert faults.read_text() == "none"


def test_nothing_is_left_to_spare(spec: TrainingSpec) -> None:
    least = replace(spec, batch_size=1, gradient_checkpointing=True)
    assert sparing(least) == least
    assert sparing(replace(spec, batch_size=1)) == replace(least, save_every=spec.save_every)


@pytest.mark.parametrize("fault", ["kill@8", "crash@8"])
def test_a_crash_is_continued_from_the_saved_state(bench: Bench, faults: Path, fault: str) -> None:
    faults.write_text(fault)
    bench.train()
    after = bench.numbers()[bench.numbers().index(7) + 1 :]
    assert min(step for step in after if step > 5) == 6
    assert 1 not in after
    assert after[-1] == 12


def test_a_second_crash_is_continued_from_the_true_step(bench: Bench, faults: Path) -> None:
    """sd-scripts counts too few steps once it was resumed; ours must not."""
    bench.spec = replace(bench.spec, steps=30, save_every=4)
    faults.write_text("kill@7\nkill@18\nnone")
    bench.train()
    numbers = bench.numbers()
    resumed_at = [b for a, b in itertools.pairwise(numbers) if b < a]
    assert resumed_at == [4, 15]
    assert numbers[-1] == 30


def test_it_does_not_crash_for_ever(bench: Bench, faults: Path) -> None:
    faults.write_text("kill@2\nkill@2\nkill@2\nnone")
    with pytest.raises(EngineCrashed, match="killed"):
        bench.train()
    assert faults.read_text() == "none"


def test_a_training_that_another_process_began_is_continued(bench: Bench, faults: Path) -> None:
    faults.write_text("kill@8\nkill@9\nkill@9\nnone")
    with pytest.raises(EngineCrashed):
        bench.train()
    bench.steps.clear()
    bench.train()
    assert bench.numbers()[0] == 8
    assert bench.numbers()[-1] == 12


def test_exit_0_without_a_file_is_no_success(bench: Bench, faults: Path) -> None:
    faults.write_text("silent")
    with pytest.raises(TrainingFailed, match="0 of 12 steps"):
        bench.train()


def test_no_photos_exits_0_too(bench: Bench) -> None:
    for photo in bench.dataset.photos:
        photo.path.unlink()
    with pytest.raises(TrainingFailed, match="without a result"):
        bench.train()


def test_a_wrong_command_line_is_not_retried(bench: Bench) -> None:
    bench.options = replace(bench.options, tokenizers=Path("/nowhere"))
    with pytest.raises(TrainingFailed, match="before its first step"):
        bench.train()


def test_silence_ends_it(bench: Bench, faults: Path) -> None:
    faults.write_text("hang@3")
    bench.options = replace(bench.options, stall_timeout_s=1.0)
    with pytest.raises(TrainingFailed, match="said nothing"):
        bench.train()
    assert not still_running(bench)


def test_garbage_on_its_output_is_survived(bench: Bench, faults: Path) -> None:
    faults.write_text("garbage@4")
    assert bench.train().is_file()


def test_a_full_disk_is_named(bench: Bench, faults: Path) -> None:
    faults.write_text("disk_full@4")
    with pytest.raises(DiskFull):
        bench.train()


def test_the_deadline_holds(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOHYA_STEP_S", "0.2")
    bench.spec = replace(bench.spec, steps=500, deadline_s=1.5)
    with pytest.raises(TimedOut):
        bench.train()
    assert not still_running(bench)


@pytest.mark.parametrize("fault", ["none", "deaf@3"])
def test_a_cancel_takes_less_than_five_seconds(bench: Bench, faults: Path, fault: str) -> None:
    faults.write_text(fault)
    bench.spec = replace(bench.spec, steps=100_000)
    bench.options = replace(bench.options, stall_timeout_s=60.0)
    stepping = threading.Event()
    outcome: list[BaseException] = []

    def run() -> None:
        try:
            KohyaTrainer(bench.options).train(
                bench.spec,
                bench.dataset,
                bench.folder,
                lambda step: stepping.set() if step.step >= 2 else None,
                bench.cancel,
            )
        except Cancelled as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert stepping.wait(20)
    asked = time.monotonic()
    bench.cancel.cancel()
    thread.join(10)
    assert time.monotonic() - asked < 5
    assert len(outcome) == 1
    assert not still_running(bench)


def test_what_is_not_installed_is_said(bench: Bench) -> None:
    whole = bench.options
    for lacking in (replace(whole, folder=Path("/no")), replace(whole, python="/no/python")):
        bench.options = lacking
        with pytest.raises(EngineUnavailable, match="not installed"):
            bench.train()
    bench.options = replace(bench.options, checkpoint=Path("/nowhere/base.safetensors"))
    with pytest.raises(ModelMissing, match=r"base\.safetensors"):
        bench.train()
