"""Which addresses and URLs a stranger may make us fetch. Pure; the fetching is `public_http`."""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final
from urllib.parse import quote, urlsplit

import idna

Address = IPv4Address | IPv6Address
Permitted = Callable[[Address], bool]

# IANA's special-purpose registries, whatever this Python's `ipaddress` knows of them: 3.11 calls
# 192.0.0.8 and multicast global.
_NOT_PUBLIC_V4: Final = tuple(
    ipaddress.IPv4Network(block)
    for block in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's wire server: a public number that only its own guests reach
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
    )
)
# Only this is handed out for the public internet; what carries an IPv4 address (mapped, NAT64,
# compatible) lies outside of it or, like Teredo and 6to4, in the blocks below.
_PUBLIC_V6: Final = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_V6: Final = tuple(
    ipaddress.IPv6Network(block)
    for block in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_LABEL = re.compile(r"^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$")
_NUMBER = re.compile(r"^(\d+|0x[0-9a-f]*)$")
_FORBIDDEN_CHARS = re.compile(r"[\x00-\x20\x7f\\\ud800-\udfff]")
_MAX_HOST_LENGTH: Final = 253


class NotFetched(ValueError):
    """A URL that we will not fetch; the message says why, to be put after the field's name."""


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed URL. `host` is ASCII, lower case, without brackets; `path` carries the query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def literal(self) -> Address | None:
        """The address when the URL names one instead of a host."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    @property
    def netloc(self) -> str:
        """What the Host header says."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == _DEFAULT_PORTS[self.scheme] else f"{name}:{self.port}"

    @property
    def url(self) -> str:
        """The URL again, normalised; the base of relative redirects."""
        return f"{self.scheme}://{self.netloc}{self.path}"


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public internet: no private, special or embedding one."""
    if isinstance(address, IPv4Address):
        return address.is_global and not any(address in block for block in _NOT_PUBLIC_V4)
    if address.scope_id is not None or address not in _PUBLIC_V6:
        return False
    return address.is_global and not any(address in block for block in _NOT_PUBLIC_V6)


def parse_url(url: str) -> Target:
    """Read a URL the strict way: what browsers and resolvers read differently is refused.

    Raises:
        NotFetched: other schemes, credentials, odd hosts (`127.1`, `0x7f.1`, `2130706433`,
            IPv6 zones), control characters and backslashes.
    """
    if _FORBIDDEN_CHARS.search(url):
        raise NotFetched("must not contain spaces, backslashes or control characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise NotFetched("is not a valid URL") from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise NotFetched("must be an http or https URL")
    if "@" in parts.netloc:
        raise NotFetched("must not contain a user name or password")
    if port == 0 or parts.netloc.endswith(":"):
        raise NotFetched("must have a port from 1 to 65535, or none")
    host = _host(parts.hostname or "", bracketed=parts.netloc.startswith("["))
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = f"?{quote(parts.query, safe='/%:@!$&()*+,;=~-._?[]')}" if parts.query else ""
    return Target(parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme], path + query)


def _host(host: str, *, bracketed: bool) -> str:
    if bracketed:
        return _ipv6(host)
    name = _ascii(host).removesuffix(".")
    labels = name.split(".")
    if _NUMBER.match(labels[-1]):
        return _ipv4(name)
    if len(name) > _MAX_HOST_LENGTH or not all(_LABEL.match(label) for label in labels):
        raise NotFetched("must have a valid host name")
    return name


def _ascii(host: str) -> str:
    """IDNA, before anything is judged: full-width digits and dots become plain ones."""
    if host.isascii():
        return host.lower()
    try:
        return idna.encode(host, uts46=True).decode().lower()
    except idna.IDNAError:
        raise NotFetched("must have a valid host name") from None


def _ipv4(name: str) -> str:
    try:
        return str(IPv4Address(name))
    except ValueError:
        raise NotFetched("must name an IPv4 address as four decimal numbers") from None


def _ipv6(host: str) -> str:
    try:
        address = IPv6Address(host)
    except ValueError:
        raise NotFetched("must have a valid host name") from None
    if address.scope_id is not None:
        raise NotFetched("must not contain an IPv6 zone")
    return str(address)
