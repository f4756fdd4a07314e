"""The side of the platform that customers call: `/run`, `/runsync`, `/status` and the others."""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from aiohttp import web

from local.platform.endpoint import Endpoint
from local.platform.jobs import Job, JobState
from local.platform.submissions import RequestRefused, SubmissionReader, wait_seconds

QUEUE_LIMIT = 50  # 429 only when the queue exceeds this *and* 500 for each worker
QUEUE_LIMIT_PER_WORKER = 500


@dataclass(frozen=True, slots=True)
class EndpointApi:
    """Request handlers over one endpoint.

    Args:
        endpoint: the jobs.
        reader: checks submissions.
        workers: how many workers are in which state, as `/health` names them.
        metrics: what `/metrics` answers; an addition of ours.
    """

    endpoint: Endpoint
    reader: SubmissionReader
    workers: Callable[[], dict[str, int]]
    metrics: Callable[[], dict[str, Any]]

    def routes(self) -> list[web.RouteDef]:
        """The customer's paths, below the endpoint's own."""
        return [
            web.post("/run", self.run),
            web.post("/runsync", self.runsync),
            web.get("/status/{job}", self.status),
            web.post("/status/{job}", self.status),
            web.get("/stream/{job}", self.stream),
            web.post("/stream/{job}", self.stream),
            web.post("/cancel/{job}", self.cancel),
            web.post("/retry/{job}", self.retry),
            web.post("/purge-queue", self.purge_queue),
            web.get("/health", self.health),
            web.get("/metrics", self.show_metrics),
        ]

    async def run(self, request: web.Request) -> web.Response:
        """Accept a job and answer its id."""
        return _brief(await self._submit(request, synchronous=False))

    async def runsync(self, request: web.Request) -> web.Response:
        """Accept a job and wait for its end, `wait` milliseconds at most (90 s without it)."""
        until = self.endpoint.now + wait_seconds(request.query.get("wait"))
        job = await self._submit(request, synchronous=True)
        while not job.final and self.endpoint.now < until:
            await self.endpoint.changed.wait(until - self.endpoint.now)
        return web.json_response(job.status(self.endpoint.now))

    async def _submit(self, request: web.Request, *, synchronous: bool) -> Job:
        submission = self.reader.read(await request.read(), synchronous=synchronous)
        queued, workers = self.endpoint.count(JobState.IN_QUEUE), sum(self.workers().values())
        if queued > QUEUE_LIMIT and queued > workers * QUEUE_LIMIT_PER_WORKER:
            raise RequestRefused(HTTPStatus.TOO_MANY_REQUESTS, "too many jobs in the queue")
        return self.endpoint.submit(submission)

    async def status(self, request: web.Request) -> web.Response:
        """State, times, output or error; while it runs, `output` is its latest progress."""
        return web.json_response(self.endpoint.status(request.match_info["job"]))

    async def stream(self, request: web.Request) -> web.Response:
        """What a streaming job has yielded since the last call, waiting a second for news."""
        job = self.endpoint.job(request.match_info["job"])
        if not job.chunks and not job.final:
            await self.endpoint.changed.wait(1.0)
        return web.json_response(self.endpoint.read_stream(job.id))

    async def cancel(self, request: web.Request) -> web.Response:
        """End a job, queued or running."""
        return _brief(self.endpoint.cancel(request.match_info["job"]))

    async def retry(self, request: web.Request) -> web.Response:
        """Queue a failed job again."""
        return _brief(self.endpoint.retry(request.match_info["job"]))

    async def purge_queue(self, _request: web.Request) -> web.Response:
        """Remove what is queued."""
        return web.json_response({"removed": self.endpoint.purge(), "status": "completed"})

    async def health(self, _request: web.Request) -> web.Response:
        """Jobs and workers by state."""
        booked = self.endpoint.ledger
        jobs = {
            "completed": booked.states[JobState.COMPLETED.value],
            "failed": booked.states[JobState.FAILED.value],
            "inProgress": self.endpoint.count(JobState.IN_PROGRESS),
            "inQueue": self.endpoint.count(JobState.IN_QUEUE),
            "retried": booked.retries,
        }
        return web.json_response({"jobs": jobs, "workers": self.workers()})

    async def show_metrics(self, _request: web.Request) -> web.Response:
        """What would be billed."""
        return web.json_response(self.metrics())


def _brief(job: Job) -> web.Response:
    return web.json_response({"id": job.id, "status": job.state.value})
