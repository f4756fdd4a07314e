import contextlib
import hashlib
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from local.faults import FaultProxy, Rule
from local.s3 import S3Server
from lora_registry.store import (
    ObjectMissing,
    PreconditionFailed,
    StoreError,
    StoreRefused,
    StoreThrottled,
    StoreUnavailable,
)
from worker.errors import Cancelled
from worker.storage import ObjectStore
from worker.storage.upload import PART_BYTES, SINGLE_BYTES

pytestmark = pytest.mark.process
MIB = 1024 * 1024
LARGE = 3 * PART_BYTES + 12_345


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(s3.endpoint_url) as opened:
        yield opened


@pytest.fixture
def faulty(s3: S3Server, store: ObjectStore, proxy: FaultProxy) -> Iterator[ObjectStore]:
    """The same place as `store`, reached through the proxy, and less patient."""
    options = s3.options(prefix=store.options.prefix, endpoint_url=proxy.url)
    options = replace(options, read_timeout_s=2.0, max_attempts=4, retry_deadline_s=10.0)
    with ObjectStore(options) as opened:
        yield opened


@pytest.fixture
def local(tmp_path: Path) -> Callable[[int], Path]:
    def write(size: int) -> Path:
        path = tmp_path / "source.safetensors"
        path.write_bytes(os.urandom(size))
        return path

    return write


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def open_uploads(store: ObjectStore) -> list[Any]:
    reply = store._client.list_multipart_uploads(Bucket=store.options.bucket)
    return [
        upload
        for upload in reply.get("Uploads", [])
        if upload["Key"].startswith(store.options.prefix)
    ]


class CancelOnceHeld:
    """A job's check that cancels as soon as a rule holds a request back."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.at = 0.0

    def __call__(self) -> None:
        if self.rule.hits:
            self.at = time.monotonic()
            raise Cancelled("The job was cancelled.")


def soon(condition: Callable[[], bool], within_s: float = 5.0) -> bool:
    end = time.monotonic() + within_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


# Verbs


def test_what_was_put_is_what_is_read(store: ObjectStore) -> None:
    etag = store.put("a/head.json", b"{}")

    assert store.get("a/head.json").body == b"{}"
    assert store.get("a/head.json").etag == etag
    assert store.head("a/head.json").size == 2


def test_an_unchanged_object_is_answered_304(store: ObjectStore) -> None:
    etag = store.put("a.json", b"1")

    assert store.get_if_changed("a.json", etag) is None
    store.put("a.json", b"2")
    changed = store.get_if_changed("a.json", etag)
    assert changed is not None
    assert changed.body == b"2"


@pytest.mark.parametrize("verb", ["get", "head"])
def test_an_absent_object_is_missing(store: ObjectStore, verb: str) -> None:
    with pytest.raises(ObjectMissing) as caught:
        getattr(store, verb)("no/such.json")
    assert caught.value.key == "no/such.json"


def test_create_only_where_there_is_nothing(store: ObjectStore) -> None:
    store.put_if_absent("a.json", b"1")

    with pytest.raises(PreconditionFailed):
        store.put_if_absent("a.json", b"2")
    assert store.get("a.json").body == b"1"


def test_change_only_what_was_read(store: ObjectStore) -> None:
    first = store.put("a.json", b"1")
    second = store.put_if_match("a.json", b"2", first)

    with pytest.raises(PreconditionFailed):
        store.put_if_match("a.json", b"3", first)
    with pytest.raises(PreconditionFailed):
        store.put_if_match("absent.json", b"3", second)
    assert store.get("a.json").body == b"2"


def test_of_racing_creations_one_wins(store: ObjectStore) -> None:
    won: list[int] = []

    def create(number: int) -> None:
        with contextlib.suppress(PreconditionFailed):
            store.put_if_absent("race.json", str(number).encode())
            won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.get("race.json").body == str(won[0]).encode()


def test_delete_twice(store: ObjectStore) -> None:
    store.put("a.json", b"1")
    store.delete("a.json")
    store.delete("a.json")
    with pytest.raises(ObjectMissing):
        store.head("a.json")


def test_listing_goes_on_after_a_key_and_never_shows_the_prefix(store: ObjectStore) -> None:
    for name in ("ada", "ben", "cleo"):
        store.put(f"characters/{name}/character.json", b"{}")
        store.put(f"characters/{name}/versions/1.json", b"{}")

    keys = [info.key for info in store.list("characters/ben/")]
    assert keys == ["characters/ben/character.json", "characters/ben/versions/1.json"]
    after = store.list("characters/", start_after="characters/ben/versions/1.json")
    assert next(info.key for info in after) == "characters/cleo/character.json"
    assert list(store.list_folders("characters/")) == ["ada", "ben", "cleo"]
    assert list(store.list_folders("characters/", start_after="ada")) == ["ben", "cleo"]


@pytest.mark.parametrize("ids", [["mira", "mira-2", "mira_3", "mira.x", "zed"]])
def test_folders_page_by_page_are_all_folders(store: ObjectStore, ids: list[str]) -> None:
    """Whatever the store's order, going on after each name in turn shows every name once."""
    for name in ids:
        store.put(f"c/{name}/x.json", b"{}")
    whole = list(store.list_folders("c/"))
    assert sorted(whole) == sorted(ids)
    for number, name in enumerate(whole, 1):
        assert list(store.list_folders("c/", start_after=name)) == whole[number:]


