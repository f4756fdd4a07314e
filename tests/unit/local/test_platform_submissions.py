"""What `/run` accepts, and the words with which it does not."""

import json
from http import HTTPStatus
from typing import Any

import pytest

from local.platform.jobs import Policy
from local.platform.submissions import RequestRefused, SubmissionReader, wait_seconds

READER = SubmissionReader(Policy(execution_timeout_s=600, ttl_s=86_400))


def read(document: Any, *, synchronous: bool = False) -> Any:
    return READER.read(json.dumps(document).encode(), synchronous=synchronous)


def test_everything_a_customer_can_say() -> None:
    submission = read(
        {
            "input": {"task": "health"},
            "webhook": "https://example.com/done",
            "policy": {"executionTimeout": 6000, "ttl": 10_000, "lowPriority": True},
            "s3Config": {"bucketName": "b"},
        }
    )
    assert submission.input == {"task": "health"}
    assert submission.policy == Policy(execution_timeout_s=6.0, ttl_s=10.0)
    assert submission.webhook == "https://example.com/done"
    assert submission.s3_config == {"bucketName": "b"}


def test_the_endpoints_own_policy_is_the_default() -> None:
    assert read({"input": {}}).policy == READER.default


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "input is required"),
        ({}, "input is required"),
        ({"input": None}, "input is required"),
        ({"input": {}, "webhook": "ftp://x"}, "webhook must be"),
        ({"input": {}, "webhook": 7}, "webhook must be"),
        ({"input": {}, "policy": []}, None),
        ({"input": {}, "policy": [1]}, "policy must be an object"),
        ({"input": {}, "policy": {"executionTimeout": 4999}}, "policy.executionTimeout"),
        ({"input": {}, "policy": {"executionTimeout": True}}, "policy.executionTimeout"),
        ({"input": {}, "policy": {"executionTimeout": 6000.5}}, "policy.executionTimeout"),
        ({"input": {}, "policy": {"ttl": 9_999}}, "policy.ttl"),
        ({"input": {}, "policy": {"ttl": 8 * 86_400_000}}, "policy.ttl"),
    ],
)
def test_what_is_not_a_job(document: Any, message: str | None) -> None:
    if message is None:
        assert read(document).policy == READER.default
        return
    with pytest.raises(RequestRefused, match=message) as refused:
        read(document)
    assert refused.value.status == HTTPStatus.BAD_REQUEST


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"input": NaN}', b"\xff", b"[" * 100_000, b'{"input": ' + b"9" * 5000]
)
def test_what_is_not_json(body: bytes) -> None:
    with pytest.raises(RequestRefused, match="not valid JSON"):
        READER.read(body, synchronous=False)


@pytest.mark.parametrize(("synchronous", "mebibytes"), [(False, 10), (True, 20)])
def test_size_limits(*, synchronous: bool, mebibytes: int) -> None:
    frame = len(b'{"input": ""}')
    largest = {"input": "x" * (mebibytes * 2**20 - frame)}
    assert read(largest, synchronous=synchronous).synchronous is synchronous
    with pytest.raises(RequestRefused, match=f"max body size of {mebibytes}MiB") as refused:
        read({"input": largest["input"] + "x"}, synchronous=synchronous)
    assert refused.value.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE


@pytest.mark.parametrize(
    ("text", "seconds"), [(None, 90), ("1000", 1), ("1", 1), ("300001", 300), ("9" * 400, 300)]
)
def test_how_long_runsync_waits(text: str | None, seconds: float) -> None:
    assert wait_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "1.5", "abc", "\u0661"])
def test_a_wait_that_is_no_number(text: str) -> None:
    with pytest.raises(RequestRefused, match="wait must be"):
        wait_seconds(text)
