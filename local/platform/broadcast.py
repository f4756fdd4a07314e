"""A broadcast for long polls: everybody who waits looks again when it rings."""

import asyncio


class Broadcast:
    """Rung on every change; belongs to the event loop of whoever waits."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def announce(self) -> None:
        """Wake everybody who waits now."""
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def wait(self, timeout_s: float) -> None:
        """Return at the next announcement, or after `timeout_s`."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await asyncio.wait({future}, timeout=max(0.0, timeout_s))
        finally:
            self._waiting.discard(future)
