"""A proxy before a real S3 server that misbehaves on demand, as networks and stores do.

The Host header passes unchanged, so signatures made for the proxy's address hold at the server
behind it: SigV4 signs the host that the client sees, and the server checks the header it gets.
"""

import contextlib
import http.client
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, Literal, Self
from urllib.parse import urlsplit

Fault = Literal[
    "error",  # answer `status` with S3's error body and `code`; the server is not asked
    "reset",  # drop the connection before the server is asked
    "lose_reply",  # the server does what was asked, the client gets no answer
    "cut_upload",  # read `after` bytes of the request's body, then drop the connection
    "cut_reply",  # send `after` bytes of the answer's body, then drop the connection
    "delay",  # wait `seconds`, then go on
    "hang",  # answer nothing at all until the client gives up, or `seconds` have passed
    "page",  # answer `status` with a web page, as a portal or a proxy does; nobody is asked
    "blank",  # answer `status` with nothing at all; the server is not asked
    "bare",  # the answer without ETag, Last-Modified and the metadata
    "short_listing",  # a listing without its last object, sound otherwise
    "corrupt_reply",  # turn the bits of one byte of the answer's body, at `after`
]

_CHUNK_BYTES: Final = 64 * 1024
_HOP_BY_HOP: Final = {"connection", "keep-alive", "transfer-encoding", "expect"}
_TELLING: Final = ("etag", "last-modified", "x-amz-meta")
_LAST_OBJECT: Final = re.compile(
    rb"<Contents>(?:(?!<Contents>).)*</Contents>((?!.*<Contents>))", re.S
)
_UPSTREAM_TIMEOUT_S: Final = 60.0


@dataclass(slots=True)
class Rule:
    """Which requests go wrong, how, and how often.

    Args:
        fault: what happens.
        method: HTTP method, any when empty.
        path: regular expression searched in path and query.
        times: how many requests; then the rule is spent.
        skip: how many matching requests pass before.
        status: of `error`.
        code: of `error`, as S3 names it.
        after: bytes of a body before it breaks off.
        seconds: of `delay` and `hang`.
    """

    fault: Fault
    method: str = ""
    path: str = ""
    times: int = 1
    skip: int = 0
    status: int = 500
    code: str = "InternalError"
    after: int = 0
    seconds: float = 30.0
    hits: int = field(default=0, init=False)

    def takes(self, method: str, path: str) -> bool:
        """Count a request that matches; whether it is one that goes wrong."""
        if self.times <= 0 or (self.method and self.method != method):
            return False
        if not re.search(self.path, path):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        self.hits += 1
        return True


