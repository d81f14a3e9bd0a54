"""
The controller's end of the links: one for each worker.

Theory. A link is nothing but a pipe for state that both sides can say again: the worker's counters are cumulative,
and the controller answers each Hello with all that is in force. So whatever looks wrong, the remedy is the same:
close the link, and the worker's next Hello sets it right.

Epochs. A worker process is one epoch; its counters start from zero. Two processes can have one index for a while: the
new one serves and the old one drains.
  the same epoch again     the worker lost its link before we noticed: the older link is closed in silence
  a younger epoch          becomes the worker: pushes go to it and acknowledgements count from it alone
  an older epoch           (draining) is listened to until it ends, so that its last counts arrive; nothing is pushed
`on_lost` is called when the link of the worker itself ends, never for a replaced one. A callback that raises ends its
link and reaches the event loop's exception handler.

What can go wrong, and what happens then:
  a stranger connects                closed: SO_PEERCRED must show our own user
  no Hello within 5 s, or no frame   closed
  a worker does not read             closed at `MAX_WAITING_BYTES`; it comes back with Hello, or the supervisor ends it
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable
from typing import Final, cast

from sidecar.link.frames import Ack, Frame, Hello
from sidecar.link.wire import Decoder, FrameError, encode

HELLO_TIMEOUT_S: Final = 5.0
MAX_WAITING_BYTES: Final = 4 * 1024 * 1024  # a Prepare with a large config, several times
_ACCEPT_PAUSE_S: Final = 0.2
_UCRED: Final = struct.Struct("3i")  # pid, uid, gid: unix(7)


class LinkServer:
    """
    All links that stand.

    Args:
        listener: A listening Unix socket, as inherited from the supervisor; it stays the caller's.
        on_frame: Takes the worker's index and each of its frames, Hello first.
        on_lost: Takes the index of a worker whose link ended.
    """

    def __init__(
        self, listener: socket.socket, on_frame: Callable[[int, Frame], None], on_lost: Callable[[int], None]
    ) -> None:
        self._listener = listener
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._links: set[_Link] = set()
        self._current: dict[int, _Link] = {}
        self._accepting: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<LinkServer workers {sorted(self._current)} links {len(self._links)}>"

    def start(self) -> None:
        """Begin to accept; call it inside a running event loop, once."""
        # No asyncio.Server: it would close the listener, which belongs to the supervisor, and later Pythons unlink it.
        self._listener.setblocking(False)
        self._accepting = asyncio.get_running_loop().create_task(self._accept(), name="link-accept")

    async def close(self) -> None:
        """Stop accepting and end every link, without `on_lost`; the listener stays open."""
        if self._accepting is not None:
            self._accepting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._accepting
        links, self._current = list(self._links), {}
        for link in links:
            link.close()
        for link in links:
            await link.ended.wait()

    def workers(self) -> frozenset[int]:
        """Return the indices of the workers whose link stands."""
        return frozenset(self._current)

    def push(self, worker: int, frame: Frame) -> bool:
        """Send *frame* to one worker; False when it has no link, or was closed because it does not read."""
        link = self._current.get(worker)
        return link is not None and link.send(encode(frame))

    def push_all(self, frame: Frame, *, but: int | None = None) -> frozenset[int]:
        """Send *frame* to every worker (except the one with index *but*) and return those to whom it went."""
        data = encode(frame)
        links = [(worker, link) for worker, link in self._current.items() if worker != but]
        return frozenset(worker for worker, link in links if link.send(data))

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                peer, _ = await loop.sock_accept(self._listener)
                if _peer_uid(peer) == os.geteuid():
                    await loop.connect_accepted_socket(lambda: _Link(self), peer)
                else:
                    peer.close()
            except OSError:  # out of file descriptors: those who wait stay in the backlog
                await asyncio.sleep(_ACCEPT_PAUSE_S)

    # --- called by the links

    def _opened(self, link: _Link) -> None:
        self._links.add(link)

    def _greeted(self, link: _Link, hello: Hello) -> bool:
        """Decide whether *link* is the worker now; only then its Hello wants an answer."""
        known = self._current.get(hello.worker)
        if known is not None and known.hello is not None:
            if known.hello.epoch == hello.epoch:
                known.close()
            elif hello.since_at < known.hello.since_at:
                return False
        self._current[hello.worker] = link
        return True

    def _received(self, link: _Link, worker: int, frame: Frame) -> None:
        if self._current.get(worker) is link or not isinstance(frame, Hello | Ack):
            self._on_frame(worker, frame)

    def _closed(self, link: _Link) -> None:
        self._links.discard(link)
        if link.hello is not None and self._current.get(link.hello.worker) is link:
            del self._current[link.hello.worker]
            self._on_lost(link.hello.worker)


class _Link(asyncio.Protocol):
    """One connection of one worker process."""

    def __init__(self, server: LinkServer) -> None:
        self.hello: Hello | None = None
        self.ended = asyncio.Event()
        self._server = server
        self._decoder = Decoder()
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports do not derive from asyncio's
        self._server._opened(self)  # noqa: SLF001  the two halves of one thing
        self._deadline = asyncio.get_running_loop().call_later(HELLO_TIMEOUT_S, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._decoder.feed(data):
                self._take(frame)
        except FrameError:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  why it ended changes nothing
        if self._deadline is not None:
            self._deadline.cancel()
        self._transport = None
        self.ended.set()
        self._server._closed(self)  # noqa: SLF001

    def _take(self, frame: Frame) -> None:
        if self.hello is None:
            if not isinstance(frame, Hello):
                raise FrameError(f"the first frame is {type(frame).__name__}, not Hello")
            self.hello = frame
            if self._deadline is not None:
                self._deadline.cancel()
            self._server._greeted(self, frame)  # noqa: SLF001
        self._server._received(self, self.hello.worker, frame)  # noqa: SLF001

    def send(self, data: bytes) -> bool:
        """Write *data*, or close when the worker is too far behind."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        waiting = transport.get_write_buffer_size()
        if waiting and waiting + len(data) > MAX_WAITING_BYTES:
            transport.abort()
            return False
        transport.write(data)
        return True

    def close(self) -> None:
        """End the link at once; what waits is dropped."""
        if self._transport is not None:
            self._transport.abort()


def _peer_uid(peer: socket.socket) -> int:
    _, uid, _ = _UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return int(uid)
