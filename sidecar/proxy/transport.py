"""
What both sides of the proxy share of the event loop: one read buffer, and a transport that is nowhere.

One buffer serves all connections of a worker: the event loop fills it and at once calls the protocol, which copies out
what it needs before it returns (libuv allocates and reads for each call anew, `uv_alloc_cb`). So a connection costs
no buffer while it is idle, and no read is larger than 64 KiB (uvloop's own is 256,000 bytes), which is the bound of
what one connection holds for one direction.
"""

from __future__ import annotations

import asyncio
import select
import socket
import struct
from typing import Final

READ_BYTES: Final = 64 * 1024
READ_BUFFER: Final = bytearray(READ_BYTES)
READ_VIEW: Final = memoryview(READ_BUFFER)
_RESET: Final = struct.pack("ii", 1, 0)
_GONE: Final = select.POLLRDHUP | select.POLLERR | select.POLLHUP


class Nowhere(asyncio.Transport):
    """The transport before the first and after the last: takes everything, sends nothing, is closed."""

    def __repr__(self) -> str:
        return "<Nowhere>"

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Drop *data*."""

    def is_closing(self) -> bool:
        """Say yes."""
        return True

    def close(self) -> None:
        """Do nothing."""

    def abort(self) -> None:
        """Do nothing."""

    def write_eof(self) -> None:
        """Do nothing."""

    def pause_reading(self) -> None:
        """Do nothing."""

    def resume_reading(self) -> None:
        """Do nothing."""

    def get_write_buffer_size(self) -> int:
        """Say that nothing waits."""
        return 0


NOWHERE: Final = Nowhere()


def has_left(transport: asyncio.Transport) -> bool:
    """Ask the kernel whether the other side has ended; for sockets that are not read from just now."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), _GONE)
    return bool(poll.poll(0))


def reset_on_close(transport: asyncio.Transport) -> None:
    """Let the end of the connection be a reset, so that nobody takes it for the end of a message."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
