"""RunPod's endpoint API as the gateway uses it: run, status, cancel, health, and plain words."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import httpx

from gateway.problems import EndpointUnavailable

ENDED: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})
_TIMEOUT_S: Final = 20.0
_REMEDIES: Final = {
    HTTPStatus.UNAUTHORIZED: "RunPod refuses the API key; check RUNPOD_API_KEY.",
    HTTPStatus.FORBIDDEN: "The RunPod API key may not use this endpoint; check its permissions.",
    HTTPStatus.PAYMENT_REQUIRED: "The RunPod account has no credit left; add some to go on.",
    HTTPStatus.NOT_FOUND: "RunPod knows no such endpoint; check RUNPOD_ENDPOINT_ID.",
    HTTPStatus.TOO_MANY_REQUESTS: "RunPod's limit of requests is reached; try again in a moment.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (
        "The job is larger than RunPod takes (10 MB); upload files and name them by key."
    ),
}


@dataclass(frozen=True, slots=True)
class PlatformJob:
    """A job as RunPod sees it; `status` is None when RunPod knows it no more."""

    id: str
    status: str | None
    output: Any = None
    error: Any = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status is None or self.status in ENDED

    @property
    def progress(self) -> dict[str, Any] | None:
        """The latest progress while it runs."""
        running = self.status == "IN_PROGRESS" and isinstance(self.output, dict)
        return self.output if running and "stage" in self.output else None

    def answer(self) -> dict[str, Any] | None:
        """The job's result or error as the worker gave it; None when there is none to be had."""
        facts = self.output if isinstance(self.output, dict) else {}
        if self.status == "COMPLETED":
            return facts or None
        if self.status != "FAILED":
            return None
        words = self.error if isinstance(self.error, str) else "The job failed."
        if words.lstrip().startswith("{"):  # the SDK's own report of a crash: never for a caller
            words = "The worker failed without saying why; its log on RunPod has more."
        return {"code": "internal", "retryable": False, **facts, "error": words[:2000]}


class Endpoint:
    """The endpoints of one account; belongs to the event loop.

    Args:
        base_url: of RunPod's endpoint API, without the endpoint's id.
        api_key: sent as a bearer token.
    """

    def __init__(self, base_url: str, api_key: str) -> None:
        self._client = httpx.AsyncClient(
            base_url=base_url.rstrip("/") + "/",
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=httpx.Timeout(_TIMEOUT_S, connect=5.0),
            limits=httpx.Limits(max_connections=128, max_keepalive_connections=64),
            trust_env=not base_url.startswith("http://127.0.0.1"),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def run(
        self, endpoint_id: str, job_input: Mapping[str, Any], **fields: Any
    ) -> PlatformJob:
        """Submit a job. Raises EndpointUnavailable."""
        body = {"input": job_input, **fields}
        document = self._read(await self._send("POST", f"{endpoint_id}/run", body))
        return _platform_job(document)

    async def status(self, endpoint_id: str, platform_id: str) -> PlatformJob:
        """The job as it stands. Raises EndpointUnavailable."""
        reply = await self._send("GET", f"{endpoint_id}/status/{platform_id}")
        if reply.status_code == HTTPStatus.NOT_FOUND:
            return PlatformJob(platform_id, None)
        return _platform_job(self._read(reply))

    async def cancel(self, endpoint_id: str, platform_id: str) -> None:
        """End a job; one that RunPod knows no more is ended. Raises EndpointUnavailable."""
        reply = await self._send("POST", f"{endpoint_id}/cancel/{platform_id}")
        if reply.status_code != HTTPStatus.NOT_FOUND:
            self._read(reply)

    async def health(self, endpoint_id: str) -> dict[str, Any]:
        """Jobs and workers by state. Raises EndpointUnavailable."""
        return self._read(await self._send("GET", f"{endpoint_id}/health"))

    async def _send(self, method: str, path: str, body: Any = None) -> httpx.Response:
        try:
            return await self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise EndpointUnavailable(
                "RunPod does not answer; try again in a moment.",
                details={"reason": type(error).__name__},
                sent=not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout),
            ) from error

    @staticmethod
    def _read(reply: httpx.Response) -> dict[str, Any]:
        if not reply.is_success:
            status = reply.status_code
            fallback = f"RunPod refused the request with status {status}; try again in a moment."
            words = _REMEDIES.get(HTTPStatus(status), fallback) if status < 600 else fallback  # noqa: PLR2004 - HTTP has no more
            raise EndpointUnavailable(words, details={"status": status})
        try:
            document = reply.json()
        except json.JSONDecodeError as error:
            raise EndpointUnavailable("RunPod's answer was not JSON; try again.") from error
        if not isinstance(document, dict):
            raise EndpointUnavailable("RunPod's answer was not an object; try again.")
        return document


def _platform_job(document: Mapping[str, Any]) -> PlatformJob:
    return PlatformJob(
        str(document.get("id", "")),
        str(document.get("status", "IN_QUEUE")),
        document.get("output"),
        document.get("error"),
    )


def plain_words(health: Mapping[str, Any]) -> str | None:
    """Why a queued job does not start, of an endpoint's health; None when there is no reason."""
    workers = {name: int(count) for name, count in (health.get("workers") or {}).items()}
    at_work = sum(workers.get(name, 0) for name in ("ready", "idle", "running", "initializing"))
    if at_work:
        return "A worker is starting." if not at_work - workers.get("initializing", 0) else None
    if workers.get("throttled"):
        return "RunPod has no free GPU of the kinds this endpoint may use; the job waits for one."
    if workers.get("unhealthy"):
        return "The endpoint's workers fail as they start; their log on RunPod says why."
    return (
        "The endpoint has no worker. It may be about to start one; if this lasts, raise its max "
        "workers on RunPod (it sets them to 0 after 7 days without a request)."
    )
