"""The image's HEALTHCHECK: ComfyUI answers, so the worker that owns it is past its start."""

import os
import sys
import urllib.error
import urllib.request

_TIMEOUT_S = 5


def main() -> int:
    """0 when it answers, 1 with a reason when it does not."""
    url = os.environ.get("COMFYUI_URL") or f"http://127.0.0.1:{os.environ['COMFYUI_PORT']}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback needs no proxy
    try:
        with opener.open(f"{url.rstrip('/')}/system_stats", timeout=_TIMEOUT_S) as answer:
            answer.read()
    except (urllib.error.URLError, OSError) as error:
        print(f"ComfyUI does not answer: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
