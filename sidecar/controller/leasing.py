"""Carries shares between the allocator and the workers: it decides nothing, and keeps the order in which things must happen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from sidecar import clock
from sidecar.controller.shares import Allocator, Pushes
from sidecar.link.frames import Demand, Hello
from sidecar.link.server import LinkServer

TURN_S: Final = 0.25


class Leasing:
    """
    The shares of all workers, on real links. Where one worker serves alone it sleeps.

    Args:
        link: The workers.
        kept: Worker → bucket → share, from the last `worker-boot.json`.
        write: Writes `worker-boot.json`, which takes `slots`: always before what is in it is pushed, so that no worker
            is ever born with a share that another one has.
    """

    def __init__(self, link: LinkServer, kept: Mapping[int, Mapping[str, float]], write: Callable[[], None]) -> None:
        self._allocator = Allocator(kept, clock.now())
        self._link = link
        self._write = write
        self._needed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Leasing {self._allocator}>"

    @property
    def slots(self) -> Mapping[int, Mapping[str, float]]:
        """Return what each worker was told last."""
        return self._allocator.slots()

    def greet(self, worker: int, hello: Hello) -> None:
        """Take a worker that says Hello."""
        if hello.workers > 1:
            self._needed.set()
            self._carry_out(self._allocator.joined(worker, hello, clock.now()))

    def take(self, worker: int, demand: Demand) -> None:
        """Take what a worker asks."""
        self._carry_out(self._allocator.asks(worker, demand, clock.now()))

    def lost(self, worker: int) -> None:
        """Take the end of a worker's link."""
        self._allocator.lost(worker, clock.now())

    async def run(self) -> None:
        """Turn four times a second, from the first worker on that is not alone, until cancelled."""
        await self._needed.wait()
        while True:
            await asyncio.sleep(TURN_S)
            self._carry_out(self._allocator.turn(clock.now()))

    def _carry_out(self, pushes: Pushes) -> None:
        if pushes:
            self._write()
        for worker, shares in pushes:
            self._link.push(worker, shares)
