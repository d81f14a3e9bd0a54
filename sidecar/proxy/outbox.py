"""
Small whole messages leave together at the end of the event loop's turn, not one by one within it.

Theory
------
A write to a socket ends in the other process: the kernel delivers the segment on the loopback device or to the network
card's queue at once and wakes the reader. When the reader sleeps, waking it costs more than the segment (an
inter-processor interrupt: a sixth of the worker's whole time under load). A turn of the loop brings many
events; with a write in each of them, the reader wakes, serves one message, sleeps, and is woken again for the next.
Written back to back, the first one wakes it and the others find it awake. So what may wait, waits until all events of
the turn are handled: a fraction of a millisecond when the worker is busy, nothing when it is not.

Tables
------
    goes through here                                     goes straight to its transport
    a request without a body, of at most `MOST_BYTES`     what is larger, streams, interim answers, refusals
    a whole answer behind which the client's connection   an answer that ends the connection
    stays, of at most `MOST_BYTES`

What can go wrong
-----------------
* Something else is written to the same connection in the same turn and overtakes: whoever writes past the outbox compares
  `turn` with what `add` returned, and calls `flush` first when they are equal.
* The connection is closed before the end of the turn: its owner flushes first, or drops what waits with the rest.
* The kernel takes no more of it: the transport keeps it and says `pause_writing`, as for every write.
"""

from __future__ import annotations

import asyncio
from typing import Final

MOST_BYTES: Final = 16 * 1024
NEVER: Final = -1


class Outbox:
    """
    What one worker writes at the end of this turn.

    Attributes:
        turn: A number that grows with every flush.
    """

    __slots__ = ("_loop", "_waiting", "turn")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.turn = 0
        self._loop = loop
        self._waiting: list[tuple[asyncio.Transport, bytes]] = []

    def __repr__(self) -> str:
        return f"<Outbox turn {self.turn}, {len(self._waiting)} wait>"

    def add(self, transport: asyncio.Transport, data: bytes) -> int:
        """Let *data* be written to *transport* at the end of this turn; return the turn."""
        waiting = self._waiting
        if not waiting:
            self._loop.call_soon(self.flush)
        waiting.append((transport, data))
        return self.turn

    def flush(self) -> None:
        """Write now what waits."""
        waiting, self._waiting = self._waiting, []
        self.turn += 1
        for transport, data in waiting:
            try:
                if not transport.is_closing():
                    transport.write(data)
            except Exception as error:  # one connection's fault must not cost the others their messages
                self._loop.call_exception_handler(
                    {"message": "a write failed", "exception": error, "transport": transport}
                )
                transport.abort()