def test_the_store_has_its_prefix_to_itself(s3: S3Server, store: ObjectStore) -> None:
    store.put("a.json", b"1")
    with ObjectStore(s3.options(prefix=store.options.prefix + "-other")) as other:
        assert list(other.list("")) == []


# Transfers


@pytest.mark.parametrize("size", [0, 1, SINGLE_BYTES, SINGLE_BYTES + 1, LARGE])
def test_a_file_goes_and_comes_back_whole(
    store: ObjectStore, local: Callable[[int], Path], tmp_path: Path, size: int
) -> None:
    source, target = local(size), tmp_path / "target"

    info = store.upload(source, "loras/a.safetensors", "application/octet-stream")
    store.download("loras/a.safetensors", target)

    assert info.size == size
    assert target.read_bytes() == source.read_bytes()
    stored = store.head("loras/a.safetensors")
    assert (stored.size, stored.metadata["sha256"]) == (size, sha256(source))
    assert open_uploads(store) == []


def test_the_parts_of_a_download_meet(
    store: ObjectStore, local: Callable[[int], Path], tmp_path: Path
) -> None:
    source, target = local(33 * MIB + 7), tmp_path / "target"
    store.upload(source, "a.bin", "application/octet-stream")
    store.download("a.bin", target)
    assert sha256(target) == sha256(source)


def test_a_missing_object_leaves_no_file(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(ObjectMissing):
        store.download("none", tmp_path / "target")
    assert list(tmp_path.iterdir()) == []


def test_memory_stays_flat(store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "large.bin"
    with source.open("wb") as file:
        file.truncate(128 * MIB)
    small = tmp_path / "small.bin"
    small.write_bytes(b"x" * LARGE)
    store.upload(small, "warm.bin", "video/mp4")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    store.upload(source, "large.bin", "video/mp4")
    store.download("large.bin", tmp_path / "target")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) / 1024 < 64


# Presigned URLs


def test_a_presigned_url_plays_in_place(store: ObjectStore) -> None:
    store.put("o/1.mp4", b"film", "application/octet-stream")

    url = store.presign("o/1.mp4", 60)
    answer = requests.get(url.url, timeout=5)

    assert answer.content == b"film"
    assert answer.headers["Content-Type"] == "video/mp4"
    assert answer.headers["Content-Disposition"] == 'inline; filename="1.mp4"'


def test_a_presigned_url_expires(store: ObjectStore) -> None:
    store.put("o/1.png", b"x")
    url = store.presign("o/1.png", 1)
    assert soon(lambda: requests.get(url.url, timeout=5).status_code == 403)


# Faults


@pytest.mark.parametrize(
    "rule",
    [
        Rule("error", status=500),
        Rule("error", status=503, code="SlowDown"),
        Rule("reset"),
        Rule("lose_reply"),
        Rule("cut_reply", after=0),
        Rule("hang", seconds=10),
    ],
    ids=lambda rule: f"{rule.fault}-{rule.code}",
)
def test_a_passing_fault_is_not_noticed(faulty: ObjectStore, proxy: FaultProxy, rule: Rule) -> None:
    faulty.put("a.json", b"1")
    proxy.add(replace(rule))
    assert faulty.get("a.json").body == b"1"
    proxy.add(replace(rule))
    faulty.put("a.json", b"2")
    assert faulty.get("a.json").body == b"2"


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        (Rule("error", status=500, times=99), StoreUnavailable),
        (Rule("error", status=503, code="SlowDown", times=99), StoreThrottled),
        (Rule("reset", times=99), StoreUnavailable),
        (Rule("error", status=403, code="ExpiredToken"), StoreRefused),
        (Rule("error", status=403, code="RequestTimeTooSkewed"), StoreRefused),
        (Rule("error", status=404, code="NoSuchBucket"), StoreRefused),
    ],
    ids=lambda value: value.code if isinstance(value, Rule) else "",
)
def test_a_lasting_fault_is_never_an_absence(
    faulty: ObjectStore, proxy: FaultProxy, rule: Rule, error: type[StoreError]
) -> None:
    proxy.add(rule)
    with pytest.raises(error) as caught:
        faulty.get("a.json")
    assert type(caught.value) is error
    refused = isinstance(caught.value, StoreRefused)
    assert caught.value.code == ("storage_refused" if refused else "storage_unavailable")


def test_a_refused_key_says_what_to_fix(s3: S3Server) -> None:
    wrong = {
        "S3_SECRET_ACCESS_KEY": replace(s3.options(), secret_access_key="wrong"),
        "S3_ACCESS_KEY_ID": replace(s3.options(), access_key_id="wrong"),
        "S3_BUCKET": replace(s3.options(), bucket="absent"),
    }
    for setting, options in wrong.items():
        with ObjectStore(options) as store, pytest.raises(StoreRefused, match=setting):
            store.check()


