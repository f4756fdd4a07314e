"""GET of a URL that a stranger gave us: public addresses only, bounded in bytes and in time.

The host is resolved once, every answer must be public, and the connection goes to one of these very
addresses, so a name that resolves differently a moment later gains nothing. Redirects pass the same
gate. Neither proxies of the environment, nor cookies, nor credentials take part.
"""

import contextlib
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from typing import BinaryIO, Final
from urllib.parse import urljoin

import certifi
from urllib3 import BaseHTTPResponse
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from worker.errors import SourceForbidden, SourceUnreachable
from worker.sources.public_address import (
    Address,
    NotFetched,
    Permitted,
    Target,
    is_public,
    parse_url,
)
from worker.storage.transfer import CheckCancelled, TransferPool

Resolve = Callable[[str, int], Sequence[Address]]
OnShare = Callable[[float], None]

MAX_REDIRECTS: Final = 3
_CONNECT_TIMEOUT_S: Final = 5.0
_CHUNK_BYTES: Final = 256 * 1024
_REDIRECTS: Final = {301, 302, 303, 307, 308}
_OK: Final = 200
_HEADERS: Final = {
    "Accept": "*/*",
    "Accept-Encoding": "identity",  # what is not packed cannot be a bomb
    "Connection": "close",
    "User-Agent": "Mozilla/5.0 (compatible; character-worker)",
}


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """What one fetch may bring and take.

    Attributes:
        max_bytes: a larger body is refused, at once where its length is announced.
        timeout_s: for all of it: name, connection, redirects and a body that drips.
        stall_s: longest without a byte.
        min_rate: in bytes a second; so many that came give another second. None: `timeout_s` is
            all there is, whatever came.
    """

    max_bytes: int
    timeout_s: float
    stall_s: float = 30.0
    min_rate: float | None = None


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
        limits: FetchLimits,
        check_cancelled: CheckCancelled | None = None,
        on_share: OnShare | None = None,
    ) -> int:
        """Write the body of a 200 answer to `sink`; returns its size in bytes.

        Args:
            url: http or https.
            sink: written by another thread, until this returns.
            field: the job's field, for the errors.
            limits: of bytes and time.
            check_cancelled: called ten times a second; what it raises ends the fetch.
            on_share: told ten times a second how much has come, from 0 to 1.

        Raises:
            SourceForbidden: not a URL that we fetch, or one that leads to a private address.
            SourceUnreachable: no answer in time, another status, too large, or cut short.
        """
        exchange = _Exchange(self, field, limits)
        with TransferPool(1, partial(exchange.watch, check_cancelled, on_share)) as pool:
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

    def __init__(self, http: PublicHttp, field: str, limits: FetchLimits) -> None:
        self._http = http
        self._field = field
        self._limits = limits
        self._begun = self._heard = time.monotonic()
        self._expected = limits.max_bytes
        self._received = 0
        self._lock = threading.Lock()
        self._connection: HTTPConnection | None = None
        self._ended = False

    def watch(self, check_cancelled: CheckCancelled | None, on_share: OnShare | None) -> None:
        """Raise when time is up or `check_cancelled` says so; the thread then ends."""
        try:
            if check_cancelled is not None:
                check_cancelled()
            self._check_time()
            if on_share is not None:
                on_share(min(1.0, self._received / self._expected))
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
        """Where a redirect leads; letters and spaces that should be escaped are, as browsers do."""
        with contextlib.suppress(UnicodeError):
            location = location.encode("latin-1").decode("utf-8")  # what headers are read as
        try:
            return urljoin(base, location.strip().replace(" ", "%20"))
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
        timeout = min(_CONNECT_TIMEOUT_S, self._limits.timeout_s)
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
            # A little later than `watch`, which knows what to say.
            connection.sock.settimeout(min(self._limits.stall_s, self._limits.timeout_s) + 1)
        headers = {**_HEADERS, "Host": target.netloc}
        with self._network():
            connection.request(
                "GET", target.path, headers=headers, preload_content=False, decode_content=False
            )
            return connection.getresponse()

    def _receive(self, response: BaseHTTPResponse, sink: BinaryIO) -> int:
        announced = self._announced(response)
        self._expected = max(1, self._expected if announced is None else announced)
        while chunk := self._chunk(response):
            self._received += len(chunk)
            self._heard = time.monotonic()
            if self._received > self._limits.max_bytes:
                raise self._too_large()
            sink.write(chunk)
        if announced is not None and self._received != announced:
            raise self._unreachable("was cut short by its server")
        if self._received == 0:
            raise self._unreachable("is empty")
        return self._received

    def _announced(self, response: BaseHTTPResponse) -> int | None:
        """The body's size as far as it is said; what is no plain body is refused."""
        if response.status != _OK:
            raise self._unreachable(f"was answered with status {response.status}")
        packing = response.headers.get("Content-Encoding", "identity").lower()
        transfer = response.headers.get("Transfer-Encoding", "chunked").lower()
        if packing != "identity" or transfer != "chunked":
            raise self._unreachable("was answered packed, which was not asked for")
        announced = response.headers.get("Content-Length", "")
        if not announced.isdecimal():
            return None
        if int(announced) > self._limits.max_bytes:
            raise self._too_large()
        return int(announced)

    def _chunk(self, response: BaseHTTPResponse) -> bytes:
        self._check_time()
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

    def _check_time(self) -> None:
        now, limits = time.monotonic(), self._limits
        if now - self._heard > limits.stall_s:
            raise self._unreachable(f"sent nothing for {limits.stall_s:g} s (SOURCE_STALL_S)")
        elapsed = now - self._begun
        if limits.min_rate is None:
            if elapsed > limits.timeout_s:
                seconds = f"{limits.timeout_s:g} s (SOURCE_TIMEOUT_S)"
                raise self._unreachable(f"took longer than {seconds}")
        elif elapsed > limits.timeout_s + self._received / limits.min_rate:
            raise self._unreachable(
                f"came with {self._received / elapsed / 1000:,.0f} kB/s, slower than "
                f"{limits.min_rate / 1000:,.0f} kB/s (SOURCE_MIN_RATE)"
            )

    def _break_off(self) -> None:
        with self._lock:
            self._ended = True
            sock = self._connection.sock if self._connection else None
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _too_large(self) -> SourceUnreachable:
        return self._unreachable(f"is larger than {self._limits.max_bytes} bytes")

    def _unreachable(self, what: str) -> SourceUnreachable:
        return SourceUnreachable(f"{self._field} {what}.", field=self._field)
