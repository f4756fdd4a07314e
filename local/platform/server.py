"""The platform put together: one endpoint, its pods, both APIs on one loopback port."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from local.platform.endpoint import Endpoint, EndpointOptions, JobUnknown, NotRetryable
from local.platform.endpoint_api import EndpointApi
from local.platform.fleet import PodFleet
from local.platform.jobs import Policy
from local.platform.pods import PodOptions
from local.platform.submissions import MAX_RUNSYNC_BYTES, RequestRefused, SubmissionReader
from local.platform.webhooks import Webhooks
from local.platform.worker_api import WorkerApi

ENDPOINT_ID: Final = "local"
API_KEY: Final = "local-platform-key"  # any key is accepted; the SDK pings only if it has one
PREFIX: Final = f"/v2/{ENDPOINT_ID}"
TICK_S: Final = 0.1
HOST: Final = "127.0.0.1"


class PortTaken(OSError):
    """Somebody listens at the port already."""


@dataclass(frozen=True, slots=True)
class PlatformOptions:
    """Everything that can be set.

    Args:
        pods: how a worker is run.
        workers: how many, from the start.
        port: on loopback; 0 takes a free one.
        policy: the endpoint's own executionTimeout and ttl.
        endpoint: how long results stay, how often a lost job is tried again.
        poll_s: how long job-take and job-stop are held open.
        webhook_delay_s: pause between a webhook's attempts.
        require_key: refuse requests without an Authorization header, whatever is in it.
    """

    pods: PodOptions
    workers: int = 1
    port: int = 0
    policy: Policy = field(default_factory=Policy)
    endpoint: EndpointOptions = field(default_factory=EndpointOptions)
    poll_s: float = 20.0
    webhook_delay_s: float = 10.0
    require_key: bool = False


@dataclass(frozen=True, slots=True)
class Platform:
    """A platform that is up; belongs to the event loop it was started in."""

    url: str
    endpoint: Endpoint
    fleet: PodFleet


@contextlib.asynccontextmanager
async def platform(options: PlatformOptions) -> AsyncIterator[Platform]:
    """Serve until the block ends; then every worker is stopped as at a scale-down."""
    async with contextlib.AsyncExitStack() as stack:
        webhooks = Webhooks(lambda job: job.status(endpoint.now), delay_s=options.webhook_delay_s)
        await stack.enter_async_context(webhooks)
        endpoint = Endpoint(options.endpoint, on_final=webhooks.announce)
        port = _Port()
        fleet = PodFleet(
            options.pods,
            platform_environment=lambda pod_id: _environment(port.url, pod_id),
            on_gone=endpoint.worker_gone,
            on_drain=endpoint.changed.announce,
            busy=lambda worker_id: bool(endpoint.in_hand(worker_id)),
        )
        app = _application(options, endpoint, fleet, webhooks)
        port.number = await stack.enter_async_context(_listening(app, options.port))
        await stack.enter_async_context(_ticking(endpoint, fleet))
        stack.push_async_callback(fleet.close)
        await fleet.scale(options.workers)
        yield Platform(port.url, endpoint, fleet)


@dataclass(slots=True)
class _Port:
    number: int = 0

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.number}{PREFIX}"


def _application(
    options: PlatformOptions, endpoint: Endpoint, fleet: PodFleet, webhooks: Webhooks
) -> web.Application:
    def metrics() -> dict[str, Any]:
        booked = endpoint.ledger.report(endpoint.now)
        return booked | {"pods": fleet.report(), "webhooks": dict(webhooks.answers)}

    worker_side = WorkerApi(endpoint, fleet, options.poll_s)
    reader = SubmissionReader(options.policy)
    customer_side = EndpointApi(endpoint, reader, fleet.states, metrics)
    middlewares = [_refusals, *([_any_key] if options.require_key else [])]
    app = web.Application(client_max_size=MAX_RUNSYNC_BYTES + 2**20, middlewares=middlewares)
    for route in [*worker_side.routes(), *customer_side.routes()]:
        app.router.add_route(route.method, PREFIX + route.path, route.handler)
    return app


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def _refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except RequestRefused as refused:
        return web.json_response({"error": str(refused)}, status=refused.status)
    except JobUnknown as unknown:
        return web.json_response({"error": str(unknown)}, status=HTTPStatus.NOT_FOUND)
    except NotRetryable as refused:
        return web.json_response({"error": str(refused)}, status=HTTPStatus.BAD_REQUEST)
    except web.HTTPRequestEntityTooLarge:
        message = {"error": "exceeded max body size of 20MiB"}
        return web.json_response(message, status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


@web.middleware
async def _any_key(request: web.Request, handler: Handler) -> web.StreamResponse:
    if not request.headers.get("Authorization"):
        return web.json_response({"error": "unauthorized"}, status=HTTPStatus.UNAUTHORIZED)
    return await handler(request)


@contextlib.asynccontextmanager
async def _listening(app: web.Application, port: int) -> AsyncIterator[int]:
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, HOST, port).start()
        except OSError as error:
            raise PortTaken(f"port {port} of {HOST} is taken") from error
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def _ticking(endpoint: Endpoint, fleet: PodFleet) -> AsyncIterator[None]:
    async def tick() -> None:
        while True:
            endpoint.tick()
            fleet.kill_silent()
            await asyncio.sleep(TICK_S)

    task = asyncio.create_task(tick())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _environment(url: str, pod_id: str) -> Mapping[str, str]:
    """What the platform puts into a worker's environment.

    The SDK replaces `$ID` by the worker's id in job-take and by the job's in job-done; the query
    string must exist, since it appends with `&`. Fitness checks that need a GPU host or the
    internet are off: this machine is neither.
    """
    return {
        "RUNPOD_ENDPOINT_ID": ENDPOINT_ID,
        "RUNPOD_POD_ID": pod_id,
        "RUNPOD_POD_HOSTNAME": pod_id,
        "RUNPOD_AI_API_KEY": API_KEY,
        "RUNPOD_WEBHOOK_GET_JOB": f"{url}/job-take/$ID?gpu=none",
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{url}/job-done/$RUNPOD_POD_ID/$ID?gpu=none",
        "RUNPOD_WEBHOOK_POST_STREAM": f"{url}/job-stream/$RUNPOD_POD_ID/$ID?gpu=none",
        "RUNPOD_WEBHOOK_PING": f"{url}/ping/$RUNPOD_POD_ID?gpu=none",
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "RUNPOD_SKIP_GPU_CHECK": "true",
    }
