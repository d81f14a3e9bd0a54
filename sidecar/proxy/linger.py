"""
The last moments of a client's connection: send what is written, then wait for the client to end too.

Theory
------
Closing a socket with unread bytes in it sends a reset, which can destroy the answer on its way to the client (RFC 9112,
section 9.6). So a connection that ends while the client may still be sending closes its sending half first and then
reads and drops, bounded in time and size. This protocol takes the transport over from `Downstream` for that.

Tables
------
    what happens                         then
    bytes arrive                         dropped, at most 16 MiB of them
    end of file, or a reset              closed
    2 s                                  closed; as long as the client still takes what was written: again 2 s

What can go wrong
-----------------
* A client that never reads: what was written stays in memory (at most 64 KiB) until the next look, 2 s later.
"""

from __future__ import annotations

import asyncio
from typing import Final

from sidecar import clock
from sidecar.proxy.plane import Plane
from sidecar.proxy.transport import NOWHERE, READ_BUFFER

LINGER_S: Final = 2.0  # nginx lingering_timeout 5 s a read, 30 s at all
LINGER_BYTES: Final = 16 * 1024 * 1024


class Lingering(asyncio.BufferedProtocol):
    """One connection that is about to end."""

    __slots__ = ("_dropped", "_left", "_plane", "_timer", "_transport", "active_at")
    idle = False  # it makes room by itself

    def __init__(self, plane: Plane, transport: asyncio.Transport, *, client_ended: bool) -> None:
        self.active_at = clock.now()
        self._plane = plane
        self._transport = transport
        self._dropped = 0
        self._left = transport.get_write_buffer_size() + 1
        self._timer = plane.wheel.timer(self._expired)
        self._timer.set(self.active_at + LINGER_S)
        plane.connections.add(self)
        transport.set_protocol(self)
        if client_ended:
            transport.close()
        elif not transport.is_closing():
            transport.write_eof()
            transport.resume_reading()

    def __repr__(self) -> str:
        return f"<Lingering {self._dropped} bytes dropped>"

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002  one buffer serves all
        """Offer the shared buffer."""
        return READ_BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Drop what the client still sends."""
        self._dropped += nbytes
        if self._dropped > LINGER_BYTES:
            self.abort()

    def eof_received(self) -> None:
        """Learn that the client ended too: the event loop closes after this."""

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  why it ended changes nothing
        """Learn that the connection is gone."""
        self.abort()

    def leave(self, now: float) -> None:
        """Do nothing: it is leaving."""

    def look(self, now: float) -> None:
        """Do nothing: it is read from."""

    def abort(self) -> None:
        """End at once."""
        self._timer.stop()
        self._plane.left(self)
        transport, self._transport = self._transport, NOWHERE
        transport.abort()

    def _expired(self, now: float) -> None:
        left = self._transport.get_write_buffer_size()
        if 0 < left < self._left:
            self._left = left
            self._timer.set(now + LINGER_S)
        else:
            self.abort()
