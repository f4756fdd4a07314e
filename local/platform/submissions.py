"""Reading the body of `/run` and `/runsync` as strictly as the platform documents it."""

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, NoReturn

from local.platform.jobs import Policy, Submission

MAX_RUN_BYTES: Final = 10 * 2**20
MAX_RUNSYNC_BYTES: Final = 20 * 2**20
MIN_EXECUTION_TIMEOUT_MS: Final = 5_000
MIN_TTL_MS: Final = 10_000
MAX_LIFE_MS: Final = 7 * 86_400_000
DEFAULT_WAIT_MS: Final = 90_000
WAIT_MS: Final = (1_000, 300_000)


class RequestRefused(Exception):
    """A request that the platform does not accept; the message goes into the body's `error`."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


def body_limit(*, synchronous: bool) -> int:
    """Bytes that a submission, and its result, may have."""
    return MAX_RUNSYNC_BYTES if synchronous else MAX_RUN_BYTES


@dataclass(frozen=True, slots=True)
class SubmissionReader:
    """Turns bodies into submissions; `default` is the endpoint's own policy."""

    default: Policy

    def read(self, body: bytes, *, synchronous: bool) -> Submission:
        """Check one body.

        Raises:
            RequestRefused: 400 for what is not a job, 413 for what is too large.
        """
        limit = body_limit(synchronous=synchronous)
        if len(body) > limit:
            message = f"exceeded max body size of {limit >> 20}MiB"
            raise RequestRefused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)
        document = read_json(body)
        if not isinstance(document, dict) or document.get("input") is None:
            raise RequestRefused(HTTPStatus.BAD_REQUEST, "input is required")
        webhook = document.get("webhook")
        if webhook is not None and not _is_web_address(webhook):
            raise RequestRefused(HTTPStatus.BAD_REQUEST, "webhook must be an http or https URL")
        return Submission(
            input=document["input"],
            policy=self._policy(document.get("policy") or {}),
            webhook=webhook,
            s3_config=document.get("s3Config"),
            synchronous=synchronous,
        )

    def _policy(self, policy: Any) -> Policy:
        if not isinstance(policy, dict):
            raise RequestRefused(HTTPStatus.BAD_REQUEST, "policy must be an object")
        timeout = _milliseconds(policy, "executionTimeout", MIN_EXECUTION_TIMEOUT_MS)
        ttl = _milliseconds(policy, "ttl", MIN_TTL_MS)
        return Policy(
            execution_timeout_s=self.default.execution_timeout_s if timeout is None else timeout,
            ttl_s=self.default.ttl_s if ttl is None else ttl,
        )


def read_json(body: bytes) -> Any:
    """Parse JSON as the platform would: no NaN, no bottomless nesting. Raises RequestRefused."""
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise RequestRefused(HTTPStatus.BAD_REQUEST, "body is not valid JSON") from None


def wait_seconds(wait_ms: str | None) -> float:
    """How long `/runsync?wait=` stays open, kept within the documented bounds."""
    if wait_ms is None:
        return DEFAULT_WAIT_MS / 1000
    if not wait_ms.isascii() or not wait_ms.isdigit():
        raise RequestRefused(HTTPStatus.BAD_REQUEST, "wait must be a number of milliseconds")
    low, high = WAIT_MS
    return min(max(int(wait_ms[:10]), low), high) / 1000


def _milliseconds(policy: dict[str, Any], name: str, minimum: int) -> float | None:
    value = policy.get(name)
    if value is None:
        return None
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or not minimum <= value <= MAX_LIFE_MS:
        message = f"policy.{name} must be from {minimum} to {MAX_LIFE_MS} milliseconds"
        raise RequestRefused(HTTPStatus.BAD_REQUEST, message)
    return float(value) / 1000


def _is_web_address(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("http://", "https://"))


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")
