"""Workers as the controller's link sees them: real `LinkClient`s on a real socket, whose answers a test writes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from sidecar.link.client import LinkClient
from sidecar.link.frames import Ack, Commit, Frame, Hello, Prepare
from sidecar.link.server import LinkServer
from tests.support.patience import WAIT_S


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until *condition* holds; fail after WAIT_S."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110  the condition is about several event sources
            await asyncio.sleep(0.002)


class FakeWorker:
    """
    One worker that acknowledges what it is told, or what its test wants instead.

    Attributes:
        index: Which one.
        heard: Every frame that it was sent.
        runs: The version that it committed last.
        refuses: Phase → the problem that it answers; None is silence.
    """

    def __init__(self, index: int, path: Path) -> None:
        self.index = index
        self.heard: list[Frame] = []
        self.runs = 0
        self.refuses: dict[str, str | None] = {}
        self._link = LinkClient(path, self._hello, self._take)
        self._link.start()

    def _hello(self) -> Hello:
        return Hello(self.index, f"epoch-{self.index}", os.getpid(), self.runs)

    def _take(self, frame: Frame) -> None:
        self.heard.append(frame)
        if isinstance(frame, Prepare | Commit):
            phase = type(frame).__name__.lower()
            problem = self.refuses.get(phase, "")
            if isinstance(frame, Commit) and problem == "":
                self.runs = frame.version
            if problem is not None:
                self.say(phase, frame.version, problem)

    def say(self, phase: str, version: int, problem: str = "") -> None:
        """Send an acknowledgement."""
        self._link.send(Ack(self.index, phase, version, problem))

    @property
    def orders(self) -> list[tuple[str, int]]:
        """Return what it was told to prepare and commit."""
        return [(type(frame).__name__, frame.version) for frame in self.heard if isinstance(frame, Prepare | Commit)]

    async def leave(self) -> None:
        """End its link."""
        await self._link.close()


class Workers:
    """
    A link server and the workers on it.

    Attributes:
        link: The server; hand it to what is tested.
        on_ack: Takes the acknowledgements: set it to the `take` of what is tested.
        on_lost: Takes the ends of links.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "link.sock"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self._path))
        self._listener.listen(64)
        self.link = LinkServer(self._listener, self._take, self._lost)
        self.on_ack: Callable[[int, Ack], None] = lambda _, __: None
        self.on_lost: Callable[[int], None] = lambda _: None
        self.all: list[FakeWorker] = []

    def _take(self, worker: int, frame: Frame) -> None:
        if isinstance(frame, Ack):
            self.on_ack(worker, frame)

    def _lost(self, worker: int) -> None:
        self.on_lost(worker)

    async def join(self, count: int) -> list[FakeWorker]:
        """Let *count* more workers connect; return all."""
        first = len(self.all)
        self.all += [FakeWorker(index, self._path) for index in range(first, first + count)]
        await until(lambda: self.link.workers() == {worker.index for worker in self.all})
        return self.all

    async def close(self) -> None:
        """End everything."""
        for worker in self.all:
            await worker.leave()
        await self.link.close()
        self._listener.close()


@contextlib.asynccontextmanager
async def linked() -> AsyncIterator[Workers]:
    """Run a link server in a directory of its own (a socket's path is short)."""
    with tempfile.TemporaryDirectory(prefix="sc-link-") as folder:
        workers = Workers(Path(folder))
        workers.link.start()
        try:
            yield workers
        finally:
            await workers.close()
