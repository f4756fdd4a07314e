"""The gateway under load, on one core: SSE clients and reads a second; prints JSON.

A real S3 server and a real gateway process; the endpoint is one that always says "running", so
what is measured is the gateway. Reads are `GET /characters/{id}`; `store_ms` is what the bucket
alone takes for the same head.
"""

import asyncio
import json
import os
import statistics
import sys
import time
from typing import Any

import aiohttp
import psutil
from aiohttp import web

from local.gateway import GatewayProcess, gateway_environment
from local.stack import Stack
from worker.storage import ObjectStore

CLIENTS = 200
READS_PER_S = 100
SECONDS = 20


async def _endpoint() -> tuple[web.AppRunner, str]:
    count = 0

    async def run(_request: web.Request) -> web.Response:
        nonlocal count
        count += 1
        return web.json_response({"id": f"p{count}", "status": "IN_QUEUE"})

    async def status(request: web.Request) -> web.Response:
        progress = {"stage": "sampling", "percent": round(time.time() * 10 % 100, 1)}
        return web.json_response(
            {"id": request.match_info["job"], "status": "IN_PROGRESS", "output": progress}
        )

    app = web.Application()
    app.add_routes([web.post("/v2/bench/run", run), web.get("/v2/bench/status/{job}", status)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}/v2/bench"


async def _listen(session: aiohttp.ClientSession, url: str, events: list[int]) -> None:
    async with session.get(url) as reply:
        async for line in reply.content:
            events[0] += line.startswith(b"data:")


async def _read(session: aiohttp.ClientSession, url: str, times: list[float]) -> None:
    begun = time.perf_counter()
    async with session.get(url) as reply:
        await reply.read()
        reply.raise_for_status()
    times.append((time.perf_counter() - begun) * 1000)


async def _load(gateway: GatewayProcess) -> dict[str, Any]:
    body = {"prompt": "portrait", "character_id": "demo"}
    timeout = aiohttp.ClientTimeout(total=None)
    connector = aiohttp.TCPConnector(limit=0)
    events = [0]
    times: list[float] = []
    reads: set[asyncio.Task[None]] = set()
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        listeners = []
        for _ in range(CLIENTS):
            async with session.post(f"{gateway.url}/generate-image", json=body) as reply:
                job = await reply.json()
            url = f"{gateway.url}/jobs/{job['id']}/events"
            listeners.append(asyncio.create_task(_listen(session, url, events)))
        url = f"{gateway.url}/characters/demo"
        begun = time.monotonic()
        for number in range(READS_PER_S * SECONDS):
            reads.add(asyncio.create_task(_read(session, url, times)))
            await asyncio.sleep(max(0.0, begun + number / READS_PER_S - time.monotonic()))
        await asyncio.gather(*reads)
        wall_s = time.monotonic() - begun
        process = psutil.Process(gateway.pid)
        rss = process.memory_info().rss
        for task in listeners:
            task.cancel()
        await asyncio.gather(*listeners, return_exceptions=True)
    quantiles = statistics.quantiles(times, n=100)
    return {
        "sse_clients": CLIENTS,
        "events_per_s": round(events[0] / wall_s, 1),
        "reads_per_s": round(len(times) / wall_s, 1),
        "read_ms_p50": round(quantiles[49], 1),
        "read_ms_p95": round(quantiles[94], 1),
        "read_ms_p99": round(quantiles[98], 1),
        "rss_mb": round(rss / 1e6, 1),
        "cpu_s_per_s": round(sum(process.cpu_times()[:2]) / wall_s, 2),
    }


def _store_ms(stack: Stack) -> float:
    times = []
    with ObjectStore(stack.s3.options()) as store:
        for _ in range(200):
            begun = time.perf_counter()
            store.get("characters/demo/character.json")
            times.append((time.perf_counter() - begun) * 1000)
    return round(statistics.quantiles(times, n=100)[94], 1)


async def _measured(stack: Stack) -> dict[str, Any]:
    runner, url = await _endpoint()
    environment = gateway_environment(stack, url, RATE_LIMIT_PER_MINUTE="1000000")
    try:
        with GatewayProcess(environment) as gateway:
            os.sched_setaffinity(gateway.pid, {max(os.sched_getaffinity(0))})
            return await _load(gateway)
    finally:
        await runner.cleanup()


def main() -> int:
    """Measure and print."""
    with Stack() as stack:
        stack.register_demo()
        report = {"store_ms_p95": _store_ms(stack), **asyncio.run(_measured(stack))}
    print(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
