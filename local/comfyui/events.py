"""Messages to websocket clients: one ordered stream, each to the client that it concerns."""

import asyncio
import json
import time
import uuid
from typing import Any

from aiohttp import WSMsgType, web

Message = dict[str, Any]


def timestamp_ms() -> int:
    """Now, as ComfyUI stamps its messages: milliseconds since 1970."""
    return int(time.time() * 1000)


class Events:
    """The open sockets by client id; messages come from any thread and leave in order.

    A client that is away misses what is sent meanwhile, as with ComfyUI: history is the truth.
    """

    def __init__(self) -> None:
        self._sockets: dict[str, web.WebSocketResponse] = {}
        self._pending: asyncio.Queue[tuple[str, Message, str | None]] = asyncio.Queue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: tuple[str, str] | None = None

    async def deliver(self) -> None:
        """Send what was published, for ever."""
        self._loop = asyncio.get_running_loop()
        while True:
            kind, data, client_id = await self._pending.get()
            await self._send(kind, data, client_id)

    def publish(self, kind: str, data: Message, client_id: str | None = None) -> None:
        """Queue a message for one client, or for all of them; from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._pending.put_nowait, (kind, data, client_id))

    def running(self, client_id: str | None, node_id: str | None) -> None:
        """Remember whose node runs: a client that comes back is told of it first."""
        self._running = (client_id, node_id) if client_id and node_id else None

    def drop(self, client_id: str) -> None:
        """Cut a client's connection without a closing frame; from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._cut, client_id)

    async def serve(
        self, request: web.Request, greeting: Message, features: Message
    ) -> web.WebSocketResponse:
        """Hold one client's socket until it leaves; its first message may ask for the features."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        client_id = request.query.get("clientId", "") or uuid.uuid4().hex
        self._sockets[client_id] = socket
        try:
            await socket.send_json({"type": "status", "data": {**greeting, "sid": client_id}})
            if self._running is not None and self._running[0] == client_id:
                data = {"node": self._running[1]}
                await socket.send_json({"type": "executing", "data": data})
            if await _asks_for_features(socket):
                await socket.send_json({"type": "feature_flags", "data": features})
            async for _ in socket:  # nothing else that a client says matters here
                pass
        finally:
            if self._sockets.get(client_id) is socket:
                del self._sockets[client_id]
        return socket

    async def _send(self, kind: str, data: Message, client_id: str | None) -> None:
        chosen = list(self._sockets) if client_id is None else [client_id]
        for socket in filter(None, map(self._sockets.get, chosen)):
            try:
                await socket.send_json({"type": kind, "data": data})
            except (ConnectionError, RuntimeError):  # it left in this moment
                continue

    def _cut(self, client_id: str) -> None:
        socket = self._sockets.pop(client_id, None)
        transport = socket.get_extra_info("socket") if socket is not None else None
        if transport is not None:
            transport.shutdown(2)


async def _asks_for_features(socket: web.WebSocketResponse) -> bool:
    first = await socket.receive()
    if first.type is not WSMsgType.TEXT:
        return False
    try:
        return bool(json.loads(first.data).get("type") == "feature_flags")
    except (AttributeError, ValueError):
        return False
