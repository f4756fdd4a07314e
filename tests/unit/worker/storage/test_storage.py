from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, NoCredentialsError
from hypothesis import given
from hypothesis import strategies as st

from lora_registry.store import (
    ConditionsUnsupported,
    ObjectMissing,
    PreconditionFailed,
    Store,
    StoreRefused,
    StoreThrottled,
    StoreUnavailable,
)
from worker.errors import InvalidSettings
from worker.storage import ObjectStore
from worker.storage.client import Attempts, ReplyUnusable, StorageOptions, translate
from worker.storage.endpoint import Endpoint, Provider, resolve_endpoint
from worker.storage.upload import content_type_for, disposition

OPTIONS = StorageOptions(
    bucket="photos",
    access_key_id="key-id",
    secret_access_key="very-secret",
    endpoint_url="http://127.0.0.1:9",
    prefix="shared/",
)
R2 = "0123456789abcdef0123456789abcdef.r2.cloudflarestorage.com"


def resolved(
    url: str | None, *, bucket: str = "photos", region: str = "us-east-1", **more: Any
) -> Endpoint:
    provider: Provider = more.pop("provider", "s3")
    return resolve_endpoint(provider, url, bucket=bucket, region=region, **more)


@pytest.mark.parametrize(
    ("given_url", "expected"),
    [
        (None, Endpoint(None, "us-east-1", "auto")),
        ("  ", Endpoint(None, "us-east-1", "auto")),
        ("http://127.0.0.1:9000", Endpoint("http://127.0.0.1:9000", "us-east-1", "path")),
        ("http://[::1]:9000/", Endpoint("http://[::1]:9000", "us-east-1", "path")),
        ("http://127.0.0.1:9000/photos/", Endpoint("http://127.0.0.1:9000", "us-east-1", "path")),
        ("minio.example.com", Endpoint("https://minio.example.com", "us-east-1", "path")),
        (
            "https://photos.s3.eu-west-1.amazonaws.com",
            Endpoint("https://s3.eu-west-1.amazonaws.com", "eu-west-1", "virtual"),
        ),
        (
            "https://photos.s3.eu-west-1.amazonaws.com/photos",
            Endpoint("https://s3.eu-west-1.amazonaws.com", "eu-west-1", "virtual"),
        ),
        (
            "https://s3.eu-west-1.amazonaws.com/photos",
            Endpoint("https://s3.eu-west-1.amazonaws.com", "eu-west-1", "auto"),
        ),
        (f"https://{R2}/photos", Endpoint(f"https://{R2}", "auto", "path")),
        (f"https://photos.{R2}", Endpoint(f"https://{R2}", "auto", "virtual")),
        (
            "https://photos.nyc3.digitaloceanspaces.com",
            Endpoint("https://nyc3.digitaloceanspaces.com", "us-east-1", "virtual"),
        ),
        (
            "http://photos.localhost:9000",
            Endpoint("http://localhost:9000", "us-east-1", "virtual"),
        ),
    ],
)
def test_an_endpoint_loses_the_bucket(given_url: str | None, expected: Endpoint) -> None:
    assert resolved(given_url) == expected


@pytest.mark.parametrize(
    ("url", "bucket"),
    [
        ("https://minio.example.com", "minio"),
        ("https://s3.eu-west-1.amazonaws.com", "s3"),
        ("https://nyc3.digitaloceanspaces.com", "nyc3"),
    ],
)
def test_a_server_named_like_the_bucket_keeps_its_name(url: str, bucket: str) -> None:
    assert resolved(url, bucket=bucket).url == url


@pytest.mark.parametrize(
    "more",
    [
        {"supabase_project_ref": "abcdefgh"},
        {"url": "https://abcdefgh.supabase.co"},
        {"url": "https://abcdefgh.supabase.co/storage/v1/s3"},
        {"url": "https://abcdefgh.storage.supabase.co/storage/v1/s3"},
        {"url": "https://abcdefgh.storage.supabase.co/storage/v1/s3/photos"},
    ],
)
def test_supabase_by_project_or_endpoint(more: dict[str, str]) -> None:
    endpoint = resolved(
        more.get("url"),
        provider="supabase",
        region="eu-central-1",
        supabase_project_ref=more.get("supabase_project_ref"),
    )
    url = "https://abcdefgh.storage.supabase.co/storage/v1/s3"
    assert endpoint == Endpoint(url, "eu-central-1", "path")


def test_supabase_elsewhere_keeps_its_host() -> None:
    endpoint = resolved("http://127.0.0.1:54321/storage/v1/s3", provider="supabase")
    assert endpoint.url == "http://127.0.0.1:54321/storage/v1/s3"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x",
        "https://",
        "https://a:b@x.example",
        "https://x?y=1",
        "http://x:99999",
        "http://x#f",
    ],
)
def test_an_unusable_endpoint_is_named(url: str) -> None:
    with pytest.raises(InvalidSettings, match="S3_ENDPOINT_URL"):
        resolved(url)


def test_supabase_needs_one_of_two() -> None:
    with pytest.raises(InvalidSettings, match="SUPABASE_PROJECT_REF"):
        resolved(None, provider="supabase")


@given(
    st.from_regex(r"[a-z][a-z0-9-]{1,20}[a-z0-9]", fullmatch=True),
    st.sampled_from(["s3.example.com", "127.0.0.1:9000", R2, "s3.us-west-2.amazonaws.com"]),
)
def test_with_or_without_the_bucket_it_is_the_same_place(bucket: str, host: str) -> None:
    plain = resolved(f"https://{host}", bucket=bucket)
    assert resolved(f"https://{host}/{bucket}", bucket=bucket) == plain
    assert resolved(f"https://{host}/{bucket}/", bucket=bucket) == plain


