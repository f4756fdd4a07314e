"""Customers of the soak: each submits a job, sometimes cancels it, waits, and wants its outputs."""

import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final

import requests

from local.platform.client import EndpointClient
from local.soak.jobs import JobMaker

CLIENTS: Final = 8
CANCELLED_SHARE: Final = 0.08
LAST_WAIT_S: Final = 300.0


@dataclass(slots=True)
class Order:
    """One accepted job and how it ended."""

    job_id: str
    job: dict[str, Any]
    cancelled: bool = False
    status: dict[str, Any] = field(default_factory=dict)


class LoadGenerator:
    """Keep the queue filled from several threads until told to stop.

    Args:
        client: the endpoint.
        webhook: where ends are announced.
        seed: of what is ordered and cancelled.
    """

    def __init__(self, client: EndpointClient, webhook: str, seed: int) -> None:
        self.orders: list[Order] = []
        self.complaints: list[str] = []
        self._client = client
        self._webhook = webhook
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=self._submit_jobs, args=(seed * 1000 + number,), name="load")
            for number in range(CLIENTS)
        ]

    def open(self) -> None:
        """Begin to order."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Order nothing more and wait for what is on its way."""
        self._closing.set()
        for thread in self._threads:
            thread.join(LAST_WAIT_S + 10)

    def _submit_jobs(self, seed: int) -> None:
        dice, maker = random.Random(seed), JobMaker(seed)  # noqa: S311 - reproducible, not secret
        while not self._closing.is_set():
            try:
                self._order(maker.draw(), dice)
            except (requests.RequestException, TimeoutError) as error:
                self.complaints.append(f"{type(error).__name__}: {error}")

    def _order(self, job: dict[str, Any], dice: random.Random) -> None:
        order = Order(self._client.run(job, webhook=self._webhook), job)
        self.orders.append(order)
        if dice.random() < CANCELLED_SHARE:
            time.sleep(dice.uniform(0, 3))
            order.cancelled = True
            self._client.cancel(order.job_id)
        order.status = self._client.wait(order.job_id, timeout_s=LAST_WAIT_S)
