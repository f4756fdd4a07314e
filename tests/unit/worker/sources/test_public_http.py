import contextlib
import io
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from worker.errors import Cancelled, SourceForbidden, SourceUnreachable
from worker.sources import public_http
from worker.sources.public_address import Address, is_public
from worker.sources.public_http import FetchLimits, PublicHttp

Answer = Callable[[BaseHTTPRequestHandler], None]
LOOPBACK = ipaddress.ip_address("127.0.0.1")


class Site:
    """A real server on loopback; `pages` says what it does with a path."""

    def __init__(self) -> None:
        self.pages: dict[str, Answer] = {}
        self.hosts: list[str] = []
        self.headers: list[dict[str, str]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.hosts.append(self.headers["Host"])
                site.headers.append(dict(self.headers))
                self.close_connection = True
                with contextlib.suppress(OSError):  # the client may hang up
                    site.pages[self.path](self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.closing = threading.Event()

    def url(self, path: str, host: str = "photos.example") -> str:
        return f"http://{host}:{self.port}{path}"


@pytest.fixture
def site() -> Iterator[Site]:
    opened = Site()
    thread = threading.Thread(target=opened.server.serve_forever, args=(0.01,))
    thread.start()
    yield opened
    opened.closing.set()
    opened.server.shutdown()
    opened.server.server_close()
    thread.join()


def body(content: bytes, status: int = 200, **headers: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        given = {"Content-Length": str(len(content))} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        for name, value in given.items():
            if value:
                request.send_header(name, value)
        request.end_headers()
        request.wfile.write(content)

    return answer


def to(location: str, status: int = 302) -> Answer:
    return body(b"", status, Location=location)


def to_loopback(_host: str, _port: int) -> Sequence[Address]:
    return [LOOPBACK]


def loopback_or_public(address: Address) -> bool:
    return address == LOOPBACK or is_public(address)


def fetch(
    url: str,
    *,
    http: PublicHttp | None = None,
    limits: FetchLimits = FetchLimits(1000, 5.0),  # noqa: B008 - frozen
    on_share: Callable[[float], None] | None = None,
    check: Callable[[], None] | None = None,
) -> bytes:
    sink = io.BytesIO()
    http = http or PublicHttp(resolve=to_loopback, permitted=loopback_or_public)
    size = http.fetch(
        url,
        sink,
        field="image.url",
        limits=limits,
        check_cancelled=check,
        on_share=on_share,
    )
    assert size == len(sink.getvalue())
    return sink.getvalue()


def test_a_body_arrives_whole(site: Site) -> None:
    site.pages["/a.png?x=1"] = body(b"picture" * 100)
    assert fetch(site.url("/a.png?x=1")) == b"picture" * 100
    assert site.hosts == [f"photos.example:{site.port}"]
    assert "Cookie" not in site.headers[0]


def test_a_chunked_body_arrives_whole(site: Site) -> None:
    site.pages["/"] = body(
        b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", Content_Length="", Transfer_Encoding="chunked"
    )
    assert fetch(site.url("/")) == b"abcde"


def test_redirects_are_followed(site: Site) -> None:
    site.pages["/1"] = to("/2", 301)
    site.pages["/2"] = to(site.url("/3", "other.example"), 307)
    site.pages["/3"] = body(b"here")
    assert fetch(site.url("/1")) == b"here"
    assert site.hosts[-1] == f"other.example:{site.port}"


def test_redirects_end(site: Site) -> None:
    site.pages["/"] = to("/")
    with pytest.raises(SourceUnreachable, match="redirected"):
        fetch(site.url("/"))
    assert len(site.hosts) == 4


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]/",
        "http://10.0.0.1/",
        "http://0x7f000001/",
        "http://user:secret@photos.example/",
        "file:///etc/passwd",
        "",
    ],
)
def test_a_redirect_passes_the_same_gate(site: Site, location: str) -> None:
    site.pages["/"] = to(location)
    with pytest.raises((SourceForbidden, SourceUnreachable)) as caught:
        fetch(site.url("/"))
    if location:
        assert isinstance(caught.value, SourceForbidden)
        assert caught.value.field == "image.url"


