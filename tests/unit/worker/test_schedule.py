"""When the next job is asked for, by what the GPU still has to do."""

import threading
from collections.abc import Iterator

import pytest

from worker import schedule
from worker.cancel import CancelToken
from worker.errors import Cancelled
from worker.schedule import MAX_LEAD_S, MIN_LEAD_S, GpuSchedule

IMAGE = {"task": "image", "prompt": "a pier", "steps": 20}


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    held = Clock()
    monkeypatch.setattr(schedule, "time", held)
    return held  # type: ignore[return-value] # a plain value, not a generator


def ran(plan: GpuSchedule, clock: Clock, job_id: str, seconds: float) -> None:
    observe = plan.observer(plan.begin(job_id, IMAGE))
    clock.now += 0.05
    observe("queued", 4)
    clock.now += seconds
    observe("uploading", 95)
    plan.end(job_id)


def test_an_idle_worker_asks_at_once() -> None:
    assert GpuSchedule(4).wants_another()


def test_a_job_of_unknown_length_is_alone_until_its_step_rate_is_known(clock: Clock) -> None:
    plan = GpuSchedule(4)
    observe = plan.observer(plan.begin("a", IMAGE))
    observe("queued", 4)
    clock.now += 1
    assert not plan.wants_another()
    observe("sampling", 10 + 75 * 0.1)  # a tenth in 1 s: nine more to go
    assert not plan.wants_another()
    clock.now += 8.0
    observe("sampling", 10 + 75 * 0.98)
    assert plan.wants_another()


def test_the_next_is_asked_for_just_in_time(clock: Clock) -> None:
    plan = GpuSchedule(4)
    ran(plan, clock, "first", 6.0)
    observe = plan.observer(plan.begin("a", IMAGE))
    observe("queued", 4)
    clock.now += 6.0 - plan.lead_s - 0.1
    assert not plan.wants_another()
    clock.now += 0.2
    assert plan.wants_another()
    assert MIN_LEAD_S <= plan.lead_s <= MAX_LEAD_S


def test_what_was_fetched_counts_before_it_runs(clock: Clock) -> None:
    plan = GpuSchedule(4)
    ran(plan, clock, "first", 6.0)
    plan.admit("a", IMAGE)
    assert not plan.wants_another()
    clock.now += 6  # it never began: the SDK has dropped it
    assert plan.wants_another()


def test_short_jobs_are_taken_several_at_a_time_up_to_the_limit(clock: Clock) -> None:
    plan = GpuSchedule(3)
    ran(plan, clock, "first", 0.05)
    for name in "abc":
        assert plan.wants_another()
        plan.begin(name, IMAGE)
    assert not plan.wants_another()


def test_uploads_and_tasks_without_gpu_hold_nobody_up() -> None:
    plan = GpuSchedule(4)
    observe = plan.observer(plan.begin("a", IMAGE))
    observe("queued", 4)
    observe("uploading", 95)
    plan.begin("b", {"task": "characters"})
    assert plan.wants_another()


def test_nothing_is_asked_for_while_a_training_runs() -> None:
    plan = GpuSchedule(4)
    plan.begin("t", {"task": "train"})
    assert not plan.wants_another()
    plan.end("t")
    assert plan.wants_another()


def test_a_training_waits_for_the_gpu_of_the_job_before_it_and_for_nothing_else() -> None:
    plan = GpuSchedule(4)
    before = plan.begin("a", IMAGE)
    training = plan.begin("t", {"task": "train"})
    plan.begin("later", IMAGE)
    free = threading.Event()

    def wait() -> None:
        plan.wait_for_gpu(training, CancelToken())
        free.set()

    threading.Thread(target=wait, daemon=True).start()
    assert not free.wait(0.2)
    plan.observer(before)("uploading", 95)
    assert free.wait(2)


def test_a_training_that_waits_can_be_cancelled() -> None:
    plan = GpuSchedule(4)
    plan.begin("a", IMAGE)
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        plan.wait_for_gpu(plan.begin("t", {"task": "train"}), cancel)


@pytest.mark.parametrize("raw", [None, [], "x", {"task": ["a"]}, {"task": "image", "steps": {}}])
def test_any_input_is_counted(raw: object) -> None:
    plan = GpuSchedule(4)
    plan.begin("a", raw)
    plan.end("a")
    assert plan.wants_another()
