"""
An upstream that records every byte and answers 200 to anything, so that it earns the proxy no credit.

It cuts messages as the most lenient server would, only to know when to answer; the judge never believes it. An answer's body
echoes the target. A target of `/script/N` is answered with the bytes of that script, whatever they are.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Self

_HEAD_END = re.compile(rb"\r?\n\r?\n")
_LENGTH = re.compile(rb"\ncontent-length[ \t]*:[ \t]*([0-9]{1,18})", re.IGNORECASE)
_CHUNKED = re.compile(rb"\ntransfer-encoding[ \t]*:[^\n]*chunked", re.IGNORECASE)
_SCRIPT = re.compile(rb"/script/([0-9]+)")
SCRIPT_END_S = 0.02


class Connection(asyncio.Protocol):
    """One connection of the proxy."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.received = bytearray()
        self.judged = 0  # bytes of earlier cases
        self.open = True
        self._at = 0
        self._transport: asyncio.Transport | None = None
        upstream.connections.append(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self.open = False

    def data_received(self, data: bytes) -> None:
        """Record, and answer what seems complete."""
        self.received += data
        while (end := self._message_end()) >= 0:
            line = bytes(self.received[self._at : end]).lstrip().split(b"\n", 1)[0].split(b" ")
            self._at = end
            self._answer(line[0], line[1] if len(line) > 1 else b"")

    def _message_end(self) -> int:
        head = _HEAD_END.search(self.received, self._at)
        if head is None:
            return -1
        text = bytes(self.received[self._at : head.end()])
        if _CHUNKED.search(text):
            last = re.compile(rb"(?:^|\n)0+[^\n]*\n(?:[^\r\n]+\r?\n)*\r?\n").search(self.received, head.end())
            return -1 if last is None else last.end()
        length = _LENGTH.search(text)
        end = head.end() + (int(length[1]) if length else 0)
        return end if end <= len(self.received) else -1

    def _answer(self, method: bytes, target: bytes) -> None:
        transport = self._transport
        assert transport is not None
        script = _SCRIPT.fullmatch(target)
        if script is not None:
            transport.write(self.upstream.scripts[int(script[1])])
            asyncio.get_running_loop().call_later(SCRIPT_END_S, transport.close)
            return
        body = b"" if method == b"HEAD" else b"<" + target + b">"
        transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(target) + 2, body))


class Upstream:
    """The server; use it as an asynchronous context."""

    def __init__(self, scripts: Sequence[bytes] = ()) -> None:
        self.scripts = scripts
        self.connections: list[Connection] = []
        self.port = 0
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.get_running_loop().create_server(lambda: Connection(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    def news(self) -> list[bytes]:
        """Return what came on each connection since the last call, in the order of the connections."""
        found = []
        for connection in self.connections:
            fresh = bytes(connection.received[connection.judged :])
            connection.judged = len(connection.received)
            if fresh:
                found.append(fresh)
        self.connections = [connection for connection in self.connections if connection.open]
        return found
