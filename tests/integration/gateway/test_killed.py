"""A gateway that dies at any of its requests loses no job and doubles none."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from local.faults import FaultProxy, Rule
from local.gateway import GatewayProcess, gateway_environment
from local.platform.running import RunningPlatform
from local.stack import Stack
from lora_registry.job_records import JobNotFound, JobRecords
from tests.integration.gateway.conftest import IMAGE, GatewayHarness
from worker.storage import ObjectStore

pytestmark = pytest.mark.process


class Trigger:
    """Counts requests once armed; kills at the one it was armed for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left = 0
        self._kill: Callable[[], None] = lambda: None
        self.fired = False

    def arm(self, number: int, kill: Callable[[], None]) -> None:
        with self._lock:
            self._left, self._kill, self.fired = number, kill, False

    def disarm(self) -> bool:
        """Count no more; whether it fired."""
        with self._lock:
            self._left = 0
            return self.fired

    def pull(self) -> bool:
        with self._lock:
            self._left -= 1
            if self._left != 0:
                return False
            self.fired = True
            self._kill()
        return True


class KillingProxy(FaultProxy):
    """Forwards; at the trigger the gateway dies first, and the request arrives all the same or not.

    `arrives` decides: then the request took effect and only its reply is lost.
    """

    def __init__(self, upstream_url: str, trigger: Trigger) -> None:
        super().__init__(upstream_url)
        self._trigger = trigger
        self.arrives = True

    def rule_for(self, method: str, path: str) -> Rule | None:
        rule = super().rule_for(method, path)
        if self._trigger.pull() and not self.arrives:
            return Rule(fault="reset")
        return rule


@pytest.fixture
def killed(
    stack: Stack, endpoint: RunningPlatform
) -> Iterator[tuple[GatewayHarness, Trigger, list[KillingProxy]]]:
    trigger = Trigger()
    parts = urlsplit(endpoint.client.url)
    with ExitStack() as held:
        s3 = held.enter_context(KillingProxy(stack.s3.endpoint_url, trigger))
        runpod = held.enter_context(KillingProxy(f"http://{parts.netloc}", trigger))
        environment = gateway_environment(
            stack,
            f"{runpod.url}{parts.path}",
            S3_ENDPOINT_URL=s3.url,
            RESUBMIT_AFTER_S="1",
            RATE_LIMIT_PER_MINUTE="100000",
        )
        gateway = held.enter_context(GatewayProcess(environment))
        yield GatewayHarness(stack, endpoint, gateway), trigger, [s3, runpod]


@pytest.mark.parametrize("arrives", [True, False])
def test_killed_at_every_request_a_job_is_made_once(
    killed: tuple[GatewayHarness, Trigger, list[KillingProxy]], *, arrives: bool
) -> None:
    api, trigger, proxies = killed
    for proxy in proxies:
        proxy.arrives = arrives
    for number in range(1, 50):
        key = f"killed-{arrives}-{number}"
        before = made(api.stack)
        trigger.arm(number, api.gateway.kill)
        try:
            api.post("/generate-image", IMAGE, Idempotency_Key=key)
        except requests.ConnectionError:
            assert trigger.fired
        fired = trigger.disarm()
        if fired:
            api.gateway.start()
        first = retried(api, key)
        second = retried(api, key)
        assert first["state"] == "completed", (number, first)
        assert first["id"] == second["id"]
        assert first["result"]["job_id"] == second["result"]["job_id"]
        settled(api, first["id"])
        assert len(made(api.stack) - before) == 1, number
        if not fired:
            break
    assert 5 < number < 49


def test_nobody_asks_again_and_the_job_is_made_all_the_same(
    killed: tuple[GatewayHarness, Trigger, list[KillingProxy]],
) -> None:
    """Killed as it submits: another start's sweep finds the open job."""
    api, trigger, _ = killed
    before = made(api.stack)
    for number in (3, 5):
        trigger.arm(number, api.gateway.kill)
        with pytest.raises(requests.ConnectionError):
            api.post("/generate-image", IMAGE, Idempotency_Key=f"left-{number}")
        trigger.disarm()
        api.gateway.start()
    with ObjectStore(api.stack.s3.options()) as store:
        records = JobRecords(store)
        for job_id, _ in list(records.open_ids()):
            with contextlib.suppress(JobNotFound):  # killed before it was accepted
                records.get(job_id)
                settled(api, job_id)
                assert records.get(job_id).state == "completed"
    assert 1 <= len(made(api.stack) - before) <= 2


def retried(api: GatewayHarness, key: str) -> dict[str, Any]:
    reply = api.post("/generate-image", IMAGE, Idempotency_Key=key, Prefer="wait=30")
    assert reply.ok, reply.text
    document: dict[str, Any] = reply.json()
    return document


def settled(api: GatewayHarness, job_id: str) -> None:
    """Wait until the job's open marker is gone: whatever was sent for it has ended."""
    deadline = threading.Event()
    with ObjectStore(api.stack.s3.options()) as store:
        records = JobRecords(store)
        for _ in range(120):
            if job_id not in {each for each, _ in records.open_ids()}:
                break
            deadline.wait(0.5)
        else:
            raise AssertionError(f"{job_id} is not settled")
        for platform_id in records.get(job_id).platform_ids:
            api.platform.client.wait(platform_id, timeout_s=30)


def made(stack: Stack) -> set[str]:
    """The platform jobs that left outputs."""
    with ObjectStore(stack.s3.options()) as store:
        return {info.key.split("/")[-2] for info in store.list("characters/demo/outputs/")}
