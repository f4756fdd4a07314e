"""The gateway as a process of its own beside the emulated endpoint; local stack and tests."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Final, Self

import requests

from local.ports import free_ports
from local.stack import ROOT, Stack

_START_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 15.0


class GatewayFailed(Exception):
    """The gateway ended, or did not answer in time."""


class GatewayProcess:
    """One gateway; entering means that `/ping` has answered.

    Args:
        environment: its whole environment.
        port: on loopback; 0 takes a free one.
    """

    def __init__(self, environment: Mapping[str, str], *, port: int = 0) -> None:
        self.port = port or free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = {**environment, "PORT": str(self.port)}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process's id. It must be running."""
        if self._process is None:
            raise GatewayFailed("The gateway is not running.")
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers. Raises GatewayFailed."""
        argv = [sys.executable, "-m", "gateway"]
        self._process = subprocess.Popen(argv, cwd=ROOT, env=self._environment)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(requests.RequestException):
                if requests.get(f"{self.url}/ping", timeout=2).ok:
                    return
            time.sleep(0.1)
        self.stop()
        raise GatewayFailed("The gateway did not start; its reasons stand above.")

    def kill(self) -> None:
        """SIGKILL, as a crash would end it."""
        os.kill(self.pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait(_STOP_TIMEOUT_S)

    def stop(self) -> None:
        """End it; a second call does nothing."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def gateway_environment(stack: Stack, endpoint_url: str, **changes: str) -> dict[str, str]:
    """The environment of a gateway in front of an emulated endpoint.

    Args:
        stack: whose bucket.
        endpoint_url: with the endpoint's id at its end, as `Platform.url`.
        changes: further settings.
    """
    base, _, endpoint_id = endpoint_url.rpartition("/")
    settings = {
        "RUNPOD_BASE_URL": base,
        "RUNPOD_ENDPOINT_ID": endpoint_id,
        "RUNPOD_API_KEY": "local-platform-key",
    }
    return {**stack.environment(), **settings, **changes}
