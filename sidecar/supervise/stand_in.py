"""
Answers the `observe` listener while no controller lives.

An orchestrator must not restart a sidecar whose data plane works because its control plane is starting: `/livez` says
200, `/readyz` what the workers say, `/metrics` 503. One small request a connection, answered and closed.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MAX_HEAD_BYTES: Final = 4096
MAX_OPEN: Final = 64
DEADLINE_S: Final = 2.0


@dataclass(slots=True)
class _Asking:
    connection: socket.socket
    until_at: float
    head: bytes = b""


class StandIn:
    """
    Serves a listening socket inside the supervisor's selector, whenever it is switched on.

    Args:
        selector: The supervisor's; keys carry this object's callbacks as data.
        ready: Tells whether any worker serves.
    """

    def __init__(self, selector: selectors.BaseSelector, ready: Callable[[], bool]) -> None:
        self._selector = selector
        self._ready = ready
        self._listening: socket.socket | None = None
        self._open: dict[int, _Asking] = {}

    def __repr__(self) -> str:
        return f"<StandIn {'on' if self._listening else 'off'}, {len(self._open)} open>"

    def switch(self, listening: socket.socket | None) -> None:
        """Serve *listening*, or nothing when None."""
        if listening is self._listening:
            return
        if self._listening is not None:
            self._selector.unregister(self._listening)
        self._listening = listening
        if listening is not None:
            self._selector.register(listening, selectors.EVENT_READ, self._accept)

    def expire(self, now: float) -> None:
        """Close connections that have not asked in time."""
        for asking in [a for a in self._open.values() if a.until_at <= now]:
            self._close(asking)

    def _accept(self, now: float) -> None:
        if self._listening is None:
            return
        try:
            connection, _ = self._listening.accept()
        except OSError:  # a controller took it first, or no descriptor is free
            return
        if len(self._open) >= MAX_OPEN:
            connection.close()
            return
        connection.setblocking(False)
        asking = _Asking(connection, now + DEADLINE_S)
        self._open[connection.fileno()] = asking
        self._selector.register(connection, selectors.EVENT_READ, lambda _: self._read(asking))

    def _read(self, asking: _Asking) -> None:
        try:
            received = asking.connection.recv(MAX_HEAD_BYTES)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        asking.head += received
        if received and b"\r\n\r\n" not in asking.head and len(asking.head) < MAX_HEAD_BYTES:
            return
        if b"\r\n" in asking.head:
            with contextlib.suppress(OSError):
                asking.connection.send(self.answer(asking.head))
        self._close(asking)

    def _close(self, asking: _Asking) -> None:
        self._open.pop(asking.connection.fileno(), None)
        self._selector.unregister(asking.connection)
        asking.connection.close()

    def answer(self, head: bytes) -> bytes:
        """Return the whole response to a request head."""
        words = head.split(b"\r\n", 1)[0].split(b" ")
        path = words[1].partition(b"?")[0] if len(words) == 3 else b""
        match words[0], path:
            case ((b"GET" | b"HEAD"), b"/livez"):
                status, text = b"200 OK", b"ok: the supervisor lives, the controller is starting\n"
            case ((b"GET" | b"HEAD"), b"/readyz") if self._ready():
                status, text = b"200 OK", b"ok: workers serve, the controller is starting\n"
            case ((b"GET" | b"HEAD"), b"/readyz"):
                status, text = b"503 Service Unavailable", b"not ready: no worker serves yet\n"
            case ((b"GET" | b"HEAD"), b"/metrics"):
                status, text = b"503 Service Unavailable", b"the controller is starting\n"
            case _:
                status, text = b"404 Not Found", b"here are /livez, /readyz and /metrics\n"
        fields = b"Content-Type: text/plain; charset=utf-8\r\nConnection: close\r\nContent-Length: %d\r\n" % len(text)
        body = b"" if words[0] == b"HEAD" else text
        return b"HTTP/1.1 " + status + b"\r\n" + fields + b"\r\n" + body
