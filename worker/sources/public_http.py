"""GET of a URL that a stranger gave us: public addresses only, bounded in bytes and in time.

The host is resolved once, every answer must be public, and the connection goes to one of these very
addresses, so a name that resolves differently a moment later gains nothing. Redirects pass the same
gate. Neither proxies of the environment, nor cookies, nor credentials take part.
"""

import contextlib
import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from http.client import HTTPException
from typing import BinaryIO, Final
from urllib.parse import urljoin

import certifi
from urllib3 import BaseHTTPResponse
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from worker.cancel import Deadline
from worker.errors import SourceForbidden, SourceUnreachable
from worker.sources.public_address import (
    Address,
    NotFetched,
    Permitted,
    Target,
    is_public,
    parse_url,
)
from worker.storage.transfer_pool import CheckCancelled, TransferPool

Resolve = Callable[[str, int], Sequence[Address]]

MAX_REDIRECTS: Final = 3
_CONNECT_TIMEOUT_S: Final = 5.0
_STALL_S: Final = 30.0  # without a byte
_CHUNK_BYTES: Final = 256 * 1024
_REDIRECTS: Final = {301, 302, 303, 307, 308}
_OK: Final = 200
_HEADERS: Final = {
    "Accept": "*/*",
    "Accept-Encoding": "identity",  # what is not packed cannot be a bomb
    "Connection": "close",
    "User-Agent": "Mozilla/5.0 (compatible; character-worker)",
}


