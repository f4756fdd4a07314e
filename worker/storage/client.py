"""The one place that opens an S3 client, and the one that reads what a store answers.

Only this module imports boto3. Every verb goes through `Attempts`: botocore's own retries are off,
so that one deadline and one meaning of "worth another try" hold for single requests, parts of a
transfer and bodies that break off.
"""

import logging
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    ResponseStreamingError,
)
from botocore.exceptions import ConnectionError as ConnectionFailed
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from lora_registry.store import (
    ConditionsUnsupported,
    ObjectMissing,
    PreconditionFailed,
    StoreError,
    StoreRefused,
    StoreThrottled,
    StoreUnavailable,
)
from worker.cancel import Deadline
from worker.storage.endpoint import AddressingStyle, Endpoint, Provider, resolve_endpoint

log = logging.getLogger(__name__)
T = TypeVar("T")


class ReplyUnusable(Exception):
    """An answer that says success and is no store's: a proxy's page, a listing that was cut."""


FAILURES: Final = (
    *(ClientError, BotoCoreError, HTTPError, ConnectionError, TimeoutError),
    ReplyUnusable,
)
"""What a request, or a body that is being read, can fail with. A full disk is none of them."""

_BROKEN_OFF: Final = (
    ConnectionFailed,
    HTTPClientError,
    IncompleteReadError,
    ResponseStreamingError,
)
_FIRST_BACKOFF_S: Final = 0.1
_MAX_BACKOFF_S: Final = 3.0
_MISSING: Final = {"NoSuchKey", "NoSuchVersion", "NotFound"}
_CONDITION_STATUSES: Final = {
    HTTPStatus.NOT_FOUND,
    HTTPStatus.CONFLICT,
    HTTPStatus.PRECONDITION_FAILED,
}
_THROTTLED: Final = {"SlowDown", "Throttling", "ThrottlingException", "TooManyRequests", "429"}
_PASSING: Final = {"RequestTimeout", "BadDigest", "OperationAborted", "408"}
_REMEDIES: Final = {
    "NoSuchBucket": "The bucket does not exist; check S3_BUCKET and S3_ENDPOINT_URL.",
    "InvalidAccessKeyId": "The store does not know the access key; check S3_ACCESS_KEY_ID.",
    "SignatureDoesNotMatch": "The store refuses the signature; check S3_SECRET_ACCESS_KEY.",
    "ExpiredToken": "The storage credentials have expired; set new ones.",
    "RequestTimeTooSkewed": "This machine's clock is off by more than the store allows; set it.",
    "AuthorizationHeaderMalformed": "The store belongs to another region; check S3_REGION.",
    "PermanentRedirect": "The bucket belongs to another region or endpoint; check S3_REGION.",
    "AccessDenied": "The store denies this access key; let it list, read, write and delete.",
    "403": "The store denies this access key; let it list, read, write and delete.",
}


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """Which bucket, how it is reached, and how long we try.

    Args:
        endpoint_url: None for AWS; a bucket in it is stripped.
        prefix: put before every key; a slash is added where it ends without one.
        public_base_url: answer plain URLs below this instead of presigned ones.
        max_attempts: requests per verb or part, the first included.
        retry_deadline_s: no attempt starts later than this after the first, in seconds.
    """

    bucket: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    provider: Provider = "s3"
    endpoint_url: str | None = None
    supabase_project_ref: str | None = None
    region: str = "us-east-1"
    addressing_style: AddressingStyle = "auto"
    prefix: str = ""
    public_base_url: str | None = None
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 20.0
    max_attempts: int = 5
    retry_deadline_s: float = 30.0


def open_client(options: StorageOptions) -> Any:
    """An S3 client that is safe to share between threads; boto3 has no type for it."""
    endpoint = _endpoint(options)
    config = Config(
        signature_version="s3v4",  # else presigned URLs are signed with SigV2
        s3={"addressing_style": endpoint.addressing_style},
        # The newer default sends and wants CRC trailers, which many S3-compatibles refuse.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        connect_timeout=options.connect_timeout_s,
        read_timeout=options.read_timeout_s,
        retries={"total_max_attempts": 1, "mode": "standard"},
        max_pool_connections=64,  # two jobs with 16 parts each, and uploads beside them
        tcp_keepalive=True,
        proxies={} if _is_loopback(endpoint.url) else None,
    )
    session = boto3.session.Session(
        aws_access_key_id=options.access_key_id,
        aws_secret_access_key=options.secret_access_key,
        region_name=endpoint.region,
    )
    return session.client("s3", endpoint_url=endpoint.url, config=config)


def _endpoint(options: StorageOptions) -> Endpoint:
    return resolve_endpoint(
        options.provider,
        options.endpoint_url,
        bucket=options.bucket,
        region=options.region,
        addressing_style=options.addressing_style,
        supabase_project_ref=options.supabase_project_ref,
    )


def _is_loopback(url: str | None) -> bool:
    return url is not None and urlsplit(url).hostname in {"127.0.0.1", "::1", "localhost"}


