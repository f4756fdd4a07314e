import base64
import ipaddress
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.contract_fields import Source
from worker.errors import InvalidInput, SourceForbidden, SourceUnreachable
from worker.sources import SourceOptions, SourceReader
from worker.sources.public_http import PublicHttp
from worker.storage import ObjectStore, StorageOptions

LOOPBACK = ipaddress.ip_address("127.0.0.1")
OPTIONS = SourceOptions(max_bytes=3000, timeout_s=5)


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"picture" * int(self.path[1:]))

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://photos.example:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def reader() -> Iterator[SourceReader]:
    """Over a bucket that nobody serves: what these tests read is not in it."""
    nowhere = StorageOptions("b", "k", "s", endpoint_url="http://127.0.0.1:9", max_attempts=1)
    http = PublicHttp(resolve=lambda *_: [LOOPBACK], permitted=LOOPBACK.__eq__)
    with ObjectStore(nowhere) as store:
        yield SourceReader(store, OPTIONS, http=http)


def encoded(body: bytes) -> Source:
    return Source(base64=base64.b64encode(body).decode())


def test_a_url_is_read_and_saved(reader: SourceReader, url: str, tmp_path: Path) -> None:
    source, target = Source(url=url + "3"), tmp_path / "target"
    assert reader.read(source, field="image") == b"picture" * 3
    assert reader.save(source, target, field="image", max_bytes=21) == 21
    assert target.read_bytes() == b"picture" * 3


def test_a_url_has_the_fields_limit(reader: SourceReader, url: str, tmp_path: Path) -> None:
    source, target = Source(url=url + "3"), tmp_path / "target"
    with pytest.raises(SourceUnreachable) as caught:
        reader.save(source, target, field="images.2", max_bytes=20)
    assert caught.value.field == "images.2.url"
    assert not target.exists()


def test_by_default_only_public_addresses_are_asked(reader: SourceReader, url: str) -> None:
    careful = SourceReader(reader._store, OPTIONS)
    with pytest.raises(SourceForbidden):
        careful.read(Source(url=url.replace("photos.example", "127.0.0.1") + "1"), field="image")


@given(st.binary(min_size=1, max_size=3000))
def test_base64_is_read(reader: SourceReader, body: bytes) -> None:
    assert reader.read(encoded(body), field="image") == body


def test_base64_in_several_pieces_is_saved(reader: SourceReader, tmp_path: Path) -> None:
    body = bytes(range(256)) * 8192  # 2 MiB
    reader.save(encoded(body), tmp_path / "target", field="image", max_bytes=len(body))
    assert (tmp_path / "target").read_bytes() == body


@pytest.mark.parametrize(
    "head",
    [
        "data:image/png;base64,",
        "DATA:image/svg+xml;base64,",
        "data:;base64,",
        "data:image/png;name=a%20b.png;charset=utf-8;base64,",
    ],
)
def test_a_pasted_data_uri_is_base64_too(reader: SourceReader, head: str) -> None:
    assert reader.read(Source(base64=head + "QUJD"), field="image") == b"ABC"


def test_a_data_uri_may_be_without_base64_and_base64_be_escaped(reader: SourceReader) -> None:
    assert reader.read(Source(base64="data:text/plain,a%20b"), field="image") == b"a b"
    assert reader.read(Source(base64="data:;base64,QQ%3D%3D"), field="image") == b"A"
    with pytest.raises(InvalidInput, match="must not exceed 3 bytes"):
        reader.read(Source(base64="data:,abcd"), field="image", max_bytes=3)


@pytest.mark.parametrize(
    "text",
    [
        "QUJ",
        "QUJDR",
        "QUJD=",
        "====",
        "QU==QUJD",
        "QUJD\n",
        " QUJD",
        "QUJ_",
        "QUJ-",
        "QÜJD",
        "data:image/png;base64,",
        "QUI" + "\ud800",
    ],
)
def test_what_is_not_strictly_base64_is_refused(reader: SourceReader, text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        reader.read(Source.model_construct(base64=text), field="image")
    assert caught.value.field == "image.base64"


def test_padding_where_two_pieces_meet_is_refused(reader: SourceReader, tmp_path: Path) -> None:
    text = "A" * (1024 * 1024 - 4) + "AA==" + "AAAA"
    with pytest.raises(InvalidInput):
        reader.save(Source(base64=text), tmp_path / "target", field="image", max_bytes=10_000_000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [3000, 3001, 3002])
def test_base64_is_measured_before_it_is_decoded(reader: SourceReader, size: int) -> None:
    if size <= OPTIONS.max_bytes:
        assert len(reader.read(encoded(b"x" * size), field="image")) == size
    else:
        with pytest.raises(InvalidInput, match="must not exceed 3000 bytes"):
            reader.read(encoded(b"x" * size), field="image")


@pytest.mark.parametrize("key", ["other/a", "inputsa", "inputs/../secret", "characters"])
def test_a_key_outside_the_prefixes_is_forbidden_unasked(reader: SourceReader, key: str) -> None:
    with pytest.raises(SourceForbidden) as caught:
        reader.read(Source.model_construct(key=key), field="image")
    assert caught.value.field == "image.key"
    assert "inputs/" in str(caught.value)


def test_without_prefixes_no_key_is_allowed(reader: SourceReader) -> None:
    closed = SourceReader(reader._store, SourceOptions(key_prefixes=()))
    with pytest.raises(SourceForbidden):
        closed.read(Source(key="inputs/a"), field="image")


def test_what_is_larger_than_a_picture_may_take_as_long_as_it_keeps_coming(
    reader: SourceReader, tmp_path: Path
) -> None:
    """The server takes 1 s for what a picture would have 0.5 s for."""

    class Slow(Page):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            for _ in range(10):
                self.wfile.write(b"x" * 100)
                time.sleep(0.1)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    source = Source(url=f"http://photos.example:{server.server_address[1]}/")
    options = SourceOptions(max_bytes=3000, timeout_s=0.5, min_rate=300)
    slow = SourceReader(reader._store, options, http=reader._http)
    try:
        assert slow.save(source, tmp_path / "lora", field="source", max_bytes=10**9) == 1000
        with pytest.raises(SourceUnreachable, match="SOURCE_TIMEOUT_S"):
            slow.read(source, field="image")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
