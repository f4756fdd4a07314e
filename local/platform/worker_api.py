"""The side of the platform that runpod SDK 1.12.0 talks to: job-take, job-stop, job-done, ping.

Paths and answers are read from the SDK (`rp_job.get_job`, `rp_job.get_stop_signals`,
`rp_http._handle_result`, `rp_ping.Heartbeat`). How long the platform holds a poll is not
documented; a poll that has nothing to say ends with 204.
"""

import logging
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

from aiohttp import web

from local.platform.endpoint import Endpoint
from local.platform.jobs import Job
from local.platform.submissions import RequestRefused, body_limit, read_json

log = logging.getLogger(__name__)


class Fleet(Protocol):
    """What this side tells, and asks of, the pods."""

    def accepts_jobs(self, worker_id: str) -> bool:
        """Whether this worker may have jobs: it is known and not being stopped."""
        ...

    def seen(self, worker_id: str, *, unhealthy: str | None = None) -> None:
        """A worker pinged, perhaps to say why it is unfit."""
        ...

    def refresh(self, worker_id: str) -> None:
        """A worker asked to be stopped after its job (`stopPod`)."""
        ...


@dataclass(frozen=True, slots=True)
class WorkerApi:
    """Request handlers over one endpoint; `poll_s` is how long job-take and job-stop are held."""

    endpoint: Endpoint
    fleet: Fleet
    poll_s: float

    def routes(self) -> list[web.RouteDef]:
        """The worker's paths, below the endpoint's own."""
        return [
            web.get("/job-take/{worker}", self.take),
            web.get("/job-take-batch/{worker}", self.take_batch),
            web.get("/job-stop/{worker}", self.stop_signals),
            web.post("/job-done/{worker}/{job}", self.done),
            web.post("/job-stream/{worker}/{job}", self.stream),
            web.get("/ping/{worker}", self.ping),
        ]

    async def take(self, request: web.Request) -> web.Response:
        """One job, as an object; 204 when there is none."""
        jobs = await self._take(request, 1)
        return _json(jobs[0].for_worker()) if jobs else _nothing()

    async def take_batch(self, request: web.Request) -> web.Response:
        """Up to `batch_size` jobs, as a list; 204 when there is none."""
        jobs = await self._take(request, int(request.query.get("batch_size", "1")))
        return _json([job.for_worker() for job in jobs]) if jobs else _nothing()

    async def _take(self, request: web.Request, limit: int) -> list[Job]:
        worker = request.match_info["worker"]
        until = self.endpoint.now + self.poll_s
        while self.fleet.accepts_jobs(worker):
            jobs = self.endpoint.take(worker, limit)
            if jobs and _hung_up(request):
                for job in reversed(jobs):
                    self.endpoint.give_back(job)
                return []
            if jobs or self.endpoint.now >= until:
                return jobs
            await self.endpoint.changed.wait(until - self.endpoint.now)
        return []

    async def stop_signals(self, request: web.Request) -> web.Response:
        """The ids of jobs to stop; held while there are none, and while a stopping worker works."""
        worker = request.match_info["worker"]
        until = self.endpoint.now + self.poll_s
        while not (stops := self.endpoint.take_stops(worker)):
            idle = not self.endpoint.in_hand(worker)
            if self.endpoint.now >= until or (idle and not self.fleet.accepts_jobs(worker)):
                return _nothing()
            await self.endpoint.changed.wait(until - self.endpoint.now)
        return _json({"jobsToStop": stops})

    async def done(self, request: web.Request) -> web.Response:
        """A result, or a progress update; a result over the size limit is refused with 400."""
        worker, job_id = request.match_info["worker"], request.match_info["job"]
        body = await request.read()
        if len(body) > body_limit(synchronous=job_id.startswith("sync-")):
            raise RequestRefused(HTTPStatus.BAD_REQUEST, "result is too large")
        result = _object(body)
        self.endpoint.report(worker, job_id, result)
        if result.get("stopPod"):
            self.fleet.refresh(worker)
        return web.Response()

    async def stream(self, request: web.Request) -> web.Response:
        """One chunk of a generator's output."""
        chunk = _object(await request.read())
        worker, job_id = request.match_info["worker"], request.match_info["job"]
        self.endpoint.stream(worker, job_id, chunk.get("output"))
        return web.Response()

    async def ping(self, request: web.Request) -> web.Response:
        """A heartbeat with the ids in hand, or the report of a failed fitness check."""
        worker, query = request.match_info["worker"], request.query
        unfit = query.get("reason", "unknown") if query.get("status") == "unhealthy" else None
        self.fleet.seen(worker, unhealthy=unfit)
        self.endpoint.still_running(worker, query.get("job_id", "").split(","))
        return web.Response()


def _json(document: Any) -> web.Response:
    return web.json_response(document)


def _nothing() -> web.Response:
    return web.Response(status=HTTPStatus.NO_CONTENT)


def _object(body: bytes) -> dict[str, Any]:
    document = read_json(body)
    if not isinstance(document, dict):
        raise RequestRefused(HTTPStatus.BAD_REQUEST, "result is not an object")
    return document


def _hung_up(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()
