import asyncio
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from worker.bridge import job_handler
from worker.cancel import CancelToken
from worker.service import Worker
from worker.settings import Settings

GIVEN = {"S3_BUCKET": "b", "S3_ACCESS_KEY_ID": "i", "S3_SECRET_ACCESS_KEY": "s"}


class FakeWorker:
    """A stand-in for the Worker: runs a function in the thread that the bridge gives it."""

    def __init__(
        self, body: Callable[[CancelToken, Callable[[dict[str, Any]], None]], Any]
    ) -> None:
        self._body = body
        self.settings = Settings.from_environment(GIVEN)
        self.ended = threading.Event()

    def run(self, job_id: str, raw: object, *, cancel: CancelToken, send: Any) -> dict[str, Any]:
        try:
            return {"job_id": job_id, "input": raw, "answer": self._body(cancel, send)}
        finally:
            self.ended.set()


def handler(fake: FakeWorker, posted: list[dict[str, Any]] | None = None) -> Any:
    async def post(_job: dict[str, Any], update: dict[str, Any]) -> None:
        await asyncio.sleep(0.01)
        if posted is not None:
            posted.append(update)

    return job_handler(cast("Worker", fake), post)


def test_a_job_runs_in_a_thread_and_the_loop_goes_on() -> None:
    fake = FakeWorker(lambda _cancel, _send: threading.current_thread().name)

    async def main() -> list[Any]:
        handle = handler(fake)
        return await asyncio.gather(*(handle({"id": str(n), "input": {"n": n}}) for n in (1, 2)))

    one, two = asyncio.run(main())
    assert (one["job_id"], one["input"]) == ("1", {"n": 1})
    assert one["answer"] != threading.main_thread().name != two["answer"]


@pytest.mark.parametrize("on_platform", [False, True])
def test_a_local_tests_result_is_kept_in_a_file(tmp_path: Path, on_platform: bool) -> None:  # noqa: FBT001 - a case
    path = tmp_path / "result.json"
    given = GIVEN | {"LOCAL_RESULT_FILE": str(path)}
    if on_platform:
        given |= {"RUNPOD_WEBHOOK_GET_JOB": "https://platform/job-take/$ID"}
    fake = FakeWorker(lambda _cancel, _send: "x" * 10_000)
    fake.settings = Settings.from_environment(given)
    result = asyncio.run(handler(fake)({"id": "a", "input": {}}))
    assert path.exists() is not on_platform
    assert on_platform or json.loads(path.read_text()) == result


def test_updates_are_delivered_one_after_the_other_before_the_job_goes_on() -> None:
    posted: list[dict[str, Any]] = []

    def body(_cancel: CancelToken, send: Callable[[dict[str, Any]], None]) -> list[int]:
        seen = []
        for number in range(5):
            send({"percent": number})
            seen.append(len(posted))
        return seen

    fake = FakeWorker(body)
    result = asyncio.run(handler(fake, posted)({"id": "a", "input": {}}))
    assert result["answer"] == [1, 2, 3, 4, 5]
    assert [update["percent"] for update in posted] == [0, 1, 2, 3, 4]


def test_a_cancel_reaches_the_job_and_is_raised_again_once_it_has_ended() -> None:
    begun = threading.Event()

    def body(cancel: CancelToken, _send: object) -> None:
        begun.set()
        cancel.sleep(30)

    fake = FakeWorker(body)

    async def main() -> float:
        task = asyncio.ensure_future(handler(fake)({"id": "a", "input": {}}))
        await asyncio.to_thread(begun.wait, 5)
        cancelled_at = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert fake.ended.is_set()
        return time.monotonic() - cancelled_at

    # The job's own Cancelled error must not end up unretrieved in the loop.
    assert asyncio.run(main()) < 3
