"""The controller's end of a worker's link, frame by frame, in the hands of a test."""

from __future__ import annotations

import socket
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from sidecar.link.frames import Frame, Tick
from sidecar.link.runtime import link_path
from sidecar.link.wire import Decoder, encode
from tests.support.patience import WAIT_S

Kind = TypeVar("Kind")


class Controller:
    """One listening socket in a runtime directory and the link that a worker made to it."""

    def __init__(self, runtime: Path) -> None:
        self._path = link_path(runtime)
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(self._path))
        self._listening.listen()
        self._listening.settimeout(WAIT_S)
        self._link, _ = self._listening.accept()
        self._decoder = Decoder()
        self._waiting: deque[Frame] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._link.close()
        self._listening.close()
        self._path.unlink()

    def send(self, frame: Frame) -> None:
        """Send one frame."""
        self._link.sendall(encode(frame))

    def next(self, kind: type[Kind]) -> Kind:
        """Wait for the next frame of *kind*; others are skipped."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            while self._waiting:
                frame = self._waiting.popleft()
                if isinstance(frame, kind):
                    return frame
            self._receive(deadline)
        raise AssertionError(f"no {kind.__name__} came")

    def tick_with(self, route: str, arrivals: int) -> Tick:
        """Wait for the tick in which *route* has counted so many arrivals and all of them have ended."""
        while True:
            tick = self.next(Tick)
            row = tick.routes.get(route)
            if row is not None and row.arrivals >= arrivals and sum(row.outcomes.values()) >= arrivals:
                return tick

    def rest(self) -> list[Frame]:
        """Return every frame up to the end of the link."""
        self._link.settimeout(WAIT_S)
        while received := self._link.recv(1 << 20):
            self._waiting.extend(self._decoder.feed(received))
        frames = list(self._waiting)
        self._waiting.clear()
        return frames

    def _receive(self, deadline: float) -> None:
        self._link.settimeout(max(0.01, deadline - time.monotonic()))
        received = self._link.recv(1 << 20)
        assert received, "the worker ended the link"
        self._waiting.extend(self._decoder.feed(received))
