"""The model fetcher against a real HTTP server that misbehaves in every way a hub or CDN has."""

import contextlib
import hashlib
import http.server
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from builder import fetch_models
from builder.download import PartialFile, Wanted, download
from builder.errors import (
    BuildError,
    DiskTooSmall,
    DownloadFailed,
    HashMismatch,
    ModelUnverified,
    SizeMismatch,
    SourceMissing,
    SourceRefused,
)
from builder.fetch_models import Options, fetch, open_transfer
from builder.library import Shelves
from builder.manifest import Model
from builder.transfer import Patience, Transfer
from local.s3 import S3Server
from worker.storage import ObjectStore

BODY = bytes(range(256)) * 1500 + b"the end"  # 384,007 bytes: six parts of 64 KiB, the last short
PART = 64 << 10
WANTED = Wanted(hashlib.sha256(BODY).hexdigest(), len(BODY))
QUICK = Patience(max_tries=3, stall_s=0.5, deadline_s=20, first_pause_s=0.01)


@dataclass
class Hub:
    """A server with one file; its faults are counted down, one request at a time."""

    body: bytes = BODY
    url: str = ""
    ranges: bool = True
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: list[int] = field(default_factory=list)
    always_cut_after: int | None = None
    trickle_s: float = 0.0
    redirect: str | None = None
    content_range: str | None = None
    token: str | None = None
    sent: int = 0
    seen: list[dict[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        hub: Hub = self.server.hub  # type: ignore[attr-defined]
        return hub

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        pass

    def do_GET(self) -> None:
        hub = self.hub
        with hub.lock:
            hub.seen.append({key.lower(): value for key, value in self.headers.items()})
            status = hub.statuses.pop(0) if hub.statuses else 0
            cut = hub.cut_after.pop(0) if hub.cut_after else hub.always_cut_after
        if hub.redirect:
            self._plain(302, {"Location": hub.redirect})
        elif hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self._plain(401)
        elif status:
            self._plain(status, hub.headers)
        else:
            self._file(cut)

    def _plain(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _file(self, cut: int | None) -> None:
        hub, start, end = self.hub, 0, len(self.hub.body)
        wanted = self.headers.get("Range") if hub.ranges else None
        if wanted:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last) + 1, end)
            if start >= len(hub.body):
                self._plain(416, {"Content-Range": f"bytes */{len(hub.body)}"})
                return
        self.send_response(206 if wanted else 200)
        if wanted:
            said = f"bytes {start}-{end - 1}/{len(hub.body)}"
            self.send_header("Content-Range", hub.content_range or said)
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        self._send(hub.body[start:end], cut)

    def _send(self, data: bytes, cut: int | None) -> None:
        with self.hub.lock:
            self.hub.sent += len(data[:cut])
        if cut is not None:
            self.wfile.write(data[:cut])
            self.close_connection = cut < len(data)
        elif self.hub.trickle_s:
            with contextlib.suppress(OSError):
                for byte in data:
                    self.wfile.write(bytes([byte]))
                    time.sleep(self.hub.trickle_s)
        else:
            self.wfile.write(data)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: Hub) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub = hub

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are what is tested."""


@contextlib.contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    with Server(hub) as server:
        hub.url = f"http://127.0.0.1:{server.server_address[1]}/model.bin"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join(5)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub()) as hub:
        yield hub


def get(hub: Hub, path: Path, wanted: Wanted = WANTED, patience: Patience = QUICK) -> None:
    with Transfer(hub.url, patience=patience, connections=4, part_bytes=PART) as transfer:
        download(transfer, wanted, path)


def test_parallel_parts_make_the_whole(hub: Hub, tmp_path: Path) -> None:
    get(hub, tmp_path / "deep" / "model.bin")
    assert (tmp_path / "deep" / "model.bin").read_bytes() == BODY
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["model.bin"]
    assert sorted(seen["range"] for seen in hub.seen)[0] == f"bytes=0-{PART - 1}"
    assert len(hub.seen) == 6


def test_flapping_server_is_outlasted_and_nothing_is_fetched_twice(
    hub: Hub, tmp_path: Path
) -> None:
    hub.cut_after = [1000, 5, 0, 64, 30_000, 7]
    hub.statuses = [503, 429, 502]
    hub.headers = {"Retry-After": "0"}
    get(hub, tmp_path / "model.bin")
    assert (tmp_path / "model.bin").read_bytes() == BODY
    assert hub.sent == len(BODY)


def test_progress_resets_the_tries(hub: Hub, tmp_path: Path) -> None:
    hub.always_cut_after = 20_000  # far more cuts a part than max_tries, each after some bytes
    get(hub, tmp_path / "model.bin", patience=replace(QUICK, max_tries=2))
    assert (tmp_path / "model.bin").read_bytes() == BODY


def test_dead_server_is_given_up(hub: Hub, tmp_path: Path) -> None:
    hub.statuses = [500] * 100
    with pytest.raises(DownloadFailed, match=r"HTTP 500, 3 times in a row"):
        get(hub, tmp_path / "model.bin")
    assert not (tmp_path / "model.bin").exists()


def test_resumes_where_an_earlier_build_stopped(hub: Hub, tmp_path: Path) -> None:
    hub.always_cut_after = 0
    with Transfer(hub.url, patience=QUICK, connections=1, part_bytes=PART) as transfer:
        hub.cut_after = [PART, PART]
        with pytest.raises(DownloadFailed):
            download(transfer, WANTED, tmp_path / "model.bin")
    hub.always_cut_after = None
    hub.seen.clear()
    get(hub, tmp_path / "model.bin")
    assert len(hub.seen) == 4
    assert (tmp_path / "model.bin").read_bytes() == BODY


def test_spoilt_leftovers_are_fetched_again(hub: Hub, tmp_path: Path) -> None:
    title = f"{WANTED.sha256} {WANTED.size} {PART}"
    (tmp_path / "model.bin.part").write_bytes(b"\0" * len(BODY))
    (tmp_path / "model.bin.parts").write_text(f"{title}\n0\n{PART}\n")
    get(hub, tmp_path / "model.bin")
    assert (tmp_path / "model.bin").read_bytes() == BODY


def test_leftovers_of_another_file_are_not_used(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "model.bin.part").write_bytes(b"\0" * (2 * len(BODY)))
    (tmp_path / "model.bin.parts").write_text(f"{'0' * 64} {len(BODY)} {PART}\n0\n")
    get(hub, tmp_path / "model.bin")
    assert (tmp_path / "model.bin").read_bytes() == BODY
    assert len(hub.seen) == 6


def test_wrong_content_names_both_hashes(hub: Hub, tmp_path: Path) -> None:
    hub.body = BODY[:-1] + b"!"
    other = hashlib.sha256(hub.body).hexdigest()
    with pytest.raises(HashMismatch, match=f"{other}.*{WANTED.sha256}"):
        get(hub, tmp_path / "model.bin")
    assert list(tmp_path.iterdir()) == []


def test_file_of_another_size_is_noticed_at_once(hub: Hub, tmp_path: Path) -> None:
    hub.body = BODY + b"more"
    with pytest.raises(SizeMismatch, match=f"{len(hub.body)} bytes.*{len(BODY)}"):
        get(hub, tmp_path / "model.bin")
    assert len(hub.seen) <= 4


def test_shorter_file_is_noticed(hub: Hub, tmp_path: Path) -> None:
    hub.body = BODY[:100]
    with pytest.raises(BuildError, match="100 bytes"):
        get(hub, tmp_path / "model.bin")


def test_range_that_was_not_asked_for_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.content_range = f"bytes 7-99/{len(BODY)}"
    with pytest.raises(DownloadFailed, match="asked from byte"):
        get(hub, tmp_path / "model.bin")


def test_server_without_ranges_is_read_in_one_stream(hub: Hub, tmp_path: Path) -> None:
    hub.ranges = False
    get(hub, tmp_path / "model.bin")
    assert (tmp_path / "model.bin").read_bytes() == BODY


def test_truncated_stream_without_ranges_starts_again(hub: Hub, tmp_path: Path) -> None:
    hub.ranges = False
    hub.cut_after = [len(BODY), 10, 200_000]  # the first answers the only range asked for
    with Transfer(hub.url, patience=QUICK, connections=1, part_bytes=PART) as transfer:
        download(transfer, WANTED, tmp_path / "model.bin")
    assert (tmp_path / "model.bin").read_bytes() == BODY


def test_endless_truncation_is_given_up(hub: Hub, tmp_path: Path) -> None:
    hub.ranges = False
    hub.always_cut_after = 1000
    with pytest.raises(DownloadFailed, match=r"times in a row"):
        get(hub, tmp_path / "model.bin")


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, SourceMissing), (410, SourceMissing), (401, SourceRefused), (403, SourceRefused)],
)
def test_final_answers_are_not_retried(
    hub: Hub, tmp_path: Path, status: int, error: type[BuildError]
) -> None:
    hub.statuses = [status] * 100
    with pytest.raises(error, match=str(status)):
        get(hub, tmp_path / "model.bin")
    assert len(hub.seen) <= 4
    assert not (tmp_path / "model.bin").exists()


def test_silent_server_is_left_after_a_while(hub: Hub, tmp_path: Path) -> None:
    hub.trickle_s = 3.0
    hub.body = BODY[:PART]
    wanted = Wanted(hashlib.sha256(hub.body).hexdigest(), PART)
    patience = replace(QUICK, stall_s=0.2, deadline_s=1.0)
    started = time.monotonic()
    with pytest.raises(DownloadFailed):
        get(hub, tmp_path / "model.bin", wanted, patience)
    assert time.monotonic() - started < 5


def test_trickling_server_cannot_outlast_the_deadline(hub: Hub, tmp_path: Path) -> None:
    hub.trickle_s = 0.02
    with pytest.raises(DownloadFailed, match="not done in"):
        get(hub, tmp_path / "model.bin", patience=replace(QUICK, deadline_s=0.5))


def test_redirects_are_followed_and_the_token_stays_with_its_host(hub: Hub, tmp_path: Path) -> None:
    with serving(Hub()) as door:
        door.redirect = hub.url.replace("127.0.0.1", "localhost")
        with Transfer(door.url, token="hf_secret", patience=QUICK, part_bytes=PART) as transfer:
            download(transfer, WANTED, tmp_path / "model.bin")
        assert door.seen[0]["authorization"] == "Bearer hf_secret"
    assert all("authorization" not in seen for seen in hub.seen)
    assert (tmp_path / "model.bin").read_bytes() == BODY


def test_redirects_without_end(hub: Hub, tmp_path: Path) -> None:
    hub.redirect = hub.url
    with pytest.raises(DownloadFailed, match="redirects without end"):
        get(hub, tmp_path / "model.bin")


def test_two_fetchers_of_one_file_do_not_mix(hub: Hub, tmp_path: Path) -> None:
    with (
        PartialFile(tmp_path / "model.bin", WANTED, PART),
        pytest.raises(DownloadFailed, match="another process"),
    ):
        get(hub, tmp_path / "model.bin")
    get(hub, tmp_path / "model.bin")
    assert (tmp_path / "model.bin").read_bytes() == BODY


def test_full_disk_is_said_before_the_first_byte(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(DiskTooSmall, match="needed"):
        get(hub, tmp_path / "model.bin", Wanted("0" * 64, 1 << 60))
    assert hub.seen == []


def test_signed_part_of_an_address_is_not_shown(hub: Hub, tmp_path: Path) -> None:
    hub.statuses = [403] * 8
    with (
        Transfer(f"{hub.url}?X-Amz-Signature=abc", patience=QUICK) as transfer,
        pytest.raises(SourceRefused) as caught,
    ):
        download(transfer, WANTED, tmp_path / "model.bin")
    assert "abc" not in str(caught.value)


def model(hub: Hub, **changes: Any) -> Model:
    sha256 = hashlib.sha256(BODY).hexdigest()
    plain = Model("model", "checkpoints", hub.url, sha256, len(BODY), "MIT", ("worker",))
    return replace(plain, **changes)


def test_fetch_then_there_then_spoilt(hub: Hub, tmp_path: Path) -> None:
    options = Options(shelves=Shelves((), ()), patience=QUICK)
    assert fetch(model(hub), tmp_path, options).startswith("fetched")
    assert fetch(model(hub), tmp_path, options) == "there"
    (tmp_path / "checkpoints" / "model.bin").write_bytes(BODY[:-1] + b"?")
    with pytest.raises(HashMismatch):
        fetch(model(hub), tmp_path, options)


def test_volume_is_linked_after_its_content_is_checked(hub: Hub, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    (volume / "checkpoints").mkdir(parents=True)
    (volume / "checkpoints" / "model.bin").write_bytes(BODY)
    options = Options(shelves=Shelves((volume,), ()), patience=QUICK)
    assert "linked" in fetch(model(hub), tmp_path / "models", options)
    place = tmp_path / "models" / "checkpoints" / "model.bin"
    assert place.is_symlink()
    assert place.read_bytes() == BODY
    assert hub.seen == []
    place.unlink()
    (volume / "checkpoints" / "model.bin").write_bytes(BODY[::-1])
    with pytest.raises(HashMismatch):
        fetch(model(hub), tmp_path / "models", options)


def test_unconfirmed_hash_needs_the_flag(hub: Hub, tmp_path: Path) -> None:
    unsure = model(hub, verified=False)
    options = Options(shelves=Shelves((), ()), patience=QUICK)
    with pytest.raises(ModelUnverified, match="--unverified"):
        fetch(unsure, tmp_path, options)
    assert fetch(unsure, tmp_path, replace(options, unverified=True)).startswith("fetched")


def test_token_goes_to_hugging_face_only(hub: Hub) -> None:
    options = Options(token="hf_secret")
    ours = open_transfer(model(hub), options)
    theirs = open_transfer(
        model(hub, url="https://huggingface.co/org/name/resolve/main/model.bin"), options
    )
    assert (ours._token, theirs._token) == (None, "hf_secret")


def manifest(folder: Path, hub: Hub, **changes: Any) -> Path:
    entry = {
        "name": "model",
        "folder": "checkpoints",
        "url": hub.url,
        "sha256": WANTED.sha256,
        "bytes": WANTED.size,
        "licence": "MIT",
        "targets": ["worker-sdxl"],
    } | changes
    path = folder / "models.toml"
    lines = [f"{key} = {json.dumps(value)}" for key, value in entry.items()]
    path.write_text("[[model]]\n" + "\n".join(lines))
    return path


def test_command_fetches_a_target(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = str(manifest(tmp_path, hub))
    call = ["--target", "worker-sdxl", "--into", str(tmp_path / "models"), "--manifest", listed]
    assert fetch_models.main(call) == 0
    assert (tmp_path / "models" / "checkpoints" / "model.bin").read_bytes() == BODY
    assert "checkpoints/model.bin: fetched, 0.4 MB" in capsys.readouterr().out


def test_command_says_what_was_wrong(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = str(manifest(tmp_path, hub, sha256="0" * 64))
    call = ["--name", "model", "--into", str(tmp_path / "models"), "--manifest", listed]
    assert fetch_models.main(call) == 1
    message = capsys.readouterr().err
    assert "0" * 64 in message
    assert WANTED.sha256 in message
    assert "Traceback" not in message


def test_models_come_from_our_bucket(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ObjectStore(s3.options()) as bucket:
        bucket.put("models/model.bin", BODY, "application/octet-stream")
    monkeypatch.setenv("S3_ENDPOINT_URL", s3.endpoint_url)
    monkeypatch.setenv("S3_ACCESS_KEY_ID", s3.access_key_id)
    monkeypatch.setenv("S3_SECRET_ACCESS_KEY", s3.secret_access_key)
    ours = model(Hub(), url=f"s3://{s3.bucket}/models/model.bin")
    options = Options(shelves=Shelves((), ()), patience=QUICK)
    assert fetch(ours, tmp_path, options).startswith("fetched")
    assert (tmp_path / "checkpoints" / "model.bin").read_bytes() == BODY
    with pytest.raises(SourceMissing):
        fetch(replace(ours, url=f"s3://{s3.bucket}/models/none.bin"), tmp_path, options)


def test_s3_addresses_are_signed_for_our_endpoint() -> None:
    environment = {
        "S3_ENDPOINT_URL": "http://127.0.0.1:9",
        "S3_ACCESS_KEY_ID": "id",
        "S3_SECRET_ACCESS_KEY": "secret",
    }
    signed = urlsplit(fetch_models.presigned("s3://models/checkpoints/a b.bin", environment))
    assert (signed.netloc, signed.path) == ("127.0.0.1:9", "/models/checkpoints/a%20b.bin")
    assert "X-Amz-Signature" in signed.query
