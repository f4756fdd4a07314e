"""Who may call, how often, and with how large a body: decided before anything is read."""

import hashlib
import hmac
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.types import Message, Receive

from gateway.problems import RateLimited, TooLarge, Unauthorized
from gateway.settings import GatewaySettings

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1", "testserver"})
_WRONG_KEYS_PER_MINUTE: Final = 20
_MAX_CALLERS: Final = 10_000


class Buckets:
    """Token buckets by caller; a full one may spend a minute's requests at once."""

    def __init__(self, per_minute: int) -> None:
        self._rate = per_minute / 60
        self._burst = float(per_minute)
        self._held: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> None:
        """Spend one. Raises RateLimited."""
        now = time.monotonic()
        left, at = self._held.pop(caller, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._rate)
        self._held[caller] = (max(0.0, left - 1), now)
        if len(self._held) > _MAX_CALLERS:
            self._held.popitem(last=False)
        if left < 1:
            raise RateLimited((1 - left) / self._rate)


class Access:
    """The check at the door."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._digests = [_digest(key) for key in settings.api_keys]
        self._origins = frozenset(settings.cors_origins)
        self._buckets = Buckets(settings.rate_limit_per_minute)
        self._wrong = Buckets(_WRONG_KEYS_PER_MINUTE)

    def caller(self, request: Request) -> str:
        """The name under which a request is counted and its Idempotency-Keys are kept.

        Raises:
            Unauthorized, RateLimited.
        """
        self._check_origin(request)
        address = request.client.host if request.client else "unknown"
        if not self._digests:
            self._check_loopback(request, address)
            self._buckets.take(address)
            return "loopback"
        given = _digest(_key_of(request))
        # Every key is compared, so that the time says nothing about which one was close.
        if not sum(hmac.compare_digest(given, known) for known in self._digests):
            self._wrong.take(address)
            raise Unauthorized("The API key is missing or wrong; send Authorization: Bearer KEY.")
        caller = given.hex()[:16]
        self._buckets.take(caller)
        return caller

    def _check_origin(self, request: Request) -> None:
        """Another site's page must not act with the rights of whoever looks at it."""
        origin = request.headers.get("origin")
        if origin is None or request.method in _SAFE or origin in self._origins:
            return
        if urlsplit(origin).netloc != request.headers.get("host", ""):
            raise Unauthorized("This site may not call the API; add it to CORS_ORIGINS.")

    @staticmethod
    def _check_loopback(request: Request, address: str) -> None:
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
        if not _is_loopback(address) or host not in _LOOPBACK_NAMES:
            # A strange Host on loopback is a page that had its name point here (DNS rebinding).
            raise Unauthorized(
                "This gateway has no GATEWAY_API_KEYS, so it serves its own machine only."
            )


def limited(receive: Receive, limit: int, declared: str | None) -> Receive:
    """A body that ends with TooLarge at its limit; at once when it says so itself.

    Raises:
        TooLarge: `declared`, the Content-Length, is over the limit.
    """
    if declared is not None and declared.isdecimal() and int(declared) > limit:
        raise TooLarge(limit)
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise TooLarge(limit)
        return message

    return counted


def security_headers(media: Sequence[str]) -> dict[str, str]:
    """Headers of every answer; `media` are origins that pictures and clips may come from."""
    bucket = " ".join(media)
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; "
        f"img-src 'self' blob: data: {bucket}; media-src 'self' blob: {bucket}; "
        f"connect-src 'self' {bucket}; manifest-src 'self'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-cache",  # the page's modules must be of one release
        "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    }


def _key_of(request: Request) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "testclient"
