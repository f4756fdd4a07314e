from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lora_registry.job_records import (
    AlreadyRunning,
    JobNotFound,
    JobRecord,
    JobRecords,
    checked_record_id,
)
from tests.stores import MemoryStore
from worker.recording import claim

NOW = datetime(2026, 11, 25, tzinfo=UTC)
RESULT: dict[str, Any] = {"task": "image", "job_id": "p1", "outputs": []}
ERROR: dict[str, Any] = {"error": "Too large.", "code": "out_of_memory", "retryable": False}


@pytest.fixture
def records() -> JobRecords:
    return JobRecords(MemoryStore())


def accepted(job_id: str, at: datetime = NOW) -> JobRecord:
    return JobRecord(id=job_id, task="image", created_at=at, updated_at=at)


def served(records: JobRecords, platform_id: str, answer: dict[str, Any]) -> dict[str, Any]:
    claimed = claim(records, {"task": "image", "request_id": "r1"}, platform_id)
    return claimed.finish(answer) if claimed.answer is None else claimed.answer


def test_a_record_is_created_once(records: JobRecords) -> None:
    assert records.create(accepted("r1")) == (accepted("r1"), True)
    other = accepted("r1").model_copy(update={"fingerprint": "x"})
    assert records.create(other) == (accepted("r1"), False)


def test_a_final_record_is_answered_instead_of_making_it_again(records: JobRecords) -> None:
    records.create(accepted("r1"))
    assert served(records, "p1", RESULT) == RESULT
    assert served(records, "p2", {"task": "image", "job_id": "p2"}) == RESULT
    assert records.get("r1").state == "completed"
    assert records.get("r1").run_by == "p1"


def test_an_error_is_final_too_and_what_the_platform_needs_is_not_kept(
    records: JobRecords,
) -> None:
    answer = served(records, "p1", {**ERROR, "refresh_worker": True})
    assert answer["refresh_worker"] is True
    assert records.get("r1").error == ERROR
    assert served(records, "p2", RESULT) == ERROR


def test_what_runs_elsewhere_is_not_made_a_second_time(records: JobRecords) -> None:
    records.claim("r1", "p1", "image")
    answer = served(records, "p2", RESULT)
    assert answer["code"] == "conflict"
    assert records.get("r1").run_by == "p1"
    assert served(records, "p1", RESULT) == RESULT  # the platform retries under the same id


def test_a_worker_that_is_stopped_leaves_the_request_to_the_next(records: JobRecords) -> None:
    stopped = {"error": "The job was cancelled.", "code": "cancelled", "retryable": False}
    assert served(records, "p1", stopped) == stopped
    assert not records.get("r1").final
    assert served(records, "p1", RESULT) == RESULT


def test_a_cancelled_request_is_not_made(records: JobRecords) -> None:
    records.create(accepted("r1"))
    records.finish("r1", {"error": "The job was cancelled.", "code": "cancelled"})
    assert served(records, "p1", RESULT)["code"] == "cancelled"


@pytest.mark.parametrize("raw", [None, [], {}, {"request_id": 7}, {"request_id": "../x"}])
def test_without_a_usable_name_there_is_no_record(records: JobRecords, raw: object) -> None:
    claimed = claim(records, raw, "p1")
    assert claimed.answer is None
    assert claimed.finish(RESULT) == RESULT
    assert list(records.open_ids()) == []


def test_of_many_claims_at_once_one_wins(records: JobRecords) -> None:
    records.create(accepted("r1"))

    def won(number: int) -> bool:
        try:
            return records.claim("r1", f"p{number}", "image").run_by == f"p{number}"
        except AlreadyRunning:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(won, range(8))) == 1


def test_jobs_are_listed_newest_first_from_any_place(records: JobRecords) -> None:
    for hour in range(5):
        records.list_newest(accepted(f"r{hour}", NOW + timedelta(hours=hour)))
    found = list(records.newest_ids())
    assert [job_id for _, job_id in found] == ["r4", "r3", "r2", "r1", "r0"]
    after = found[1][0]
    assert [job_id for _, job_id in records.newest_ids(after=after)] == ["r2", "r1", "r0"]


@pytest.mark.parametrize("job_id", ["", "../x", "a/b", "a" * 129, "-a", "a\n", "ä"])
def test_what_cannot_be_an_id_names_no_job(records: JobRecords, job_id: str) -> None:
    with pytest.raises(JobNotFound):
        checked_record_id(job_id)
    with pytest.raises(JobNotFound):
        records.get(job_id)