def resolve(host: str, port: int) -> Sequence[Address]:
    """The addresses of a host by the machine's resolver. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ipaddress.ip_address(address[0]) for *_, address in found]


class PublicHttp:
    """Fetches public URLs; holds no connection between two fetches.

    Args:
        allow_http: whether plain http is fetched too.
        resolve: the resolver.
        permitted: judges addresses; tests with a server on loopback put their own here.
    """

    def __init__(
        self,
        *,
        allow_http: bool = True,
        resolve: Resolve = resolve,
        permitted: Permitted = is_public,
    ) -> None:
        self._allow_http = allow_http
        self._resolve = resolve
        self._permitted = permitted

    def fetch(
        self,
        url: str,
        sink: BinaryIO,
        *,
        field: str,
        max_bytes: int,
        timeout_s: float,
        check_cancelled: CheckCancelled | None = None,
    ) -> int:
        """Write the body of a 200 answer to `sink`; returns its size in bytes.

        Args:
            url: http or https.
            sink: written by another thread, until this returns.
            field: the job's field, for the errors.
            max_bytes: a larger body is refused, at once where its length is announced.
            timeout_s: for all of it: name, connection, redirects and a body that drips.
            check_cancelled: called ten times a second; what it raises ends the fetch.

        Raises:
            SourceForbidden: not a URL that we fetch, or one that leads to a private address.
            SourceUnreachable: no answer in time, another status, too large, or cut short.
        """
        exchange = _Exchange(self, field, max_bytes, Deadline(timeout_s))
        with TransferPool(1, partial(exchange.watch, check_cancelled)) as pool:
            [size] = pool.run([partial(exchange.run, url, sink)])
        return size

    def addresses(self, target: Target) -> Sequence[Address]:
        """Where a connection may go. Raises NotFetched unless every answer is public."""
        if target.scheme == "http" and not self._allow_http:
            raise NotFetched("must be an https URL")
        literal = target.literal
        found = [literal] if literal else self._resolve(target.host, target.port)
        if not found or not all(self._permitted(address) for address in found):
            raise NotFetched("must lead to a public address")
        return found


class _Exchange:
    """One fetch; `run` works in a thread that `watch`, in the caller's, can break off."""

    def __init__(self, http: PublicHttp, field: str, max_bytes: int, deadline: Deadline) -> None:
        self._http = http
        self._field = field
        self._max_bytes = max_bytes
        self._deadline = deadline
        self._lock = threading.Lock()
        self._connection: HTTPConnection | None = None
        self._ended = False

    def watch(self, check_cancelled: CheckCancelled | None) -> None:
        """Raise when time is up or `check_cancelled` says so; the thread then ends."""
        try:
            if check_cancelled is not None:
                check_cancelled()
            self._check_deadline()
        except BaseException:
            self._break_off()
            raise

    def run(self, url: str, sink: BinaryIO) -> int:
        """Follow redirects to the answer, and read it."""
        try:
            for _ in range(MAX_REDIRECTS + 1):
                target = parse_url(url)
                with (
                    contextlib.closing(self._connect(target)) as connection,
                    contextlib.closing(self._ask(connection, target)) as response,
                ):
                    if response.status not in _REDIRECTS:
                        return self._receive(response, sink)
                    url = self._redirected(target.url, response.headers.get("Location", ""))
        except NotFetched as error:
            raise SourceForbidden(f"{self._field}: {error}.", field=self._field) from None
        raise self._unreachable(f"was redirected more than {MAX_REDIRECTS} times")

    def _redirected(self, base: str, location: str) -> str:
        try:
            return urljoin(base, location)
        except ValueError:  # brackets that hold no address
            raise self._unreachable("was redirected to what is no URL") from None

    def _connect(self, target: Target) -> HTTPConnection:
        with self._network():
            addresses = self._http.addresses(target)
        failure: Exception = OSError("no address")
        for address in addresses:
            connection = self._connection_to(address, target)
            with self._lock:
                self._connection = connection
            try:
                connection.connect()
            except (HTTPError, OSError) as error:
                connection.close()
                failure = error
                continue
            return connection
        raise self._unreachable("could not be fetched: no connection to its server") from failure

    def _connection_to(self, address: Address, target: Target) -> HTTPConnection:
        timeout = min(_CONNECT_TIMEOUT_S, max(0.01, self._deadline.remaining))
        if target.scheme == "http":
            return HTTPConnection(str(address), target.port, timeout=timeout)
        return HTTPSConnection(
            str(address),
            target.port,
            timeout=timeout,
            server_hostname=target.host,
            assert_hostname=target.host,
            cert_reqs="CERT_REQUIRED",
            ca_certs=certifi.where(),
        )

    def _ask(self, connection: HTTPConnection, target: Target) -> BaseHTTPResponse:
        if connection.sock is not None:
            connection.sock.settimeout(max(0.01, min(_STALL_S, self._deadline.remaining)))
        headers = {**_HEADERS, "Host": target.netloc}
        with self._network():
            connection.request(
                "GET", target.path, headers=headers, preload_content=False, decode_content=False
            )
            return connection.getresponse()

    def _receive(self, response: BaseHTTPResponse, sink: BinaryIO) -> int:
        if response.status != _OK:
            raise self._unreachable(f"was answered with status {response.status}")
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise self._unreachable("was answered packed, which was not asked for")
        announced = response.headers.get("Content-Length", "")
        if announced.isdecimal() and int(announced) > self._max_bytes:
            raise self._too_large()
        size = 0
        while chunk := self._chunk(response):
            size += len(chunk)
            if size > self._max_bytes:
                raise self._too_large()
            sink.write(chunk)
        if announced.isdecimal() and size != int(announced):
            raise self._unreachable("was cut short by its server")
        if size == 0:
            raise self._unreachable("is empty")
        return size

    def _chunk(self, response: BaseHTTPResponse) -> bytes:
        self._check_deadline()
        if self._ended:
            raise self._unreachable("was broken off")
        with self._network():
            return response.read1(_CHUNK_BYTES)  # what has come, so a body cannot drip for ever

    @contextlib.contextmanager
    def _network(self) -> Iterator[None]:
        """Tells a server's failures from those of the disk that is written to."""
        try:
            yield
        except (HTTPError, HTTPException, OSError) as error:
            raise self._unreachable("could not be fetched: its server broke off") from error

    def _check_deadline(self) -> None:
        if self._deadline.passed:
            raise self._unreachable(f"took longer than {self._deadline.seconds:g} s")

    def _break_off(self) -> None:
        with self._lock:
            self._ended = True
            sock = self._connection.sock if self._connection else None
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _too_large(self) -> SourceUnreachable:
        return self._unreachable(f"is larger than {self._max_bytes} bytes")

    def _unreachable(self, what: str) -> SourceUnreachable:
        return SourceUnreachable(f"{self._field} {what}.", field=self._field)