def test_the_secret_is_never_shown() -> None:
    assert "very-secret" not in repr(OPTIONS)
    with ObjectStore(OPTIONS) as store:
        assert "very-secret" not in repr(store.__dict__)


def test_it_is_a_store() -> None:
    with ObjectStore(OPTIONS) as opened:
        store: Store = opened  # checked by mypy, verb by verb
        assert store is opened


# Presigned URLs; signing needs no server


@pytest.mark.parametrize(("asked", "got"), [(10**9, 604_800), (60, 60), (0, 1), (-5, 1)])
def test_a_presigned_url_lives_no_longer_than_a_week(asked: float, got: int) -> None:
    with ObjectStore(OPTIONS) as store:
        url = store.presign("o/1.png", asked)
    assert f"X-Amz-Expires={got}" in url.url
    assert "X-Amz-Signature" in url.url
    assert url.url.startswith("http://127.0.0.1:9/photos/shared/o/1.png?")
    assert url.expires_at is not None
    left = datetime.fromisoformat(url.expires_at) - datetime.now(UTC)
    assert got - 5 <= left.total_seconds() <= got


def test_a_public_base_url_is_plain() -> None:
    options = replace(OPTIONS, public_base_url="https://cdn.example/x/")
    with ObjectStore(options) as store:
        url = store.presign("o/a b#1.png", 60)
    assert url.url == "https://cdn.example/x/shared/o/a%20b%231.png"
    assert url.expires_at is None


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("a.PNG", "image/png"),
        ("a.jpg", "image/jpeg"),
        ("outputs/0.webm", "video/webm"),
        ("a.tar.zip", "application/zip"),
        ("a.safetensors", "application/octet-stream"),
        ("a.svg", "application/octet-stream"),
        ("png", "application/octet-stream"),
    ],
)
def test_content_types(name: str, content_type: str) -> None:
    assert content_type_for(name) == content_type


def test_a_disposition_cannot_be_left() -> None:
    assert disposition('a"; x="b\r\n.png', "image/png") == 'inline; filename="a_; x=_b__.png"'
    assert disposition("a.html", "text/html").startswith("attachment")


# What a store's answers mean


def refusal(status: int, code: str = "", verb: str = "GetObject") -> ClientError:
    reply: Any = {
        "Error": {"Code": code or str(status)},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(reply, verb)


@pytest.mark.parametrize(
    ("verb", "error", "expected"),
    [
        ("read", refusal(404, "NoSuchKey"), ObjectMissing),
        ("read", refusal(404), StoreUnavailable),
        ("read", refusal(404, verb="HeadObject"), ObjectMissing),
        ("read", ReplyUnusable("it has no ETag"), StoreUnavailable),
        ("read", refusal(404, "NoSuchBucket"), StoreRefused),
        ("write", refusal(404, "NoSuchBucket"), StoreRefused),
        ("write", refusal(404, "NoSuchKey"), PreconditionFailed),
        ("write", refusal(409, "ConditionalRequestConflict"), PreconditionFailed),
        ("write", refusal(412, "PreconditionFailed"), PreconditionFailed),
        ("read", refusal(412, "PreconditionFailed"), StoreUnavailable),
        ("write", refusal(501, "NotImplemented"), ConditionsUnsupported),
        ("read", refusal(501, "NotImplemented"), StoreUnavailable),
        ("read", refusal(429), StoreThrottled),
        ("write", refusal(503, "SlowDown"), StoreThrottled),
        ("read", refusal(503, "ServiceUnavailable"), StoreUnavailable),
        ("read", refusal(403, "AccessDenied"), StoreRefused),
        ("read", refusal(403), StoreRefused),
        ("write", refusal(400, "ExpiredToken"), StoreRefused),
        ("read", NoCredentialsError(), StoreUnavailable),
        ("read", ConnectTimeoutError(endpoint_url="http://x"), StoreUnavailable),
    ],
)
def test_what_an_answer_means(verb: str, error: Exception, expected: type[Exception]) -> None:
    assert type(translate(error, "k", conditional=verb == "write")) is expected


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (refusal(500), 3),
        (refusal(503, "SlowDown"), 3),
        (ConnectTimeoutError(endpoint_url="http://x"), 3),
        (ConnectionResetError(), 3),
        (refusal(404), 3),
        (ReplyUnusable("it has no ETag"), 3),
        (ValueError("no date"), 3),
        (refusal(404, "NoSuchKey"), 1),
        (refusal(403, "AccessDenied"), 1),
        (refusal(501), 1),
        (NoCredentialsError(), 1),
    ],
)
def test_what_is_worth_another_try(error: Exception, tries: int) -> None:
    calls: list[int] = []

    def request() -> None:
        calls.append(1)
        raise error

    with pytest.raises((StoreUnavailable, StoreRefused, StoreThrottled, ObjectMissing)):
        Attempts(replace(OPTIONS, max_attempts=3), "k").run(request)
    assert len(calls) == tries


def test_no_attempt_starts_after_the_deadline() -> None:
    calls: list[int] = []

    def request() -> None:
        calls.append(1)
        raise ConnectionResetError

    with pytest.raises(StoreUnavailable):
        Attempts(replace(OPTIONS, retry_deadline_s=0.0), "k").run(request)
    assert len(calls) == 1


def test_a_full_disk_is_not_the_stores_fault() -> None:
    def request() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        Attempts(OPTIONS, "k").run(request)
