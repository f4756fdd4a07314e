"""Messages to websocket clients: one ordered stream, sent to the client that asked for the prompt."""

import asyncio
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

    def drop(self, client_id: str) -> None:
        """Cut a client's connection without a closing frame; from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._cut, client_id)

    async def serve(self, request: web.Request, greeting: Message) -> web.WebSocketResponse:
        """Hold one client's socket until it leaves."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        client_id = request.query.get("clientId", "") or uuid.uuid4().hex
        self._sockets[client_id] = socket
        try:
            await socket.send_json({"type": "status", "data": {**greeting, "sid": client_id}})
            async for message in socket:
                if message.type is WSMsgType.ERROR:
                    break
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
