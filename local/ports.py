"""Ports of loopback that are free."""

import contextlib
import socket


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at now, each another one; somebody may be quicker to take them."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