def test_a_missing_bucket_is_no_missing_object(s3: S3Server) -> None:
    with (
        ObjectStore(replace(s3.options(), bucket="absent")) as store,
        pytest.raises(StoreRefused, match="S3_BUCKET"),
    ):
        store.head("a.json")


def test_a_lost_reply_to_a_conditional_write_shows_as_a_conflict_with_oneself(
    faulty: ObjectStore, proxy: FaultProxy
) -> None:
    etag = faulty.put("head.json", b"1")
    proxy.add(Rule("lose_reply", method="PUT"))
    with pytest.raises(PreconditionFailed):
        faulty.put_if_match("head.json", b"mine", etag)
    assert faulty.get("head.json").body == b"mine"


@pytest.mark.parametrize(
    "rule",
    [
        Rule("cut_upload", method="PUT", path="partNumber=2", after=MIB),
        Rule("lose_reply", method="PUT", path="partNumber=2"),
        Rule("error", method="PUT", path="partNumber=2", status=503, code="SlowDown"),
        Rule("lose_reply", method="POST", path="uploadId="),
    ],
    ids=lambda rule: f"{rule.fault}-{rule.method}",
)
def test_an_upload_survives(
    faulty: ObjectStore,
    proxy: FaultProxy,
    local: Callable[[int], Path],
    tmp_path: Path,
    rule: Rule,
) -> None:
    source = local(LARGE)
    proxy.add(rule)
    faulty.upload(source, "a.safetensors", "application/octet-stream")
    assert rule.hits == 1
    faulty.download("a.safetensors", tmp_path / "target")
    assert sha256(tmp_path / "target") == sha256(source)
    assert open_uploads(faulty) == []


def test_a_failed_upload_leaves_nothing(
    store: ObjectStore, faulty: ObjectStore, proxy: FaultProxy, local: Callable[[int], Path]
) -> None:
    proxy.add(Rule("cut_upload", method="PUT", path="partNumber=3", after=MIB, times=99))
    with pytest.raises(StoreUnavailable):
        faulty.upload(local(LARGE), "a.safetensors", "application/octet-stream")
    assert soon(lambda: open_uploads(store) == [])
    with pytest.raises(ObjectMissing):
        store.head("a.safetensors")


def test_a_download_goes_on_where_it_broke_off(
    faulty: ObjectStore, proxy: FaultProxy, local: Callable[[int], Path], tmp_path: Path
) -> None:
    source = local(20 * MIB)
    faulty.upload(source, "a.bin", "application/octet-stream")
    for after in (5 * MIB, 3 * MIB, 100):
        proxy.add(Rule("cut_reply", method="GET", after=after))
    faulty.download("a.bin", tmp_path / "target")
    assert sha256(tmp_path / "target") == sha256(source)


@pytest.mark.parametrize("size", [100_000, LARGE])
def test_a_cancelled_upload_ends_at_once_and_leaves_nothing(
    store: ObjectStore,
    faulty: ObjectStore,
    proxy: FaultProxy,
    local: Callable[[int], Path],
    size: int,
) -> None:
    cancel = CancelOnceHeld(proxy.add(Rule("delay", method="PUT", seconds=1.5, times=9)))
    with pytest.raises(Cancelled):
        faulty.upload(local(size), "a.bin", "video/mp4", check_cancelled=cancel)
    assert time.monotonic() - cancel.at < 1.0
    assert soon(lambda: proxy.in_flight == 0)  # what was held back has passed by now

    def nothing_left() -> bool:
        return open_uploads(store) == [] and list(store.list("")) == []

    assert soon(nothing_left)


def test_a_cancelled_download_ends_at_once_and_leaves_no_file(
    faulty: ObjectStore, proxy: FaultProxy, local: Callable[[int], Path], tmp_path: Path
) -> None:
    faulty.upload(local(LARGE), "a.bin", "video/mp4")
    target = tmp_path / "target"
    cancel = CancelOnceHeld(proxy.add(Rule("hang", method="GET", times=99)))
    with pytest.raises(Cancelled):
        faulty.download("a.bin", target, check_cancelled=cancel)
    assert time.monotonic() - cancel.at < 1.0
    assert not target.exists()


def test_an_object_that_goes_during_its_download_is_missing(
    faulty: ObjectStore, proxy: FaultProxy, tmp_path: Path
) -> None:
    faulty.put("a.bin", b"x" * 100)
    proxy.add(Rule("error", method="GET", path="a.bin", status=404, code="NoSuchKey"))
    with pytest.raises(ObjectMissing):
        faulty.download("a.bin", tmp_path / "target")


# The server itself


def test_a_given_folder_keeps_its_objects(tmp_path: Path) -> None:
    with S3Server(tmp_path / "data") as server, ObjectStore(server.options()) as store:
        store.put("kept.json", b"kept")
    with S3Server(tmp_path / "data") as server, ObjectStore(server.options()) as store:
        assert store.get("kept.json").body == b"kept"