def test_a_redirect_to_loopback_is_refused_though_the_name_was_public(site: Site) -> None:
    site.pages["/"] = to(f"http://127.0.0.1:{site.port}/secret")
    site.pages["/secret"] = body(b"secret")
    seen: list[Address] = []

    def first_only(address: Address) -> bool:
        seen.append(address)
        return len(seen) == 1

    with pytest.raises(SourceForbidden):
        fetch(site.url("/"), http=PublicHttp(resolve=to_loopback, permitted=first_only))
    assert site.hosts == [f"photos.example:{site.port}"]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://169.254.169.254/latest",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://localhost/",
        "file:///etc/passwd",
    ],
)
def test_private_addresses_are_refused_unasked(url: str) -> None:
    with pytest.raises(SourceForbidden) as caught:
        fetch(url, http=PublicHttp())
    assert caught.value.code == "source_forbidden"
    assert "127" not in str(caught.value)


def test_one_private_answer_spoils_all() -> None:
    def resolve(_host: str, _port: int) -> Sequence[Address]:
        return [ipaddress.ip_address("8.8.8.8"), LOOPBACK]

    with pytest.raises(SourceForbidden):
        fetch("http://photos.example/", http=PublicHttp(resolve=resolve))


def test_a_rebinding_name_is_resolved_once(site: Site) -> None:
    """The second answer would lead elsewhere; nobody asks for it."""
    site.pages["/"] = body(b"first")
    answers = iter([[LOOPBACK], [ipaddress.ip_address("127.0.0.2")]])
    http = PublicHttp(
        resolve=lambda _host, _port: next(answers), permitted=lambda address: address == LOOPBACK
    )
    assert fetch(site.url("/"), http=http) == b"first"
    with pytest.raises(SourceForbidden):
        fetch(site.url("/"), http=http)


def test_the_next_address_is_tried(site: Site) -> None:
    site.pages["/"] = body(b"here")
    http = PublicHttp(
        resolve=lambda _host, _port: [ipaddress.ip_address("127.0.0.9"), LOOPBACK],
        permitted=lambda _address: True,
    )
    assert fetch(site.url("/"), http=http) == b"here"


def test_plain_http_can_be_refused() -> None:
    with pytest.raises(SourceForbidden, match="https"):
        fetch("http://photos.example/", http=PublicHttp(allow_http=False, resolve=to_loopback))


