"""A port on which nobody listens, and which nobody else can get meanwhile."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """
    Hold a port of 127.0.0.1 until the block ends: connections to it are refused, the kernel gives it to nobody.

    `Upstream(port=…)` may listen on it within the block, and leave it again: both sockets allow the address to be used
    again, and only a listening one would stand in the way.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]
