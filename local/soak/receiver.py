"""Where the platform's webhooks go: counts how often each job was said to have ended, and how."""

import json
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class WebhookReceiver:
    """A customer's webhook on loopback."""

    def __init__(self) -> None:
        self.ends: defaultdict[str, list[str]] = defaultdict(list)
        """The final states that each job was announced with; one, if all is well."""

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"ends": self.ends})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,))
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """What to submit as `webhook`."""
        return f"http://127.0.0.1:{self._server.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    ends: defaultdict[str, list[str]]

    def do_POST(self) -> None:
        """Take note of one announcement."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.ends[body["id"]].append(body["status"])
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""
