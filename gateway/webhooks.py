"""Telling whoever asked for it that a job ended: by the Standard Webhooks rules.

Signed (`webhook-id`, `webhook-timestamp`, `webhook-signature`), tried again for a day, each attempt
written into the record before it is made, so that of any number of gateways one makes it.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import ipaddress
import json
import logging
import socket
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx

from gateway.problems import Invalid
from gateway.settings import GatewaySettings
from lora_registry.job_records import Delivery, JobRecord, JobRecords
from worker.sources.public_address import NotFetched, Target, is_public, parse_url

log = logging.getLogger(__name__)

_TIMEOUT_S: Final = 15.0
# Standard Webhooks' own schedule, in seconds behind the attempt before; the last is a day later.
BACKOFF_S: Final = (5, 300, 1800, 7200, 18_000, 36_000, 50_400)


class Webhooks:
    """Deliveries; belongs to the event loop."""

    def __init__(self, settings: GatewaySettings, records: JobRecords) -> None:
        secret = settings.webhook_secret
        self._secret = signing_key(secret.get_secret_value()) if secret else None
        self._private_hosts = frozenset(settings.webhook_private_hosts)
        self._records = records

    def check(self, url: str) -> str:
        """The URL, if it can be told anything. Raises Invalid."""
        if self._secret is None:
            raise Invalid("webhook: needs WEBHOOK_SECRET at this gateway.", field="webhook")
        try:
            target = parse_url(url)
        except NotFetched as error:
            raise Invalid(f"webhook: {error}.", field="webhook") from error
        literal = target.literal
        if literal and not is_public(literal) and target.host not in self._private_hosts:
            raise Invalid("webhook: must be a public address.", field="webhook")
        return url

    async def deliver(self, record: JobRecord, body: dict[str, Any]) -> JobRecord:
        """Make the attempt that is due, if no other gateway does; the record as it then stands."""
        webhook, now = record.webhook, datetime.now(UTC)
        if webhook is None or webhook.next_at is None or webhook.next_at > now:
            return record
        number = len(webhook.deliveries)
        pause = BACKOFF_S[number] if number < len(BACKOFF_S) else None
        attempt = Delivery(at=now)

        def begun(current: JobRecord) -> JobRecord:
            if current.webhook != webhook:
                return current  # another gateway makes this attempt
            later = now + timedelta(seconds=pause) if pause else None
            update = {"deliveries": (*webhook.deliveries, attempt), "next_at": later}
            return current.model_copy(update={"webhook": webhook.model_copy(update=update)})

        mine = await asyncio.to_thread(self._records.change, record.id, begun)
        if mine.webhook is None or attempt not in mine.webhook.deliveries:
            return mine
        done = await self._post(webhook.url, record.id, body, attempt)

        def ended(current: JobRecord) -> JobRecord:
            if current.webhook is None:
                return current
            log_lines = tuple(done if d.at == now else d for d in current.webhook.deliveries)
            update: dict[str, Any] = {"deliveries": log_lines}
            if done.problem is None:
                update |= {"delivered": True, "next_at": None}
            return current.model_copy(update={"webhook": current.webhook.model_copy(update=update)})

        return await asyncio.to_thread(self._records.change, record.id, ended)

    async def _post(
        self, url: str, job_id: str, body: dict[str, Any], attempt: Delivery
    ) -> Delivery:
        content = json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
        stamp = str(int(attempt.at.timestamp()))
        headers = {
            "content-type": "application/json",
            "webhook-id": job_id,
            "webhook-timestamp": stamp,
            "webhook-signature": signature(self._secret or b"", job_id, stamp, content),
        }
        try:
            status = await self._send(parse_url(url), content, headers)
        except (httpx.HTTPError, OSError, NotFetched) as error:
            reason = str(error) if isinstance(error, NotFetched) else type(error).__name__
            return attempt.model_copy(update={"problem": reason[:200]})
        told = httpx.codes.is_success(status)
        update = {"status": status, "problem": None if told else f"answered {status}"}
        return attempt.model_copy(update=update)

    async def _send(self, target: Target, content: bytes, headers: dict[str, str]) -> int:
        """POST to an address that was judged, not to whatever the name says a moment later."""
        address = await self._address(target)
        host = f"[{address}]" if ":" in address else address
        async with httpx.AsyncClient(
            timeout=_TIMEOUT_S, follow_redirects=False, trust_env=False
        ) as client:
            reply = await client.post(
                f"{target.scheme}://{host}:{target.port}{target.path}",
                content=content,
                headers={**headers, "host": target.netloc},
                extensions={"sni_hostname": target.host},
            )
            return reply.status_code

    async def _address(self, target: Target) -> str:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        addresses = [ipaddress.ip_address(entry[4][0]) for entry in found]
        trusted = target.host in self._private_hosts
        if not addresses or not (trusted or all(map(is_public, addresses))):
            raise NotFetched("must have a public address")
        return str(addresses[0])


def signing_key(secret: str) -> bytes:
    """The key in a `whsec_` secret (base64), or the bytes of any other text."""
    if not secret.startswith("whsec_"):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        return secret.encode()


def signature(key: bytes, message_id: str, stamp: str, content: bytes) -> str:
    """The `webhook-signature` of a message."""
    signed = b".".join((message_id.encode(), stamp.encode(), content))
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
