import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from worker.logs import HIDDEN, LogFormat, configure, job_logging

log = logging.getLogger("worker.test")


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def written(log_format: LogFormat = "json", level: str = "INFO", **options: Any) -> io.StringIO:
    stream = io.StringIO()
    configure(log_format, level, stream=stream, **options)
    return stream


def only(stream: io.StringIO) -> dict[str, Any]:
    (line,) = stream.getvalue().splitlines()
    fields = json.loads(line)
    assert isinstance(fields, dict)
    return fields


def test_an_event_is_one_json_line_with_its_fields() -> None:
    stream = written()
    log.info("workflow done", extra={"workflow": "sdxl", "ms": 12, "nodes": ["3", "9"]})
    fields = only(stream)
    assert fields.pop("time").endswith("+00:00")
    assert fields == {
        "level": "INFO",
        "logger": "worker.test",
        "event": "workflow done",
        "workflow": "sdxl",
        "ms": 12,
        "nodes": ["3", "9"],
    }


def test_the_jobs_id_goes_with_its_events_and_with_those_of_its_threads() -> None:
    async def two_jobs() -> None:
        async def job(job_id: str) -> None:
            with job_logging(job_id):
                await asyncio.to_thread(log.info, job_id)

        await asyncio.gather(job("a"), job("b"))

    stream = written()
    asyncio.run(two_jobs())
    log.info("none")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert {line["event"]: line.get("job_id") for line in lines} == {
        "a": "a",
        "b": "b",
        "none": None,
    }


def test_an_exception_is_one_field() -> None:
    stream = written()
    try:
        int("no number")
    except ValueError:
        log.exception("job failed")
    assert only(stream)["exception"].endswith("'no number'")


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_secrets_are_never_written(log_format: LogFormat) -> None:
    stream = written(log_format, secrets=["very-secret-value", "", "ab"])
    log.info(
        "put https://user:hunter2@host/key?X-Amz-Signature=abcdef0123&x=1 very-secret-value "
        "http://127.0.0.1:8188/",
        extra={
            "secret_access_key": "hunter2",
            "headers": {"Authorization": "hunter2", "host": "h"},
            "urls": ["https://b/k?a=1&X-Amz-Credential=hunter2%2F2026"],
            "header": "Bearer hunter2",
        },
    )
    try:
        int("very-secret-value")
    except ValueError:
        log.exception("failed")
    text = stream.getvalue()
    assert HIDDEN in text
    assert "&x=1" in text
    assert "host" in text
    assert "http://127.0.0.1:8188/" in text
    for secret in ("hunter2", "very-secret-value", "abcdef0123"):
        assert secret not in text


def test_what_json_cannot_carry_is_written_as_text() -> None:
    stream = written()
    log.info("loss", extra={"loss": float("nan"), "best": float("-inf"), "where": {1: object}})
    assert "NaN" not in stream.getvalue()
    fields = only(stream)
    assert (fields["loss"], fields["best"]) == ("nan", "-inf")
    assert fields["where"] == {"1": "<class 'object'>"}


def test_a_field_cannot_displace_the_event() -> None:
    stream = written()
    log.info("true", extra={"event": "false", "level": "x"})
    assert (only(stream)["event"], only(stream)["level"]) == ("true", "INFO")


def test_text_is_readable_and_free_of_colour() -> None:
    stream = written("text")
    log.warning("slow node", extra={"node": "3", "note": "two words"})
    line = stream.getvalue()
    assert line.endswith('WARNING worker.test: slow node  node=3 note="two words"\n')
    assert "\x1b" not in line


def test_configured_again_it_replaces_itself_and_leaves_others_alone() -> None:
    other = logging.NullHandler()
    logging.getLogger().addHandler(other)
    first = written()
    second = written(level="WARNING")
    log.info("unseen")
    log.warning("seen")
    assert first.getvalue() == ""
    assert only(second)["event"] == "seen"
    assert other in logging.getLogger().handlers


def test_libraries_speak_only_when_something_is_wrong() -> None:
    stream = written(level="DEBUG")
    logging.getLogger("urllib3.connectionpool").debug("Starting new connection")
    logging.getLogger("botocore").warning("retrying")
    assert only(stream)["event"] == "retrying"