class FaultProxy:
    """Forwards to one server, except where a rule says otherwise; the first rule that takes wins.

    Args:
        upstream_url: the real server, plain http.
    """

    def __init__(self, upstream_url: str) -> None:
        parts = urlsplit(upstream_url)
        self._upstream = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self.in_flight = 0
        """Requests that are being answered, or held back, right now."""
        self.requests: list[tuple[str, str]] = []
        """Every request as (method, path and query), in the order they came."""

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def add(self, rule: Rule) -> Rule:
        """Let requests go wrong from now on; the rule's `hits` counts them."""
        with self._lock:
            self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """Forget all rules and requests."""
        with self._lock:
            self._rules.clear()
            self.requests.clear()

    def connect(self) -> http.client.HTTPConnection:
        """A connection to the server behind."""
        return http.client.HTTPConnection(*self._upstream, timeout=_UPSTREAM_TIMEOUT_S)

    def rule_for(self, method: str, path: str) -> Rule | None:
        """The rule that this request falls under, now counted; `done` must follow."""
        with self._lock:
            self.in_flight += 1
            self.requests.append((method, path))
            return next((rule for rule in self._rules if rule.takes(method, path)), None)

    def done(self) -> None:
        """One request less in flight."""
        with self._lock:
            self.in_flight -= 1

    def wait(self, seconds: float) -> None:
        """Let time pass, unless the proxy is being closed."""
        self._stopping.wait(seconds)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are what this is for."""


class _Dropped(ConnectionError):
    """This connection is to end without an answer."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultProxy

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing; `FaultProxy.requests` has it."""

    def handle_expect_100(self) -> bool:
        return True  # sent when the body is read, so that a fault can come before it

    def _handle(self) -> None:
        rule = self.proxy.rule_for(self.command, self.path)
        try:
            self._faults().get(rule.fault, self._forward)(rule) if rule else self._forward(None)
        except (_Dropped, ConnectionError, http.client.HTTPException):
            self.close_connection = True
        finally:
            self.proxy.done()

    # The base class looks its methods up by these names.
    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle  # noqa: N815

    def _faults(self) -> dict[str, Callable[[Rule], None]]:
        return {
            "error": self._error,
            "page": self._page,
            "blank": self._page,
            "reset": self._reset,
            "cut_upload": self._cut_upload,
            "delay": self._delay,
            "hang": self._hang,
        }

    def _error(self, rule: Rule) -> None:
        self._body()
        body = f"<Error><Code>{rule.code}</Code><Message>on demand</Message></Error>".encode()
        self.send_response(rule.status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _page(self, rule: Rule) -> None:
        self._body()
        body = b"<html><body><h1>Back soon</h1></body></html>" if rule.fault == "page" else b""
        self.send_response_only(rule.status)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _reset(self, _rule: Rule) -> None:
        raise _Dropped

    def _cut_upload(self, rule: Rule) -> None:
        self._continue()
        self.rfile.read(min(rule.after, self._length()))
        raise _Dropped

    def _delay(self, rule: Rule) -> None:
        self.proxy.wait(rule.seconds)
        self._forward(None)

    def _hang(self, rule: Rule) -> None:
        self.proxy.wait(rule.seconds)
        raise _Dropped

    def _forward(self, rule: Rule | None) -> None:
        body = self._body()
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP_BY_HOP}
        with contextlib.closing(self.proxy.connect()) as connection:
            connection.request(self.command, self.path, body, headers)
            self._answer(connection.getresponse(), rule)

    def _answer(self, response: http.client.HTTPResponse, rule: Rule | None) -> None:
        if rule and rule.fault == "lose_reply":
            response.read()
            raise _Dropped
        self.send_response_only(response.status, response.reason)
        short = rule is not None and rule.fault == "short_listing"
        for name, value in response.getheaders():
            if rule is not None and rule.fault == "bare" and name.lower().startswith(_TELLING):
                continue
            if name.lower() not in _HOP_BY_HOP and not (short and name == "Content-Length"):
                self.send_header(name, value)
        if response.chunked or short:  # its length is unknown: the end of the connection says it
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        self._copy(response, rule)

    def _copy(self, response: http.client.HTTPResponse, rule: Rule | None) -> None:
        sent = 0
        if rule and rule.fault == "short_listing":
            self.wfile.write(_LAST_OBJECT.sub(rb"\1", response.read()))
            return
        while chunk := response.read(_CHUNK_BYTES):
            at = rule.after - sent if rule else -1
            if rule and rule.fault == "cut_reply" and at < len(chunk):
                self.wfile.write(chunk[:at])
                raise _Dropped
            if rule and rule.fault == "corrupt_reply" and 0 <= at < len(chunk):
                chunk = chunk[:at] + bytes([chunk[at] ^ 0xFF]) + chunk[at + 1 :]
            self.wfile.write(chunk)
            sent += len(chunk)

    def _length(self) -> int:
        return int(self.headers.get("Content-Length") or 0)

    def _continue(self) -> None:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()

    def _body(self) -> bytes:
        self._continue()
        body = self.rfile.read(self._length())
        if len(body) < self._length():  # the client has hung up
            raise _Dropped
        return body
