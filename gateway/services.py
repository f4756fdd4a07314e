"""Everything a request is answered with, opened once and closed together."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from gateway.endpoint import Endpoint
from gateway.jobs import Jobs, Presign
from gateway.settings import GatewaySettings
from gateway.sweeping import Sweep, sweeping
from gateway.webhooks import Webhooks
from lora_registry.job_records import JobRecord, JobRecords
from lora_registry.registry import Registry
from worker.storage import ObjectStore
from worker.storage_settings import storage_options
from workflows.library import Library, load_library

_THREADS: Final = 32  # requests to the bucket at a time
_HEALTH_S: Final = 5.0  # how long an endpoint's health is believed


@dataclass(slots=True)
class Services:
    """The parts; belongs to the event loop, which alone may use it."""

    settings: GatewaySettings
    store: ObjectStore
    registry: Registry
    endpoint: Endpoint
    jobs: Jobs
    webhooks: Webhooks
    sweep: Sweep
    workflows: Library
    presign: Presign
    health: "HealthCache"
    streams: int = 0  # clients that follow a job now


class HealthCache:
    """An endpoint's health, asked for at most every few seconds however many want to know."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._known: dict[str, tuple[float, dict[str, Any]]] = {}
        self._lock = asyncio.Lock()

    async def get(self, endpoint_id: str) -> dict[str, Any]:
        """Jobs and workers by state. Raises EndpointUnavailable."""
        async with self._lock:
            now = asyncio.get_running_loop().time()
            at, health = self._known.get(endpoint_id, (-_HEALTH_S, {}))
            if now - at >= _HEALTH_S:
                health = await self._endpoint.health(endpoint_id)
                self._known[endpoint_id] = (now, health)
            return health

    async def of(self, record: JobRecord) -> dict[str, Any]:
        """The health of the endpoint that has a job. Raises EndpointUnavailable."""
        return await self.get(record.endpoint_id or "")


@contextlib.asynccontextmanager
async def opened(settings: GatewaySettings) -> AsyncIterator[Services]:
    """Open bucket and endpoint, and sweep while the block runs."""
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="bucket")
    asyncio.get_running_loop().set_default_executor(pool)
    endpoint = Endpoint(settings.runpod_base_url, settings.runpod_api_key.get_secret_value())
    with ObjectStore(storage_options(settings)) as store:
        records = JobRecords(store)

        def presign(key: str) -> tuple[str, str | None]:
            signed = store.presign(key, settings.url_expires_s)
            return signed.url, signed.expires_at

        jobs = Jobs(settings, store, records, endpoint)
        webhooks = Webhooks(settings, records)
        sweep = Sweep(jobs, webhooks, presign)
        services = Services(
            settings=settings,
            store=store,
            registry=Registry(store),
            endpoint=endpoint,
            jobs=jobs,
            webhooks=webhooks,
            sweep=sweep,
            workflows=load_library(settings.workflows_dir),
            presign=presign,
            health=HealthCache(endpoint),
        )
        try:
            async with sweeping(sweep):
                yield services
        finally:
            await endpoint.close()
