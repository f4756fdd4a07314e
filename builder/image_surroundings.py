"""What the image needs around it in a test without network: a bucket and RunPod's worker API.

`make image-test` mounts this file, `local/` and the S3 server's program into a container of the
image, whose network namespace the worker under test then shares. It writes the worker's environment
to FOLDER/environment.json when all is up, and ends with SIGTERM.
"""

import asyncio
import json
import signal
import sys
from pathlib import Path

from local.platform.pods import PodOptions
from local.platform.server import PlatformOptions, platform
from local.stack import Stack

PORT = 8000
POD_ID = "local-1"


def main(folder: Path) -> int:
    """Serve until SIGTERM."""
    with Stack() as stack:
        stack.register_demo()
        environment = stack.environment()
        storage = {name: text for name, text in environment.items() if name.startswith("S3_")}
        asyncio.run(_serve(folder, storage))
    return 0


async def _serve(folder: Path, storage: dict[str, str]) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    # The pod that the platform knows only sleeps: the worker under test goes by its name.
    pods = PodOptions(argv=("sleep", "infinity"), ping_timeout_s=3600, folder=folder)
    async with platform(PlatformOptions(pods=pods, port=PORT)) as served:
        document = {"storage": storage, "platform": _platform(served.url)}
        fresh = folder / "environment.json.new"
        fresh.write_text(json.dumps(document), "utf-8")
        fresh.replace(folder / "environment.json")
        await stop.wait()


def _platform(url: str) -> dict[str, str]:
    """The variables that tell the SDK where its platform is; `$ID` and the rest are the SDK's."""
    return {
        "RUNPOD_ENDPOINT_ID": "local",
        "RUNPOD_POD_ID": POD_ID,
        "RUNPOD_AI_API_KEY": "local",
        "RUNPOD_WEBHOOK_GET_JOB": f"{url}/job-take/$ID?gpu=none",
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{url}/job-done/{POD_ID}/$ID?gpu=none",
        "RUNPOD_WEBHOOK_PING": f"{url}/ping/{POD_ID}?gpu=none",
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "RUNPOD_SKIP_GPU_CHECK": "true",
    }


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
