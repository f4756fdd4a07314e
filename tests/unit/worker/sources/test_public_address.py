import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from worker.sources.public_address import NotFetched, is_public, parse_url

PRIVATE = [
    "0.0.0.0",  # noqa: S104 - refused, not bound
    "10.1.2.3",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.8.8.8",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.8",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:db8::1",
    "2002:7f00:1::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]
PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001::1"]


@pytest.mark.parametrize("address", PRIVATE)
def test_special_addresses_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_the_internet_is_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


def test_a_zone_is_not_public() -> None:
    assert not is_public(ipaddress.ip_address("2606:4700:4700::1111%eth0"))


@given(st.ip_addresses(v=4))
def test_no_ipv4_address_becomes_public_inside_an_ipv6_one(inner: ipaddress.IPv4Address) -> None:
    number = int(inner)
    for embedding in (
        number,
        0xFFFF << 32 | number,
        0x64FF9B << 96 | number,
        0x2002 << 112 | number << 80,
        0x20010000 << 96 | number << 64,
        0x20010000 << 96 | number ^ 0xFFFFFFFF,
    ):
        assert not is_public(ipaddress.IPv6Address(embedding))


@given(st.ip_addresses())
def test_public_is_never_more_than_global_unicast(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if is_public(address):
        assert address.is_global
        assert not address.is_private
        assert not address.is_multicast
        assert not address.is_reserved


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "ftp://example.com/a",
        "gopher://example.com",
        "//example.com/a",
        "example.com/a",
        "http://",
        "http:///a",
        "http://user@example.com/",
        "http://user:secret@example.com/",
        "http://example.com@127.0.0.1/",
        "http://@example.com/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://127.0.0.1.1/",
        "http://1.2.3.256/",
        "http://010.8.8.8/",
        "http://example.0x7f/",
        "http://[::1%25eth0]/",
        "http://[fe80::1%eth0]/",
        "http://[::1/",
        "http://[v1.x]/",
        "http://::1/",
        "http://example.com:0/",
        "http://example.com:65536/",
        "http://example.com:x/",
        "http://example.com:/",
        "http://exa mple.com/",
        "http://example.com\\@127.0.0.1/",
        "http://example.com/\r\nHost: evil",
        "http://example.com/\x00",
        "http://exa_mple..com/",
        "http://-/",
        "http://.../",
        "http://" + "a" * 64 + ".com/",
        "http://" + "a." * 200 + "com/",
        "",
    ],
)
def test_what_is_read_in_two_ways_is_refused(url: str) -> None:
    with pytest.raises(NotFetched):
        parse_url(url)


@pytest.mark.parametrize(
    ("url", "host", "netloc", "path"),
    [
        ("http://example.com", "example.com", "example.com", "/"),
        ("HTTPS://EXAMPLE.com./a?b=c#d", "example.com", "example.com", "/a?b=c"),
        ("https://example.com:8443/a", "example.com", "example.com:8443", "/a"),
        ("http://8.8.8.8/", "8.8.8.8", "8.8.8.8", "/"),
        ("http://[2606:4700::1111]:81/", "2606:4700::1111", "[2606:4700::1111]:81", "/"),
        (
            "https://bücher.example/ä b".replace(" ", "%20"),
            "xn--bcher-kva.example",
            "",
            "/%C3%A4%20b",
        ),
        ("http://\uff11\uff12\uff17.\uff10.\uff10.\uff11/", "127.0.0.1", "127.0.0.1", "/"),
        ("http://x/y%2fz?sig=a%2Bb+c", "x", "x", "/y%2fz?sig=a%2Bb+c"),
    ],
)
def test_a_url_is_read_once_and_for_all(url: str, host: str, netloc: str, path: str) -> None:
    target = parse_url(url)
    assert (target.host, target.path) == (host, path)
    assert target.netloc == (netloc or host)
    assert parse_url(target.url) == target


@given(st.text(max_size=60) | st.text(max_size=40).map("http://{}".format))
@example("http://[")
@example("http://①②⑦.0.0.1")
@example("http://\ud800")
def test_any_text_is_a_target_or_refused(text: str) -> None:
    try:
        target = parse_url(text)
    except NotFetched:
        return
    assert target.host.isascii()
    assert 0 < target.port < 65536
    assert target.path.startswith("/")
    assert parse_url(target.url) == target
