"""Who gets the next request, while connections are still being made."""

from __future__ import annotations

import asyncio
import socket

from sidecar.config.policies import Endpoint, UpstreamPolicy
from sidecar.proxy.deadline import Wheel
from sidecar.proxy.dial import Dial
from sidecar.proxy.pool import Pool
from sidecar.proxy.upstream import Upstream
from sidecar.reasons import Reason


class Nobody:
    """A dialler that keeps what it is told."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[object] = asyncio.Queue()

    def connected(self, upstream: Upstream, now: float) -> None:
        """Keep the connection."""
        self.told.put_nowait(upstream)

    def broken(self, error: Exception) -> None:
        """Keep the error."""
        self.told.put_nowait(error)

    def not_connected(self, reason: Reason, detail: str, now: float) -> None:
        """Keep the reason."""
        self.told.put_nowait(reason)


def dial(pool: Pool, dialler: Nobody) -> Dial:
    """Do what an exchange without an idle connection does."""
    backend = pool.choose()
    assert backend is not None
    return pool.dial(backend, dialler)


async def test_requests_of_one_turn_are_spread() -> None:
    """
    A connection that is about to be made counts from the moment of the choice, until its request has it or gives up.
    """
    loop, nobody = asyncio.get_running_loop(), Nobody()
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        policy = UpstreamPolicy(tuple(Endpoint("127.0.0.1", each.getsockname()[1]) for each in (one, two)))
        pool = Pool(loop, Wheel(loop), policy)
        dials = [dial(pool, nobody) for _ in range(6)]
        assert [backend.in_flight for backend in pool.backends] == [3, 3]
        for each in dials[:2]:
            each.cancel()
        assert sum(backend.in_flight for backend in pool.backends) == 4
        made = [await nobody.told.get() for _ in range(4)]
        assert [backend.dialling for backend in pool.backends] == [0, 0]
        assert sum(backend.in_flight for backend in pool.backends) == 4
        for upstream in made:
            assert isinstance(upstream, Upstream)
            upstream.drop()
        pool.close()


async def test_an_endpoint_that_refuses_is_not_counted_for_ever() -> None:
    """
    Whatever ends a dial, its place is given back.
    """
    loop, nobody = asyncio.get_running_loop(), Nobody()
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # held, so that nobody listens there
        pool = Pool(loop, Wheel(loop), UpstreamPolicy((Endpoint("127.0.0.1", held.getsockname()[1]),)))
        dial(pool, nobody)
        told = await nobody.told.get()
        await asyncio.sleep(0)
    assert (told, pool.backends[0].in_flight) == (Reason.UPSTREAM_CONNECT_FAILED, 0)
    pool.close()
