from typing import Any

import pytest

from gateway.endpoint import PlatformJob, plain_words
from gateway.jobs import fresh, job_id_of


@pytest.mark.parametrize(
    ("workers", "words"),
    [
        ({"idle": 1}, None),
        ({"running": 2, "initializing": 1}, None),
        ({"initializing": 1}, "A worker is starting."),
        ({"throttled": 3}, "no free GPU"),
        ({"unhealthy": 1}, "fail as they start"),
        ({}, "no worker"),
    ],
)
def test_why_a_job_waits_in_words(workers: dict[str, int], words: str | None) -> None:
    said = plain_words({"workers": workers})
    assert said is None if words is None else words in (said or "")


@pytest.mark.parametrize(
    ("status", "output", "error", "answer"),
    [
        ("COMPLETED", {"task": "image"}, None, {"task": "image"}),
        ("COMPLETED", None, None, None),
        ("FAILED", {"code": "timeout"}, "Too slow.", {"code": "timeout", "error": "Too slow."}),
        ("CANCELLED", None, None, None),
        (None, None, None, None),
    ],
)
def test_a_jobs_answer(status: str | None, output: Any, error: Any, answer: Any) -> None:
    found = PlatformJob("p", status, output, error).answer()
    assert found == (answer if answer is None or "error" not in answer else found)
    if answer is not None:
        assert found is not None
        assert answer.items() <= found.items()


def test_a_traceback_of_the_sdk_is_not_shown() -> None:
    crash = '{"error_type": "x", "error_traceback": "File /app/handler.py"}'
    answer = PlatformJob("p", "FAILED", None, crash).answer()
    assert answer is not None
    assert "/app" not in answer["error"]


def test_every_url_beside_a_key_is_signed_anew() -> None:
    old = {"outputs": [{"key": "a", "url": "old", "expires_at": "then"}], "url": "kept"}
    renewed = fresh(old, lambda key: (f"new-{key}", "now"))
    assert renewed == {
        "outputs": [{"key": "a", "url": "new-a", "expires_at": "now"}],
        "url": "kept",
    }


def test_a_key_is_one_job_for_one_caller() -> None:
    assert job_id_of("a", "k") == job_id_of("a", "k")
    assert len({job_id_of("a", "k"), job_id_of("b", "k"), job_id_of("a", "l")}) == 3
