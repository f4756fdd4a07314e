"""Reading ranges of one address over HTTP, with patience for servers that flap.

A try that brought bytes costs nothing: the next goes on behind them. `max_tries` in a row without
a byte, or the deadline, end it.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from builder.errors import DownloadFailed, SizeMismatch, SourceMissing, SourceRefused

_CHUNK_BYTES: Final = 1 << 20
_MAX_REDIRECTS: Final = 5
_MAX_PAUSE_S: Final = 60.0
_OK: Final = 200
_PARTIAL: Final = 206
_GONE: Final = frozenset({404, 410})
_REFUSED: Final = frozenset({401, 403})
_UNSATISFIABLE: Final = 416
_RETRIED: Final = frozenset({408, 425, 429, 500, 502, 503, 504})

Write = Callable[[bytes, int], None]


class RangesIgnored(Exception):
    """The server answered a range with the whole file."""


class _Interrupted(Exception):
    """The connection broke or stalled, or the server asks to come back later."""

    def __init__(self, reason: str, retry_after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes `start` (included) to `end` (excluded) of a file of `size` bytes."""

    start: int
    end: int
    size: int


class BearerToken(AuthBase):
    """Sends a token; requests drops it when a redirect leads to another host."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the header."""
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


@dataclass(frozen=True, slots=True)
class Patience:
    """When to give up: tries without a byte, seconds without a byte, seconds in all."""

    max_tries: int = 8
    stall_s: float = 30.0
    deadline_s: float = 3600.0
    first_pause_s: float = 0.5


class Transfer:
    """The address of one file and how to read it; safe for several threads.

    Args:
        url: http or https.
        where: how messages call it; by default the url without its query, which may be signed.
        token: sent as bearer token.
        connections: how many threads may read at once.
        part_bytes: the size of a part.
    """

    def __init__(
        self,
        url: str,
        *,
        where: str = "",
        token: str | None = None,
        patience: Patience | None = None,
        connections: int = 8,
        part_bytes: int = 64 << 20,
    ) -> None:
        self.where = where or urlsplit(url)._replace(query="", fragment="").geturl()
        self.connections = connections
        self.part_bytes = part_bytes
        self._url = url
        self._token = token
        self._patience = patience or Patience()
        self._session = requests.Session()
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        self._session.max_redirects = _MAX_REDIRECTS
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=self.connections))
        self._started = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def fetch(self, part: Part, write: Write, stop: threading.Event) -> bool:
        """Read one part, across as many connections as it takes; False when stopped before.

        Raises:
            RangesIgnored: the server does not do ranges.
            SizeMismatch: the file there has another size.
            SourceMissing, SourceRefused, DownloadFailed.
        """
        offset, tries = part.start, 0
        while offset < part.end:
            try:
                for chunk in self._range(offset, part):
                    if stop.is_set():
                        return False
                    write(chunk, offset)
                    offset, tries = offset + len(chunk), 0
            except _Interrupted as interruption:
                tries += 1
                self._pause(tries, interruption, stop)
        return True

    def fetch_whole(self, size: int, write: Write) -> None:
        """Read everything in one stream; a broken one starts again. Raises as `fetch` does."""
        tries = 0
        while True:
            try:
                self._stream(size, write)
            except _Interrupted as interruption:
                tries += 1
                self._pause(tries, interruption, threading.Event())
            else:
                return

    def _stream(self, size: int, write: Write) -> None:
        offset = 0
        with self._get({}) as response:
            for chunk in self._chunks(response):
                write(chunk, offset)
                offset += len(chunk)
                if offset > size:
                    raise SizeMismatch(self.where, size, offset)
        if offset < size:
            raise _Interrupted(f"the connection ended after {offset} of {size} bytes")

    def _range(self, offset: int, part: Part) -> Iterator[bytes]:
        with self._get({"Range": f"bytes={offset}-{part.end - 1}"}) as response:
            if response.status_code == _OK:
                raise RangesIgnored
            self._check_range(response, offset, part)
            left = part.end - offset
            for chunk in self._chunks(response):
                yield chunk[:left]
                left -= len(chunk)
                if left <= 0:
                    return
        raise _Interrupted("the connection ended early")

    def _check_range(self, response: requests.Response, offset: int, part: Part) -> None:
        said = response.headers.get("Content-Range", "")
        extent, _, size = said.removeprefix("bytes ").partition("/")
        if size.isdecimal() and int(size) != part.size:
            raise SizeMismatch(self.where, part.size, int(size))
        if extent.partition("-")[0] != str(offset):
            raise DownloadFailed(f"{self.where}: asked from byte {offset}, got {said!r}.")

    def _get(self, headers: dict[str, str]) -> requests.Response:
        self._check_deadline()
        try:
            response = self._session.get(
                self._url,
                headers={"Accept-Encoding": "identity", **headers},
                auth=BearerToken(self._token) if self._token else None,
                stream=True,
                timeout=self._patience.stall_s,
            )
        except requests.TooManyRedirects as error:
            raise DownloadFailed(f"{self.where}: redirects without end.") from error
        except requests.RequestException as error:
            raise _Interrupted(type(error).__name__) from error
        if response.status_code not in {_OK, _PARTIAL}:
            with response:
                self._refuse(response)
        return response

    def _refuse(self, response: requests.Response) -> None:
        status = response.status_code
        if status in _GONE:
            raise SourceMissing(self.where, status)
        if status in _REFUSED:
            raise SourceRefused(self.where, status)
        if status == _UNSATISFIABLE:
            size = response.headers.get("Content-Range", "").rpartition("/")[2]
            raise DownloadFailed(f"{self.where}: the file there is shorter ({size or '?'} bytes).")
        if status not in _RETRIED:
            raise DownloadFailed(f"{self.where}: HTTP {status}.")
        after = response.headers.get("Retry-After", "")
        raise _Interrupted(f"HTTP {status}", float(after) if after.isdecimal() else 0.0)

    def _chunks(self, response: requests.Response) -> Iterator[bytes]:
        """What arrives, as it arrives: a trickle cannot hide from the deadline."""
        try:
            while chunk := response.raw.read1(_CHUNK_BYTES):
                yield chunk
                self._check_deadline()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _Interrupted(type(error).__name__) from error

    def _pause(self, tries: int, interruption: _Interrupted, stop: threading.Event) -> None:
        if tries >= self._patience.max_tries:
            raise DownloadFailed(
                f"{self.where}: {interruption}, {tries} times in a row."
            ) from interruption
        pause = self._patience.first_pause_s * 2 ** (tries - 1)
        pause *= random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, hides nothing
        stop.wait(min(max(pause, interruption.retry_after_s), _MAX_PAUSE_S))
        self._check_deadline()

    def _check_deadline(self) -> None:
        if time.monotonic() - self._started > self._patience.deadline_s:
            raise DownloadFailed(f"{self.where}: not done in {self._patience.deadline_s:g} s.")
