"""A real meter, link and collector: whatever happens to the link, every request is counted once."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from sidecar.controller.collect import Collector
from sidecar.facts import Outcome, RouteSecond
from sidecar.guard.guard import Guard
from sidecar.guard.policies import GuardPolicy, RoutePolicy
from sidecar.link import client as client_module
from sidecar.link.client import LinkClient
from sidecar.link.frames import Frame, Hello, Prepare, Tick
from sidecar.link.server import LinkServer
from sidecar.measure.counters import Meter
from tests.support.patience import WAIT_S

POLICY = GuardPolicy(routes={"shop": RoutePolicy("shop")})


@pytest.fixture(params=[asyncio.DefaultEventLoopPolicy(), uvloop.EventLoopPolicy()], ids=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with tempfile.TemporaryDirectory(prefix="link-") as directory:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.bind(f"{directory}/link.sock")
        made.listen(16)
        yield made
        made.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110  the condition is about two event sources
            await asyncio.sleep(0.002)


class Worker:
    """The measuring half of a worker."""

    def __init__(self, path: str) -> None:
        self.meter, self.guard = Meter(), Guard(POLICY, 0.0)
        self.counted = self.sequence = 0
        self.link = LinkClient(Path(path), self.hello, lambda _: None)

    def hello(self) -> Hello:
        self.meter.resend()
        return Hello(0, "e1", os.getpid(), 1, 1.0)

    def serve(self, count: int) -> None:
        route = self.meter.route("shop")
        for n in range(count):
            route.arrive(f"client-{n % 3}", 0.0)
            route.end(f"client-{n % 3}", ("GET", 200, None, Outcome.SUCCESS, "h:1", "/x"), 0.02, 0.01, False, None)
        self.counted += count

    def tick(self, now: float) -> bool:
        self.sequence += 1
        sent = self.link.send(self.meter.tick(0, "e1", self.sequence, now, self.guard, since_at=1.0))
        if not sent:
            self.meter.resend()
        return sent


class Controller:
    """The collecting half of a controller."""

    def __init__(self, listener: socket.socket, began_at: float) -> None:
        self.collector = Collector(began_at)
        self.ticks = 0
        self.seconds: list[RouteSecond] = []
        self.now = began_at
        self.server = LinkServer(listener, self.take, lambda worker: self.collector.lost(worker, self.now))
        self.server.start()

    def take(self, worker: int, frame: Frame) -> None:
        if isinstance(frame, Tick):
            self.ticks += 1
            self.collector.take(frame, self.now)
            self.seconds += self.collector.close_second(self.now)

    def counted(self) -> int:
        return sum(second.arrivals for second in self.seconds)


async def test_links_that_break_lose_no_count(listener: socket.socket) -> None:
    """Links end again and again while requests are served; the seconds add up to every request."""
    controller, worker = Controller(listener, 1.0), Worker(listener.getsockname())
    worker.link.start()
    for turn in range(8):
        await until(controller.server.workers)
        worker.serve(50)
        worker.tick(2.0 + turn)
        worker.serve(7)
        for link in list(controller.server._links):
            link.close()
        worker.tick(2.5 + turn)
        await until(lambda: not worker.link.connected)
        assert not worker.tick(2.7 + turn)
    await until(lambda: worker.tick(20.0) and controller.counted() == worker.counted)

    assert controller.collector.totals(1.0).routes["shop"].outcomes == {"success": 8 * 57}
    clients = sum(second.clients[key].requests for second in controller.seconds for key in second.clients)
    assert clients == worker.counted
    await worker.link.close()
    await controller.server.close()


async def test_stalled_controller_loses_no_count(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the controller does not read, ticks are dropped; when it reads again every request is counted."""
    monkeypatch.setattr(client_module, "MAX_WAITING_BYTES", 50_000)
    worker = Worker(listener.getsockname())
    worker.link.start()
    await until(lambda: worker.link.connected)
    for size in (40_000, 100):  # fills the kernel's buffer and ours to the brim, as hours of ticks would
        while worker.link.send(Prepare(1, "x" * size)):
            pass
    for turn in range(5):
        worker.serve(10)
        assert not worker.tick(2.0 + turn)

    controller = Controller(listener, 1.0)
    await until(lambda: worker.tick(20.0) and controller.counted() == worker.counted)

    assert worker.link.dropped >= 6
    await worker.link.close()
    await controller.server.close()


async def test_new_controller_counts_from_its_own_beginning(listener: socket.socket) -> None:
    """A controller that takes over does not see a burst of all that the worker ever counted."""
    first, worker = Controller(listener, 1.0), Worker(listener.getsockname())
    worker.link.start()
    worker.serve(1000)
    await until(lambda: worker.tick(2.0) and first.counted() == 1000)
    await first.server.close()
    await until(lambda: not worker.link.connected)
    worker.serve(30)

    second = Controller(listener, 10.0)
    await until(lambda: worker.tick(11.0) and second.ticks)
    worker.serve(5)
    await until(lambda: worker.tick(12.0) and second.counted() == 5)

    assert second.collector.totals(12.0).routes["shop"].arrivals == 5
    await worker.link.close()
    await second.server.close()
