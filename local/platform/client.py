"""A customer of the endpoint: submit, ask, wait."""

import time
from typing import Any, Final

import requests

FINAL: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})


class EndpointClient:
    """Blocking calls to one endpoint's operations; `url` ends with the endpoint's id."""

    def __init__(self, url: str, *, timeout_s: float = 100.0) -> None:
        self.url = url
        self._timeout_s = timeout_s

    def post(self, path: str, document: Any = None) -> dict[str, Any]:
        """POST and read the answer. Raises requests.HTTPError with the platform's own message."""
        return self._read(
            requests.post(f"{self.url}/{path}", json=document, timeout=self._timeout_s)
        )

    def get(self, path: str) -> dict[str, Any]:
        """GET and read the answer. Raises requests.HTTPError."""
        return self._read(requests.get(f"{self.url}/{path}", timeout=self._timeout_s))

    @staticmethod
    def _read(response: requests.Response) -> dict[str, Any]:
        if not response.ok:
            message = f"{response.status_code}: {response.text[:500]}"
            raise requests.HTTPError(message, response=response)
        document: dict[str, Any] = response.json()
        return document

    def run(self, job_input: Any, **fields: Any) -> str:
        """Submit a job; answers its id. `fields` are webhook, policy, s3Config."""
        return str(self.post("run", {"input": job_input, **fields})["id"])

    def status(self, job_id: str) -> dict[str, Any]:
        """The job as it stands."""
        return self.get(f"status/{job_id}")

    def cancel(self, job_id: str) -> dict[str, Any]:
        """End a job."""
        return self.post(f"cancel/{job_id}")

    def wait(
        self, job_id: str, *, timeout_s: float = 60.0, until: frozenset[str] = FINAL
    ) -> dict[str, Any]:
        """Poll until the job is in one of the states. Raises TimeoutError with the last status."""
        deadline = time.monotonic() + timeout_s
        while (status := self.status(job_id))["status"] not in until:
            if time.monotonic() > deadline:
                raise TimeoutError(f"job is not {sorted(until)} after {timeout_s} s: {status}")
            time.sleep(0.05)
        return status