class Attempts:
    """Tries one request again until it works, cannot work, or the time is up.

    Args:
        key: for the errors; without the configured prefix.
        stop: ends the waiting between attempts at once.
        conditional: 404, 409 and 412 then mean that the condition failed.

    A write whose reply was lost is sent again too. A conditional one is then refused because of
    its own first success: who gets `PreconditionFailed` looks whether the object is its own.
    """

    def __init__(
        self,
        options: StorageOptions,
        key: str,
        *,
        stop: threading.Event | None = None,
        conditional: bool = False,
    ) -> None:
        self._options = options
        self._key = key
        self._stop = stop or threading.Event()
        self._conditional = conditional
        self.progressed()

    def run(self, request: Callable[[], T]) -> T:
        """The answer of `request`; raises a `StoreError` when there is none to be had."""
        while True:
            try:
                return request()
            except FAILURES as error:
                self.failed(error)
            except (ResponseParserError, ValueError) as error:
                # botocore's, where a body is no XML or a date is none: a page, or half an answer.
                self.failed(ReplyUnusable(f"it cannot be read: {type(error).__name__}"))

    def progressed(self) -> None:
        """Bytes have arrived since: what failed before counts no more."""
        self._failures = 0
        self._deadline = Deadline(self._options.retry_deadline_s)

    def failed(self, error: Exception) -> None:
        """Wait for the next attempt, or raise the `StoreError` that `error` means."""
        self._failures += 1
        reason = translate(error, self._key, conditional=self._conditional)
        if not _worth_another_try(error) or self._failures >= self._options.max_attempts:
            raise reason from error
        delay = min(_FIRST_BACKOFF_S * 2 ** (self._failures - 1), _MAX_BACKOFF_S)
        delay *= random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
        if delay >= self._deadline.remaining:
            raise reason from error
        log.info("storage retry", extra={"key": self._key, "reason": str(reason)})
        if self._stop.wait(delay):
            raise reason from error


def required(reply: Mapping[str, Any], name: str) -> Any:
    """A field that every store sends. Raises ReplyUnusable where it is not there."""
    value = reply.get(name)
    if value is None or value == "":
        raise ReplyUnusable(f"it has no {name}")
    return value


def having(name: str, request: Callable[[], Any]) -> Any:
    """The reply of a request, which must have a field. Raises ReplyUnusable."""
    reply = request()
    required(reply, name)
    return reply


def status_of(error: BaseException | None) -> int:
    """The HTTP status in a store's refusal, 0 when the store said nothing."""
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def code_of(error: BaseException | None) -> str:
    """The store's own word for a refusal (`NoSuchKey`), empty when it said nothing."""
    return str(error.response["Error"].get("Code", "")) if isinstance(error, ClientError) else ""


def _is_wordless(error: Exception) -> bool:
    """Whether a 404 says nothing of a key: a balancer's or a proxy's, as far as we can tell.

    A HEAD's answer has no body, so it cannot say more: who asks by HEAD asks again by GET.
    """
    if not isinstance(error, ClientError) or error.operation_name == "HeadObject":
        return False
    return status_of(error) == HTTPStatus.NOT_FOUND and code_of(error) in {"", "404"}


def _worth_another_try(error: Exception) -> bool:
    if _is_wordless(error):
        return True
    if not isinstance(error, ClientError):
        return not isinstance(error, BotoCoreError) or isinstance(error, _BROKEN_OFF)
    status, code = status_of(error), code_of(error)
    if code in _THROTTLED | _PASSING:
        return True
    server_failed = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    return server_failed and status != HTTPStatus.NOT_IMPLEMENTED


def translate(error: Exception, key: str, *, conditional: bool = False) -> StoreError:
    """What a failed request means to the caller.

    Only a store's own word makes an object missing: a missing bucket, a refused key or a timeout
    never does.
    """
    code, status = code_of(error), status_of(error)
    if code in _REMEDIES:
        return StoreRefused(key, _REMEDIES[code])
    if code in _THROTTLED or status == HTTPStatus.TOO_MANY_REQUESTS:
        return StoreThrottled(key)
    if _is_wordless(error):
        return StoreUnavailable(key, _unavailable(ReplyUnusable("404 without a word"), code))
    if conditional and status in _CONDITION_STATUSES:
        return PreconditionFailed(key)
    if conditional and status == HTTPStatus.NOT_IMPLEMENTED:
        return ConditionsUnsupported(key)
    missing = code in _MISSING or status == HTTPStatus.NOT_FOUND
    return ObjectMissing(key) if missing else StoreUnavailable(key, _unavailable(error, code))


def _unavailable(error: Exception, code: str) -> str:
    if isinstance(error, ReplyUnusable):
        return (
            f"What answers for the bucket is no store ({error}); check S3_ENDPOINT_URL and the "
            "proxies before it, or try again."
        )
    if code in {"PreconditionFailed", "412"}:
        return "The object was replaced while it was being read; try again."
    if isinstance(error, ClientError):
        said = code or status_of(error)
        return f"The bucket answers with an error ({said}); try again, or check the store."
    kind = type(error).__name__
    return f"The bucket does not answer ({kind}); check S3_ENDPOINT_URL, or try again."
