"""`python -m local serve`: the endpoint on this machine, with workers under the real SDK's loop."""

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from local.platform.pods import PodOptions
from local.platform.server import PlatformOptions, platform

ROOT = Path(__file__).resolve().parent.parent


def main(argv: Sequence[str]) -> int:
    """Serve until SIGINT or SIGTERM. Answers the exit status."""
    parser = argparse.ArgumentParser(prog="python -m local serve", description=__doc__)
    parser.add_argument("--workers", type=int, default=1, help="worker processes (default 1)")
    parser.add_argument("--port", type=int, default=8000, help="port on 127.0.0.1 (default 8000)")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    pods = PodOptions(argv=(sys.executable, "-u", "handler.py"), folder=ROOT)
    options = PlatformOptions(pods=pods, workers=arguments.workers, port=arguments.port)
    asyncio.run(_serve(options))
    return 0


async def _serve(options: PlatformOptions) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with platform(options) as served:
        print(f"RunPod emulator: {served.url}  ({options.workers} workers)")
        print(f"  curl -s {served.url}/health")
        print(f"""  curl -s {served.url}/runsync -d '{{"input": {{"task": "health"}}}}'""")
        await stop.wait()
