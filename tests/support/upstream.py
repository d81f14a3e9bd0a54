"""
Upstreams that behave, or misbehave, by script: raw sockets, one thread a connection, no HTTP library in the way.

A script is a function of one `Conn`; it runs for each connection and may do anything to it. When it returns the
connection is closed.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.support.patience import WAIT_S
from tests.support.pki import say_end


@dataclass(frozen=True)
class Request:
    """What one upstream received, byte for byte."""

    head: bytes
    body: bytes = b""

    @property
    def line(self) -> str:
        """The request line."""
        return self.head.split(b"\r\n", 1)[0].decode("latin-1")

    @property
    def fields(self) -> dict[str, str]:
        """Lower-case name → value; of repeated names the last."""
        lines = self.head.decode("latin-1").split("\r\n")[1:-2]
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


class Conn:
    """One accepted connection, in the hands of a script."""

    def __init__(self, upstream: Upstream, sock: socket.socket, number: int) -> None:
        self.upstream = upstream
        self.sock = sock
        self.number = number
        self._seen, self._news, self._orders = upstream.seen, upstream.news, upstream.orders
        self._buffer = b""
        sock.settimeout(WAIT_S)

    def read_head(self) -> bytes:
        """Return the next request's head; empty at the end of the connection."""
        while b"\r\n\r\n" not in self._buffer:
            received = self.sock.recv(65536)
            if not received:
                return b""
            self._buffer += received
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n"

    def read(self) -> Request | None:
        """Return the next whole request, and note it; None at the end of the connection."""
        head = self.read_head()
        if not head:
            return None
        request = Request(head)
        coding, length = request.fields.get("transfer-encoding"), request.fields.get("content-length")
        body = self._chunks() if coding == "chunked" else self._exactly(int(length or 0))
        request = Request(head, body)
        self._seen.put(request)
        return request

    def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            self._more()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def _exactly(self, size: int) -> bytes:
        parts, missing = [], size
        while missing:
            if not self._buffer:
                self._more()
            part, self._buffer = self._buffer[:missing], self._buffer[missing:]
            missing -= len(part)
            parts.append(part)
        return b"".join(parts)

    def _chunks(self) -> bytes:
        body = []
        while size := int(self._line(), 16):
            body.append(self._exactly(size))
            assert self._line() == b""
        while self._line():
            pass
        return b"".join(body)

    def _more(self) -> None:
        received = self.sock.recv(1 << 20)
        if not received:
            raise EOFError("the peer ended within a message")
        self._buffer += received

    def send(self, data: bytes) -> None:
        """Send *data*."""
        self.sock.sendall(data)

    def answer(self, body: bytes = b"ok", status: str = "200 OK", *fields: str) -> None:
        """Send one answer of a known length."""
        lines = "".join(f"{line}\r\n" for line in fields)
        self.send(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body)

    def tell(self, news: object) -> None:
        """Say something to the test."""
        self._news.put(news)

    def wait_for_order(self) -> object:
        """Wait for the test's next word."""
        return self._orders.get(timeout=WAIT_S)

    def close(self) -> None:
        """End the connection, and be sure that the end was sent."""
        say_end(self.sock)
        socket.socket.shutdown(self.sock, socket.SHUT_RDWR)
        self.sock.close()

    def reset(self) -> None:
        """End the connection with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def wait_for_end(self) -> str:
        """Read until the peer ends the connection; return `end` or `reset`."""
        try:
            while self.sock.recv(1 << 20):
                pass
        except (ConnectionError, ssl.SSLEOFError):
            return "reset"
        return "end"


Script = Callable[[Conn], None]


def echo(conn: Conn) -> None:
    """Answer every request with its own body."""
    while (request := conn.read()) is not None:
        conn.answer(request.body or b"ok")


@dataclass
class Upstream:
    """
    A listening socket that runs `script` for each connection; change the script at any time.

    Attributes:
        seen: Every whole request that a script read with `Conn.read`, in order.
        news: A script's own words to its test.
        orders: The test's words to a script that waits for them.
        accepted: Connections so far.
        path: Listen on this Unix socket in place of a port.
        tls: Speak TLS.
    """

    script: Script = echo
    seen: queue.Queue[Request] = field(default_factory=queue.Queue)
    news: queue.Queue[object] = field(default_factory=queue.Queue)
    orders: queue.Queue[object] = field(default_factory=queue.Queue)
    accepted: int = 0
    port: int = 0
    path: str = ""
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        if self.path:
            self._listening = socket.socket(socket.AF_UNIX)
            self._listening.bind(self.path)
            self._listening.listen(1024)
        else:
            self._listening = socket.create_server(("127.0.0.1", self.port), backlog=1024)
            self.port = self._listening.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._probes: dict[object, threading.Event] = {}
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Its endpoint, for a config."""
        if self.path:
            return f"unix:{self.path}"
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    def next_request(self) -> Request:
        """Wait for the next whole request."""
        return self.seen.get(timeout=WAIT_S)

    def next_news(self) -> object:
        """Wait for the script's next word."""
        return self.news.get(timeout=WAIT_S)

    def order(self, word: object = "go on") -> None:
        """Let a script go on that waits for an order."""
        self.orders.put(word)

    def use(self, script: Script) -> None:
        """Run *script* from the next connection on; connections that stand are ended and what was seen is forgotten."""
        self.script = script
        self.end_connections()
        self.seen, self.news, self.orders = queue.Queue(), queue.Queue(), queue.Queue()

    def end_connections(self) -> None:
        """End every connection that stands."""
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def catch_up(self) -> None:
        """Wait until every connection that was made so far is accepted: they are in the order in which they were made."""
        if self.path:
            return
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            accepted = self._probes[probe.getsockname()] = threading.Event()
            probe.connect(("127.0.0.1", self.port))
            assert accepted.wait(WAIT_S), "the upstream accepts nothing"

    def close(self) -> None:
        """Listen no more and end every connection."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.end_connections()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, peer = self._listening.accept()
                probed = self._probes.pop(peer, None)
                if probed is not None:
                    sock.close()
                    probed.set()
                    continue
                self._open.add(sock)
                self.accepted += 1
                threading.Thread(target=self._serve, args=(sock, self.accepted), daemon=True).start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        with sock, contextlib.suppress(OSError, EOFError, queue.Empty):
            if self.tls is None:
                self.script(Conn(self, sock, number))
            else:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else tickets hold back what comes next
                with self.tls.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False) as secured:
                    self._open.add(secured)  # it has taken the descriptor from the plain one
                    self.script(Conn(self, secured, number))
                    say_end(secured)
                    self._open.discard(secured)
        self._open.discard(sock)
