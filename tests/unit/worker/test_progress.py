import threading
import time
from typing import Any

from worker.resources import Progress


class Recorder:
    def __init__(self, delay_s: float = 0.0) -> None:
        self.updates: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.arrived = threading.Event()
        self._delay_s = delay_s

    def __call__(self, update: dict[str, Any]) -> None:
        time.sleep(self._delay_s)
        self.updates.append(update)
        self.times.append(time.monotonic())
        self.arrived.set()


def test_an_update_says_stage_percent_step_and_steps() -> None:
    sent = Recorder()
    with Progress(sent) as progress:
        progress.report("sampling", 33.333, step=3, steps=9, eta_s=4.4, loss=0.1234567)
        assert sent.arrived.wait(2)
    assert sent.updates == [
        {"stage": "sampling", "percent": 33.3, "step": 3, "steps": 9, "eta_s": 4, "loss": 0.12346}
    ]


def test_updates_are_throttled_and_the_latest_wins() -> None:
    sent = Recorder()
    with Progress(sent, interval_s=0.05) as progress:
        for step in range(200):
            progress.report("sampling", step / 2, step=step, steps=200)
            time.sleep(0.001)
    percents = [update["percent"] for update in sent.updates]
    assert percents == sorted(percents)
    assert 2 <= len(percents) <= 12
    gaps = [b - a for a, b in zip(sent.times, sent.times[1:], strict=False)]
    assert min(gaps) >= 0.045


def test_nothing_arrives_after_close() -> None:
    sent = Recorder(delay_s=0.1)
    progress = Progress(sent, interval_s=0.0)
    progress.report("sampling", 1)
    time.sleep(0.03)  # the first update is under way
    progress.report("sampling", 2)
    progress.close()
    count = len(sent.updates)
    progress.report("sampling", 3)
    time.sleep(0.15)
    assert len(sent.updates) == count == 1


def test_a_platform_that_does_not_answer_costs_an_update_not_the_job() -> None:
    tried = threading.Event()

    def send(_update: dict[str, Any]) -> None:
        tried.set()
        raise TimeoutError("no answer")

    with Progress(send) as progress:
        progress.report("sampling", 1)
        assert tried.wait(2)


def test_a_second_try_does_not_take_the_percentage_back() -> None:
    sent = Recorder()
    with Progress(sent, interval_s=0.01) as progress:
        for percent in (2.0, 60.0, 5.0):
            sent.arrived.clear()
            progress.report("sampling", percent)
            assert sent.arrived.wait(2)
    assert [update["percent"] for update in sent.updates] == [2.0, 60.0, 60.0]
