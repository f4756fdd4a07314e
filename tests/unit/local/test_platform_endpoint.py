"""The endpoint's state machine, on a clock that the tests move."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from local.platform.endpoint import Endpoint, EndpointOptions, JobUnknown, NotRetryable
from local.platform.jobs import FINAL, RETRYABLE, Job, JobState, Policy, Submission


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ended() -> list[Job]:
    return []


@pytest.fixture
def endpoint(clock: Clock, ended: list[Job]) -> Endpoint:
    return Endpoint(EndpointOptions(), clock=clock, on_final=ended.append)


def submit(endpoint: Endpoint, *, synchronous: bool = False, policy: Policy | None = None) -> Job:
    return endpoint.submit(Submission({"n": 1}, policy or Policy(), synchronous=synchronous))


def test_a_job_from_queue_to_result(endpoint: Endpoint, clock: Clock, ended: list[Job]) -> None:
    job = submit(endpoint)
    assert endpoint.status(job.id) == {"id": job.id, "status": "IN_QUEUE"}
    clock.now += 1.5
    assert endpoint.take("w1", 1) == [job]
    assert endpoint.status(job.id)["delayTime"] == 1500
    clock.now += 2.25
    assert endpoint.report("w1", job.id, {"output": {"url": "u"}})
    assert endpoint.status(job.id) == {
        "id": job.id,
        "status": "COMPLETED",
        "delayTime": 1500,
        "executionTime": 2250,
        "workerId": "w1",
        "output": {"url": "u"},
    }
    assert ended == [job]


def test_jobs_are_taken_oldest_first_and_no_more_than_asked(endpoint: Endpoint) -> None:
    first, second, third = (submit(endpoint) for _ in range(3))
    assert endpoint.take("w1", 2) == [first, second]
    assert endpoint.take("w2", 2) == [third]
    assert endpoint.take("w1", 2) == []


def test_ids_look_like_the_platforms(endpoint: Endpoint) -> None:
    assert submit(endpoint).id.endswith("-u1")
    assert submit(endpoint, synchronous=True).id.startswith("sync-")


def test_an_error_fails_the_job_and_keeps_the_rest_as_output(endpoint: Endpoint) -> None:
    job = submit(endpoint)
    endpoint.take("w1", 1)
    endpoint.report("w1", job.id, {"error": "no", "output": {"code": "timeout"}})
    status = endpoint.status(job.id)
    assert (status["status"], status["error"]) == ("FAILED", "no")
    assert status["output"] == {"code": "timeout"}


def test_progress_shows_as_output_until_the_result_replaces_it(endpoint: Endpoint) -> None:
    job = submit(endpoint)
    endpoint.take("w1", 1)
    endpoint.report("w1", job.id, {"status": "IN_PROGRESS", "output": "40 %"})
    assert endpoint.status(job.id)["output"] == "40 %"
    assert endpoint.status(job.id)["status"] == "IN_PROGRESS"
    endpoint.report("w1", job.id, {"output": 7})
    assert not endpoint.report("w1", job.id, {"status": "IN_PROGRESS", "output": "50 %"})
    assert endpoint.status(job.id)["output"] == 7
    assert endpoint.ledger.ignored_results == 0


def test_a_second_result_and_another_workers_result_are_ignored(endpoint: Endpoint) -> None:
    job = submit(endpoint)
    endpoint.take("w1", 1)
    assert not endpoint.report("w2", job.id, {"output": "not mine"})
    assert endpoint.report("w1", job.id, {"output": 1})
    assert not endpoint.report("w1", job.id, {"output": 2})
    assert endpoint.status(job.id)["output"] == 1
    assert endpoint.ledger.ignored_results == 2


def test_cancel_in_the_queue_and_in_a_worker(endpoint: Endpoint) -> None:
    queued, running = submit(endpoint), submit(endpoint)
    endpoint.cancel(queued.id)
    assert endpoint.take("w1", 5) == [running]
    endpoint.cancel(running.id)
    assert (queued.state, running.state) == (JobState.CANCELLED, JobState.CANCELLED)
    assert endpoint.take_stops("w1") == [running.id]
    assert endpoint.take_stops("w1") == []
    assert not endpoint.report("w1", running.id, {"output": "late"})
    assert "output" not in endpoint.status(running.id)


def test_cancelling_what_has_ended_changes_nothing(endpoint: Endpoint, ended: list[Job]) -> None:
    job = submit(endpoint)
    endpoint.take("w1", 1)
    endpoint.report("w1", job.id, {"output": 1})
    assert endpoint.cancel(job.id).state is JobState.COMPLETED
    assert ended == [job]


def test_a_worker_that_still_pings_with_a_cancelled_job_is_told_again(endpoint: Endpoint) -> None:
    cancelled, running = submit(endpoint), submit(endpoint)
    endpoint.take("w1", 2)
    endpoint.cancel(cancelled.id)
    endpoint.take_stops("w1")
    endpoint.still_running("w1", [cancelled.id, running.id, "", "unknown"])
    assert endpoint.take_stops("w1") == [cancelled.id]
    endpoint.still_running("w2", [cancelled.id])
    assert endpoint.take_stops("w2") == []


def test_execution_timeout_counts_from_the_taking(endpoint: Endpoint, clock: Clock) -> None:
    job = submit(endpoint, policy=Policy(execution_timeout_s=6, ttl_s=100))
    clock.now += 50
    endpoint.take("w1", 1)
    clock.now += 6
    endpoint.tick()
    assert endpoint.status(job.id)["status"] == "IN_PROGRESS"
    clock.now += 0.1
    endpoint.tick()
    assert endpoint.status(job.id)["status"] == "TIMED_OUT"
    assert endpoint.take_stops("w1") == [job.id]


@pytest.mark.parametrize("taken", [False, True])
def test_ttl_includes_the_queue(endpoint: Endpoint, clock: Clock, *, taken: bool) -> None:
    job = submit(endpoint, policy=Policy(execution_timeout_s=600, ttl_s=10))
    clock.now += 9
    if taken:
        endpoint.take("w1", 1)
    clock.now += 1.5
    endpoint.tick()
    assert job.state is JobState.TIMED_OUT
    assert endpoint.take("w2", 1) == []


@pytest.mark.parametrize(("synchronous", "kept_s"), [(False, 1800), (True, 60)])
def test_results_are_kept_their_time(
    endpoint: Endpoint, clock: Clock, *, synchronous: bool, kept_s: float
) -> None:
    job = submit(endpoint, synchronous=synchronous)
    endpoint.take("w1", 1)
    endpoint.report("w1", job.id, {"output": 1})
    clock.now += kept_s
    endpoint.tick()
    assert endpoint.status(job.id)["output"] == 1
    clock.now += 1
    endpoint.tick()
    with pytest.raises(JobUnknown):
        endpoint.status(job.id)
    with pytest.raises(JobUnknown):
        endpoint.retry(job.id)


def test_retry_runs_the_same_job_again_without_its_old_output(endpoint: Endpoint) -> None:
    job = submit(endpoint)
    endpoint.take("w1", 1)
    endpoint.report("w1", job.id, {"error": "no", "output": {"code": "x"}})
    assert endpoint.retry(job.id) is job
    assert endpoint.status(job.id) == {"id": job.id, "status": "IN_QUEUE", "retries": 1}
    endpoint.take("w2", 1)
    endpoint.report("w2", job.id, {"output": "better"})
    assert endpoint.status(job.id)["status"] == "COMPLETED"
    with pytest.raises(NotRetryable):
        endpoint.retry(job.id)


def test_a_dead_workers_jobs_are_queued_first_and_fail_after_three_retries(
    endpoint: Endpoint,
) -> None:
    jobs = [submit(endpoint), submit(endpoint)]
    waiting = submit(endpoint)
    for attempt in range(3):
        assert endpoint.take("w1", 2) == jobs
        endpoint.worker_gone("w1")
        assert [job.retries for job in jobs] == [attempt + 1] * 2
    endpoint.take("w1", 2)
    endpoint.worker_gone("w1")
    assert [job.state for job in jobs] == [JobState.FAILED] * 2
    assert endpoint.status(jobs[0].id)["error"] == "job timed out after 3 retries"
    assert endpoint.take("w1", 5) == [waiting]


def test_a_job_that_did_not_reach_the_worker_is_no_retry(endpoint: Endpoint) -> None:
    job = submit(endpoint)
    endpoint.take("w1", 1)
    endpoint.give_back(job)
    assert endpoint.status(job.id) == {"id": job.id, "status": "IN_QUEUE"}


def test_purge_takes_the_queue_and_leaves_what_runs(endpoint: Endpoint) -> None:
    running, *queued = (submit(endpoint) for _ in range(3))
    endpoint.take("w1", 1)
    assert endpoint.purge() == 2
    assert running.state is JobState.IN_PROGRESS
    assert {job.state for job in queued} == {JobState.CANCELLED}


def test_stream_is_read_once(endpoint: Endpoint) -> None:
    job = submit(endpoint)
    endpoint.take("w1", 1)
    endpoint.stream("w1", job.id, "a")
    endpoint.stream("w1", job.id, "b")
    endpoint.stream("w2", job.id, "not mine")
    read = endpoint.read_stream(job.id)
    assert read == {"status": "IN_PROGRESS", "stream": [{"output": "a"}, {"output": "b"}]}
    assert endpoint.read_stream(job.id)["stream"] == []


def test_busy_time_is_the_union_of_jobs_in_hand(endpoint: Endpoint, clock: Clock) -> None:
    first, second = submit(endpoint), submit(endpoint)
    endpoint.take("w1", 1)
    clock.now += 2
    endpoint.take("w1", 1)
    clock.now += 3
    endpoint.report("w1", first.id, {"output": 1})
    clock.now += 4
    endpoint.report("w1", second.id, {"output": 1})
    clock.now += 1
    report = endpoint.ledger.report(clock.now)
    assert report["workers"]["w1"] == {
        "jobs": 2,
        "seen_s": 10.0,
        "busy_s": 9.0,
        "utilisation": 0.9,
    }
    assert report["execution_s"]["sum"] == 12.0
    assert report["queue_s"]["max"] == 2.0


class EndpointLife(RuleBasedStateMachine):
    """Any order of calls: a job ends once, the ledger adds up, no job is in two places."""

    jobs: Bundle[Job] = Bundle("jobs")
    workers = st.sampled_from(["w1", "w2"])

    @initialize()
    def start(self) -> None:
        self.clock = Clock()
        self.ends: list[str] = []
        self.restarts = 0
        self.endpoint = Endpoint(
            EndpointOptions(keep_s=1e9, keep_sync_s=1e9),
            clock=self.clock,
            on_final=lambda job: self.ends.append(job.id),
        )

    @rule(target=jobs, synchronous=st.booleans())
    def submit(self, *, synchronous: bool) -> Job:
        return submit(
            self.endpoint, synchronous=synchronous, policy=Policy(execution_timeout_s=5, ttl_s=20)
        )

    @rule(worker=workers, limit=st.integers(1, 3))
    def take(self, worker: str, limit: int) -> None:
        self.endpoint.take(worker, limit)

    @rule(job=jobs, worker=workers, failed=st.booleans())
    def report(self, job: Job, worker: str, *, failed: bool) -> None:
        self.endpoint.report(worker, job.id, {"error": "no"} if failed else {"output": 1})

    @rule(job=jobs)
    def cancel(self, job: Job) -> None:
        self.endpoint.cancel(job.id)

    @rule(job=jobs)
    def retry(self, job: Job) -> None:
        if job.state in RETRYABLE:
            self.endpoint.retry(job.id)
            self.restarts += 1

    @rule(worker=workers)
    def lose(self, worker: str) -> None:
        self.endpoint.worker_gone(worker)

    @rule(seconds=st.sampled_from([0.1, 3.0, 6.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.endpoint.tick()

    @rule()
    def purge(self) -> None:
        self.endpoint.purge()

    @invariant()
    def adds_up(self) -> None:
        if not hasattr(self, "endpoint"):
            return
        final = sum(self.endpoint.count(state) for state in FINAL)
        assert len(self.ends) == self.endpoint.ledger.states.total() == final + self.restarts
        for worker, account in self.endpoint.ledger.workers.items():
            assert account.in_hand == len(self.endpoint.in_hand(worker))
            assert account.busy_s >= 0


EndpointLife.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestEndpointLife = EndpointLife.TestCase
