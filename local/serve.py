"""`python -m local serve`: the endpoint on this machine, with workers under the real SDK's loop."""

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Mapping, Sequence

from local.gateway import GatewayFailed, GatewayProcess, gateway_environment
from local.platform.pods import PodOptions
from local.platform.server import PlatformOptions, PortTaken, platform
from local.stack import ROOT, Stack

EXAMPLE = '{"input": {"task": "image", "prompt": "portrait of {trigger}", "character_id": "demo"}}'


def main(argv: Sequence[str]) -> int:
    """Serve until SIGINT or SIGTERM. Answers the exit status."""
    parser = argparse.ArgumentParser(prog="python -m local serve", description=__doc__)
    parser.add_argument("--workers", type=int, default=1, help="worker processes (default 1)")
    parser.add_argument("--port", type=int, default=8000, help="port on 127.0.0.1 (default 8000)")
    parser.add_argument("--page-port", type=int, default=8080, help="the page's (default 8080)")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # until the loop has its own
    with Stack.from_environment() as stack:
        stack.register_demo()
        options = PlatformOptions(
            pods=worker_pods(stack), workers=arguments.workers, port=arguments.port
        )
        try:
            asyncio.run(_serve(options, stack, arguments.page_port))
        except GatewayFailed as error:
            print(f"{error} Choose another port with --page-port.", file=sys.stderr)
            return 1
        except PortTaken as error:
            print(f"{error}; choose another one with --port", file=sys.stderr)
            return 1
    return 0


def worker_pods(stack: Stack, **changes: str) -> PodOptions:
    """Pods that run `handler.py` on a stack, each with a working folder of its own."""

    def environment(number: int) -> Mapping[str, str]:
        return stack.environment(WORK_DIR=str(stack.folder / f"worker-{number}"), **changes)

    argv = (sys.executable, "-u", "handler.py")
    return PodOptions(argv=argv, environment=environment, folder=ROOT)


async def _serve(options: PlatformOptions, stack: Stack, page_port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with platform(options) as served:
        gateway = GatewayProcess(gateway_environment(stack, served.url), port=page_port)
        try:
            await asyncio.to_thread(gateway.start)
            print(f"\nPage and API     {gateway.url}")
            print(f"RunPod emulator  {served.url}  workers: {options.workers}; Ctrl-C ends it")
            print(f"S3 server        {stack.s3.endpoint_url}\nEngine           {stack.engine}\n")
            print(f"  curl -s {served.url}/health")
            print(f"  curl -s {served.url}/runsync -d '{EXAMPLE}'\n", flush=True)
            await stop.wait()
        finally:
            gateway.stop()
