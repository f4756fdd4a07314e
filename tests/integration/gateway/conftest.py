"""The whole local stack with a real gateway process in front of it."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from local.gateway import GatewayProcess, gateway_environment
from local.platform.running import RunningPlatform, running
from local.platform.server import PlatformOptions
from local.serve import worker_pods
from local.stack import Stack

IMAGE = {
    "prompt": "portrait of {trigger}",
    "character_id": "demo",
    "steps": 2,
    "width": 256,
    "height": 256,
}


@dataclasses.dataclass
class GatewayHarness:
    """A stack, its platform and one gateway."""

    stack: Stack
    platform: RunningPlatform
    gateway: GatewayProcess

    def request(self, method: str, path: str, **given: Any) -> requests.Response:
        return requests.request(method, f"{self.gateway.url}{path}", timeout=60, **given)

    def get(self, path: str) -> Any:
        reply = self.request("GET", path)
        assert reply.ok, reply.text
        return reply.json()

    def post(self, path: str, body: Any = None, **headers: str) -> requests.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.request("POST", path, json=body, headers=named)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    with Stack() as opened:
        opened.register_demo()
        yield opened


@pytest.fixture(scope="session")
def endpoint(stack: Stack) -> Iterator[RunningPlatform]:
    with running(PlatformOptions(pods=worker_pods(stack), workers=2)) as platform:
        yield platform


@pytest.fixture(scope="session")
def api(stack: Stack, endpoint: RunningPlatform) -> Iterator[GatewayHarness]:
    environment = gateway_environment(
        stack,
        endpoint.client.url,
        WEBHOOK_SECRET="whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ=",
        WEBHOOK_PRIVATE_HOSTS="127.0.0.1",
        RATE_LIMIT_PER_MINUTE="100000",
    )
    with GatewayProcess(environment) as gateway:
        yield GatewayHarness(stack, endpoint, gateway)
