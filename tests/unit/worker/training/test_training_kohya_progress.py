import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tqdm import tqdm  # type: ignore[import-untyped]  # it ships no types

from worker.training.kohya_state import ProgressReader, diverged, failure_in
from worker.training.trainer import TrainingStep

REAL = (
    b"\rsteps:   0%|          | 0/3 [00:00<?, ?it/s]"
    b"epoch 1/1\n2026-11-22 INFO something\n"
    b"\rsteps:  33%|\xe2\x96\x88\xe2\x96\x88\xe2\x96\x8e       | 1/3 [00:12<00:25, 12.61s/it]"
    b"\rsteps:  33%|\xe2\x96\x88\xe2\x96\x88\xe2\x96\x8e       | 1/3 "
    b"[00:12<00:25, 12.61s/it, avr_loss=0.131]"
    b"\rsteps:  67%|\xe2\x96\x88\xe2\x96\x88      | 2/3 [00:13<00:06, 2.00it/s, avr_loss=1.2e-05]"
)


def test_steps_loss_and_speed() -> None:
    steps = ProgressReader().feed(REAL)
    assert [step.step for step in steps] == [0, 1, 1, 2]
    assert steps[0].loss is None
    assert steps[0].seconds_per_step is None
    assert steps[2] == TrainingStep(1, 3, 0.131, 12.61)
    assert steps[3] == TrainingStep(2, 3, 1.2e-05, 0.5)
    assert steps[2].eta_s == pytest.approx(25.22)


@given(cuts=st.lists(st.integers(0, len(REAL)), max_size=12))
def test_chunks_may_be_cut_anywhere(cuts: list[int]) -> None:
    reader, steps, start = ProgressReader(), [], 0
    for end in [*sorted(cuts), len(REAL)]:
        steps += reader.feed(REAL[start:end])
        start = end
    assert steps == ProgressReader().feed(REAL)


@pytest.mark.parametrize("loss", [0.1234, 3e-7, 12.0, math.nan, math.inf])
def test_what_tqdm_itself_writes(loss: float) -> None:
    written = io.StringIO()
    with tqdm(total=20, desc="steps", smoothing=0, file=written, mininterval=0) as bar:
        for _ in range(20):
            bar.update(1)
            bar.set_postfix(avr_loss=loss)
    last = ProgressReader().feed(written.getvalue().encode())[-1]
    assert (last.step, last.steps) == (20, 20)
    assert last.loss is not None
    assert last.loss == pytest.approx(loss, rel=1e-2, nan_ok=True)
    assert diverged(last) is not math.isfinite(loss)


@given(noise=st.binary(max_size=2000))
def test_any_bytes_are_survived(noise: bytes) -> None:
    ProgressReader().feed(noise)


def test_memory_stays_bounded() -> None:
    reader = ProgressReader()
    for _ in range(50):
        reader.feed(b"x" * 10_000)
    assert len(reader._rest) <= 4096


def test_failures_are_recognized() -> None:
    assert failure_in("torch.OutOfMemoryError: CUDA out of memory. Tried") == "out_of_memory"
    assert failure_in("OSError: [Errno 28] No space left on device") == "disk_full"
    assert failure_in("StorageFull (os error 28)") == "disk_full"
    assert failure_in("ValueError: something else") is None
