"""What the gateway refuses, and how every refusal is said: RFC 9457 with our code and sentence."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, ClassVar, Final

from errors import CodedError, ErrorCode

MEDIA_TYPE: Final = "application/problem+json"


class GatewayError(CodedError):
    """Base of what the gateway itself refuses; `headers` go with the answer."""

    headers: Mapping[str, str] = {}


class Unauthorized(GatewayError):
    """No key, a wrong one, or a caller from elsewhere at a gateway without keys."""

    code: ClassVar[ErrorCode] = ErrorCode.UNAUTHORIZED


class RateLimited(GatewayError):
    """More requests than the key, or the address, may make."""

    code: ClassVar[ErrorCode] = ErrorCode.RATE_LIMITED

    def __init__(self, wait_s: float) -> None:
        seconds = max(1, round(wait_s + 0.5))
        super().__init__(f"Too many requests; try again in {seconds} s.")
        self.headers = {"Retry-After": str(seconds)}


class TooLarge(GatewayError):
    """A body over its limit, refused before it is read."""

    code: ClassVar[ErrorCode] = ErrorCode.TOO_LARGE

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"The body is larger than {limit} bytes; upload files with POST /uploads and name "
            "them by their key."
        )


class Invalid(GatewayError):
    """A request that is none."""

    code: ClassVar[ErrorCode] = ErrorCode.INVALID_INPUT


class Conflict(GatewayError):
    """An Idempotency-Key that was used for something else."""

    code: ClassVar[ErrorCode] = ErrorCode.CONFLICT


class EndpointUnavailable(GatewayError):
    """RunPod, or the endpoint, cannot take the job; the message says why and what to do."""

    code: ClassVar[ErrorCode] = ErrorCode.ENDPOINT_UNAVAILABLE

    def __init__(
        self, message: str, *, details: Mapping[str, Any] | None = None, sent: bool = False
    ) -> None:
        super().__init__(message, details=details)
        self.sent = sent
        """Whether the request may have reached RunPod all the same."""


_STATUS: Final[Mapping[ErrorCode, HTTPStatus]] = {
    ErrorCode.INVALID_INPUT: HTTPStatus.UNPROCESSABLE_ENTITY,
    ErrorCode.CHARACTER_NOT_FOUND: HTTPStatus.NOT_FOUND,
    ErrorCode.VERSION_NOT_FOUND: HTTPStatus.NOT_FOUND,
    ErrorCode.WORKFLOW_NOT_FOUND: HTTPStatus.NOT_FOUND,
    ErrorCode.JOB_NOT_FOUND: HTTPStatus.NOT_FOUND,
    ErrorCode.SOURCE_FORBIDDEN: HTTPStatus.UNPROCESSABLE_ENTITY,
    ErrorCode.STORAGE_UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    ErrorCode.STORAGE_REFUSED: HTTPStatus.BAD_GATEWAY,
    ErrorCode.ENDPOINT_UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    ErrorCode.CONFLICT: HTTPStatus.CONFLICT,
    ErrorCode.UNAUTHORIZED: HTTPStatus.UNAUTHORIZED,
    ErrorCode.RATE_LIMITED: HTTPStatus.TOO_MANY_REQUESTS,
    ErrorCode.TOO_LARGE: HTTPStatus.CONTENT_TOO_LARGE
    if hasattr(HTTPStatus, "CONTENT_TOO_LARGE")
    else HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
}


def status_of(error: CodedError) -> HTTPStatus:
    """The HTTP status of an error."""
    return _STATUS.get(error.code, HTTPStatus.INTERNAL_SERVER_ERROR)


def problem(error: CodedError) -> dict[str, Any]:
    """The problem document of an error."""
    status = status_of(error)
    document = {
        "type": f"urn:runpod-characters:{error.code.value}",
        "title": error.code.value.replace("_", " "),
        "status": status.value,
        "detail": str(error),
        "code": error.code.value,
        "retryable": error.retryable,
        "field": error.field,
        "details": dict(error.details) or None,
    }
    return {name: value for name, value in document.items() if value is not None}


def plain_problem(status: int, detail: str) -> dict[str, Any]:
    """The problem document of what the HTTP framework refuses: unknown path, wrong method."""
    code = "internal" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_input"
    return {
        "type": f"urn:runpod-characters:{code}",
        "title": HTTPStatus(status).phrase.lower(),
        "status": status,
        "detail": detail,
        "code": code,
        "retryable": False,
    }
