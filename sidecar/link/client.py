"""
The worker's end of the link.

Theory. The worker serves traffic whatever becomes of the controller, so this end never waits: it sends what fits and
drops the rest. Counters are cumulative, so a dropped tick costs nothing but its moment: the next one that gets
through carries its counts. What was dropped is counted and told with the next tick.

The listening socket lives in the supervisor: while a new controller starts, a connection waits in its backlog with
the first frames in it, and is served when the controller accepts.

What can go wrong, and what happens then:
  nobody listens, or the link breaks      connect again for ever, after a jittered pause of at most 0.5 s
  the controller does not read            at most `MAX_WAITING_BYTES` wait in memory; further frames are dropped
  the controller sends no valid frame     the link is closed and opened anew; the answer to Hello restores the state
  a frame is larger than the bound        sent when nothing else waits, so that a large tick is late, not lost for ever
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

from sidecar import clock
from sidecar.link.frames import Frame, Hello
from sidecar.link.wire import Decoder, FrameError, encode

MAX_WAITING_BYTES: Final = 1024 * 1024
_FIRST_PAUSE_S: Final = 0.02
_LONGEST_PAUSE_S: Final = 0.5


class LinkClient:
    """
    One link that heals by itself.

    Args:
        path: The controller's socket, see `runtime.link_path`.
        hello: Makes the first frame of each link. It is called on every connect, also after the first: the moment to
            make the next tick a full one.
        on_frame: Takes each frame of the controller.
    """

    def __init__(self, path: Path, hello: Callable[[], Hello], on_frame: Callable[[Frame], None]) -> None:
        self.dropped = 0
        self._path = path
        self._hello = hello
        self._on_frame = on_frame
        self._link: _Link | None = None
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<LinkClient {'up' if self.connected else 'down'} {self._path} dropped {self.dropped}>"

    @property
    def connected(self) -> bool:
        """Tell whether a link stands; a controller that is just starting may not have accepted it yet."""
        return self._link is not None

    def start(self) -> None:
        """Begin to connect; call it inside a running event loop, once."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="link")

    async def close(self) -> None:
        """Send what waits for at most a moment, then end the link."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._link is not None:
            link, self._link = self._link, None
            await link.finish()

    def send(self, frame: Frame) -> bool:
        """
        Send *frame* without waiting.

        Returns:
            False when it was dropped: there is no link, or the controller is too far behind. A tick that was dropped
            must not count as sent: its routes belong into the next one.
        """
        if self._link is not None and self._link.send(encode(frame)):
            return True
        self.dropped += 1
        return False

    async def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                link = await self._connect()
            except OSError:
                pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)
            else:
                await link.lost.wait()
                pause_s = _FIRST_PAUSE_S
                if self._link is link:
                    self._link = None
            await asyncio.sleep(pause_s * _jitter())

    async def _connect(self) -> _Link:
        loop = asyncio.get_running_loop()
        _, link = await loop.create_unix_connection(lambda: _Link(self._on_frame), str(self._path))
        link.send(encode(self._hello()))
        self._link = link
        return link


class _Link(asyncio.Protocol):
    """One connection to the controller."""

    def __init__(self, on_frame: Callable[[Frame], None]) -> None:
        self.lost = asyncio.Event()
        self._on_frame = on_frame
        self._decoder = Decoder()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports do not derive from asyncio's

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._decoder.feed(data):
                self._on_frame(frame)
        except FrameError:
            self._abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  why it ended changes nothing
        self._transport = None
        self.lost.set()

    def send(self, data: bytes) -> bool:
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        waiting = transport.get_write_buffer_size()
        if waiting and waiting + len(data) > MAX_WAITING_BYTES:
            return False
        transport.write(data)
        return True

    async def finish(self) -> None:
        if self._transport is not None:
            self._transport.close()
        try:
            await asyncio.wait_for(self.lost.wait(), timeout=0.5)
        except TimeoutError:
            self._abort()

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _jitter() -> float:
    """Return a factor in 0.5..1, so that workers do not return together."""
    return 0.5 + clock.token_bytes(1)[0] / 510
