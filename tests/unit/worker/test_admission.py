"""The gate in front of the SDK's fetch: the names it leans on, and what it does between them."""

import asyncio
import inspect
from types import SimpleNamespace
from typing import Any

import runpod
from runpod.serverless.modules import rp_scale

from worker.admission import SDK_VERSION, Admission
from worker.schedule import GpuSchedule

IMAGE = {"task": "image"}


def test_the_sdk_is_the_one_that_this_was_written_for() -> None:
    assert runpod.__version__ == SDK_VERSION
    assert list(inspect.signature(rp_scale.get_job).parameters) == ["session", "num_jobs"]
    assert "self.jobs_fetcher = get_job" in inspect.getsource(rp_scale.JobScaler.__init__)
    assert "self.jobs_fetcher(session, jobs_needed)" in inspect.getsource(
        rp_scale.JobScaler.get_jobs
    )


async def get_job(session: Any, num_jobs: int = 1) -> list[dict[str, Any]]:
    return [{"id": f"{session}-{num_jobs}", "input": IMAGE}]


def test_another_sdk_is_left_alone() -> None:
    for scaler, version in (
        (SimpleNamespace(get_job=get_job), "1.13.0"),
        (SimpleNamespace(), SDK_VERSION),
        (SimpleNamespace(get_job=len), SDK_VERSION),
    ):
        before = dict(vars(scaler))
        assert not Admission(GpuSchedule(2)).install(scaler, version)
        assert vars(scaler) == before


def test_one_job_at_a_time_and_only_when_it_is_wanted() -> None:
    async def scenario() -> None:
        plan, scaler = GpuSchedule(2), SimpleNamespace(get_job=get_job)
        assert Admission(plan).install(scaler, SDK_VERSION)
        assert await scaler.get_job("s", 5) == [{"id": "s-1", "input": IMAGE}]
        asked = asyncio.ensure_future(scaler.get_job("t", 5))
        await asyncio.sleep(0.1)
        assert not asked.done()
        plan.end("s-1")
        assert await asyncio.wait_for(asked, 2)

    asyncio.run(scenario())


def test_a_worker_that_is_replaced_asks_for_nothing_and_drops_what_it_asked() -> None:
    async def scenario() -> None:
        ended = asyncio.Event()

        async def held(session: Any, num_jobs: int) -> list[dict[str, Any]]:
            del session, num_jobs  # the SDK's names
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()
            return []

        scaler = SimpleNamespace(get_job=held)
        admission = Admission(GpuSchedule(2))
        assert admission.install(scaler, SDK_VERSION)
        asked = asyncio.ensure_future(scaler.get_job("s", 1))
        await asyncio.sleep(0.1)
        admission.close()
        assert await asyncio.wait_for(asked, 2) is None
        await asyncio.wait_for(ended.wait(), 2)
        assert await asyncio.wait_for(scaler.get_job("s", 1), 2) is None

    asyncio.run(scenario())