def test_proxies_of_the_environment_take_no_part(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    site.pages["/"] = body(b"here")
    assert fetch(site.url("/")) == b"here"


@pytest.mark.parametrize("announced", ["", None])
def test_too_large_a_body_is_refused(site: Site, announced: str | None) -> None:
    size = "1001" if announced is None else announced
    site.pages["/"] = body(b"x" * 1001, Content_Length=size)
    with pytest.raises(SourceUnreachable, match="larger than 1000 bytes"):
        fetch(site.url("/"))


def test_an_announced_size_is_refused_before_a_byte_of_it(site: Site) -> None:
    site.pages["/"] = body(b"", Content_Length="1001")
    with pytest.raises(SourceUnreachable, match="larger"):
        fetch(site.url("/"))


@pytest.mark.parametrize(
    "answer",
    [
        body(b"x" * 10, Content_Length="11"),
        body(b"5\r\nab", Content_Length="", Transfer_Encoding="chunked"),
        lambda request: request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Le"),
        lambda request: request.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n"),
        body(b"no", 404),
        body(b"no", 500),
        body(b"", 204),
        body(b"x" * 10, 206),
        body(b"\x1f\x8b", Content_Encoding="gzip"),
    ],
)
def test_half_an_answer_is_none(site: Site, answer: Answer) -> None:
    site.pages["/"] = answer
    with pytest.raises(SourceUnreachable) as caught:
        fetch(site.url("/"))
    assert caught.value.field == "image.url"
    assert str(caught.value).startswith("image.url ")


def drip(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "1000")
    request.end_headers()
    for _ in range(1000):
        request.wfile.write(b"x")
        time.sleep(0.02)


def drip_headers(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    for _ in range(1000):
        request.wfile.write(b"x")
        time.sleep(0.02)


@pytest.mark.parametrize("answer", [drip, drip_headers])
def test_a_slow_drip_ends_at_the_deadline(site: Site, answer: Answer) -> None:
    site.pages["/"] = answer
    begun = time.monotonic()
    with pytest.raises(SourceUnreachable, match=r"took longer than 0.5 s"):
        fetch(site.url("/"), limits=FetchLimits(1000, 0.5))
    assert time.monotonic() - begun < 1.5


def test_a_server_that_never_answers_ends_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://photos.example:{silent.getsockname()[1]}/"
        begun = time.monotonic()
        with pytest.raises(SourceUnreachable):
            fetch(url, limits=FetchLimits(1000, 0.5))
        assert time.monotonic() - begun < 1.5


def test_a_resolver_that_hangs_ends_at_the_deadline() -> None:
    released = threading.Event()

    def resolve(_host: str, _port: int) -> Sequence[Address]:
        released.wait(10)
        return []

    begun = time.monotonic()
    with pytest.raises(SourceUnreachable):
        fetch(
            "http://photos.example/",
            http=PublicHttp(resolve=resolve),
            limits=FetchLimits(1000, 0.3),
        )
    assert time.monotonic() - begun < 1.5
    released.set()


def test_a_name_that_does_not_resolve_is_unreachable() -> None:
    def resolve(_host: str, _port: int) -> Sequence[Address]:
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(SourceUnreachable):
        fetch("http://photos.example/", http=PublicHttp(resolve=resolve))


def test_a_cancel_ends_the_fetch(site: Site) -> None:
    site.pages["/"] = drip

    def check() -> None:
        if site.hosts:
            raise Cancelled("The job was cancelled.")

    begun = time.monotonic()
    with pytest.raises(Cancelled):
        fetch(site.url("/"), check=check, limits=FetchLimits(1000, 20))
    assert time.monotonic() - begun < 2


def test_a_full_disk_is_not_the_servers_fault(site: Site) -> None:
    class Full(io.BytesIO):
        def write(self, _data: object) -> int:
            raise OSError(28, "No space left on device")

    site.pages["/"] = body(b"x")
    http = PublicHttp(resolve=to_loopback, permitted=loopback_or_public)
    with pytest.raises(OSError, match="No space left"):
        http.fetch(site.url("/"), Full(), field="f", limits=FetchLimits(10, 5))


def test_a_certificate_is_checked_against_the_name() -> None:
    """Loopback speaks no TLS with a trusted certificate, whatever it is asked for."""
    with socket.create_server(("127.0.0.1", 0)) as plain:
        port = plain.getsockname()[1]

        def refuse() -> None:
            connection, _ = plain.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        with pytest.raises(SourceUnreachable):
            fetch(f"https://photos.example:{port}/")
        thread.join()


@pytest.mark.parametrize("location", ["http://[bad", "//[::1", "http://a]b/"])
def test_a_redirect_to_what_is_no_url_is_a_source_that_cannot_be_had(location: str) -> None:
    exchange = public_http._Exchange(PublicHttp(), "photo.url", FetchLimits(1, 1))
    with pytest.raises(SourceUnreachable, match="redirected to what is no URL"):
        exchange._redirected("http://example.com/", location)


def test_what_keeps_coming_may_take_longer(site: Site) -> None:
    """0.8 s, with a timeout of 0.5 s and a floor of 20 of its 50 bytes a second."""

    def steady(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "40")
        request.end_headers()
        for _ in range(40):
            request.wfile.write(b"x")
            time.sleep(0.02)

    site.pages["/"] = steady
    shares: list[float] = []
    assert (
        len(
            fetch(site.url("/"), limits=FetchLimits(1000, 0.5, min_rate=20), on_share=shares.append)
        )
        == 40
    )
    assert shares == sorted(shares)
    assert any(0 < share < 1 for share in shares)


def test_what_comes_too_slowly_is_given_up_with_the_settings_name(site: Site) -> None:
    site.pages["/"] = drip
    with pytest.raises(SourceUnreachable, match=r"slower than 1 kB/s \(SOURCE_MIN_RATE\)"):
        fetch(site.url("/"), limits=FetchLimits(1000, 0.3, min_rate=1000))


def test_silence_is_given_up_with_the_settings_name(site: Site) -> None:
    def silent(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "40")
        request.end_headers()
        request.wfile.write(b"x")
        request.wfile.flush()
        site.closing.wait(10)

    site.pages["/"] = silent
    begun = time.monotonic()
    with pytest.raises(SourceUnreachable, match=r"nothing for 0.4 s \(SOURCE_STALL_S\)"):
        fetch(site.url("/"), limits=FetchLimits(1000, 20, 0.4, 1))
    assert time.monotonic() - begun < 2


def test_a_redirect_whose_address_is_not_escaped_is_followed(site: Site) -> None:
    site.pages["/"] = to("/ü ber.jpg".encode().decode("latin-1"))
    site.pages["/%C3%BC%20ber.jpg"] = body(b"found")
    assert fetch(site.url("/")) == b"found"


def test_a_body_packed_on_its_way_is_refused(site: Site) -> None:
    site.pages["/"] = body(b"x", Transfer_Encoding="gzip, chunked", Content_Length="")
    with pytest.raises(SourceUnreachable, match="packed"):
        fetch(site.url("/"))
