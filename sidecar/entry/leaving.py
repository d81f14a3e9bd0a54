"""
How a worker leaves: what it still takes, what it finishes, and what it gives back.

    from                    new connections     requests
    the order to leave on   taken               served; each answer ends its connection
    delay later             refused             those under way are finished; who waits in a queue gets 503 `draining`
    grace later             refused             those that never got to the API get 503 `draining`; the others are cut

A worker that another one replaces takes no new connections from the beginning, and gives its clients a moment more: a
client's next request is answered with `close` before its idle connection is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

from sidecar import clock
from sidecar.proxy.downstream import Downstream
from sidecar.proxy.plane import Plane
from sidecar.reasons import Reason, Refusal

HANDOVER_S: Final = 1.0
FLUSH_S: Final = 0.05  # for the last answers to reach the kernel
UNSENT: Final = Refusal(
    Reason.DRAINING, 1.0, "drain", "the sidecar is shutting down, and the API was not reached before"
)


async def leave(
    plane: Plane, servers: Sequence[asyncio.Server], delay_s: float, grace_s: float, *, replaced: bool
) -> None:
    """
    Go through the table above; nothing of the plane is needed afterwards.

    Args:
        plane: Whose connections are to end.
        servers: What takes new connections.
        replaced: Another worker takes the new connections already.
    """
    plane.draining = True  # each answer from now on ends its connection, so that few are cut off at the end
    if not replaced:
        await asyncio.sleep(delay_s)
    for server in servers:
        server.close()
    if replaced:
        await asyncio.sleep(HANDOVER_S)
    plane.drain(clock.now())
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(plane.emptied.wait(), grace_s)
    if give_back(plane, clock.now()):
        await asyncio.sleep(FLUSH_S)


def give_back(plane: Plane, now: float) -> int:
    """Refuse the requests that still wait for a connection to the API: their clients may send them elsewhere; return how many."""
    waiting = [
        connection.exchange
        for connection in plane.connections
        if isinstance(connection, Downstream)
        and connection.exchange is not None
        and connection.exchange.dial is not None
    ]
    for exchange in waiting:
        exchange.fail(UNSENT, now)
    return len(waiting)
