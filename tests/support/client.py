"""A client on a raw socket that reads answers strictly and tells how each one ended."""

from __future__ import annotations

import json
import socket
import ssl
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from tests.support.patience import WAIT_S
from tests.support.pki import say_end


class CutError(Exception):
    """The connection ended within an answer; `reset` tells how."""

    def __init__(self, received: bytes, *, reset: bool) -> None:
        super().__init__(f"{'reset' if reset else 'ended'} after {len(received)} bytes: {received[-200:]!r}")
        self.received = received
        self.reset = reset


@dataclass(frozen=True)
class Answer:
    """One answer, read to its end."""

    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        """The body as problem+json."""
        made: dict[str, Any] = json.loads(self.body)
        return made


class Client:
    """One connection."""

    def __init__(
        self,
        address: tuple[str, int],
        *,
        receive_buffer: int = 0,
        tls: ssl.SSLContext | None = None,
        name: str = "localhost",
    ) -> None:
        self.sock: socket.socket = socket.socket()
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(WAIT_S)
        self.sock.connect(address)
        if tls is not None:
            self.sock = tls.wrap_socket(self.sock, server_hostname=name, suppress_ragged_eofs=False)
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Send *data*."""
        self.sock.sendall(data)

    def ask(self, method: str = "GET", path: str = "/", body: bytes = b"", *fields: str) -> Answer:
        """Send one request of a known length and read its answer."""
        self.send(request(method, path, body, *fields))
        return self.read(head_only=method == "HEAD")

    def read(self, *, head_only: bool = False) -> Answer:
        """
        Read one answer, interim ones apart.

        Raises:
            CutError: when the connection ends before the answer does.
        """
        head = self.read_head()
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1])
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:-2])}
        if head_only or status < 200 or status in (204, 304):
            return Answer(status, fields, b"")
        if fields.get("transfer-encoding") == "chunked":
            return Answer(status, fields, self._chunks())
        if "content-length" in fields:
            return Answer(status, fields, self._exactly(int(fields["content-length"])))
        return Answer(status, fields, self.read_to_end())

    def read_head(self) -> bytes:
        """Read up to and including the next blank line."""
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n"

    def read_to_end(self) -> bytes:
        """Read until a clean end of the connection."""
        try:
            while received := self._receive():
                self._buffer += received
        except ConnectionError:
            raise CutError(self._buffer, reset=True) from None
        body, self._buffer = self._buffer, b""
        return body

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
        try:
            received = self._receive()
        except ConnectionError:
            raise CutError(self._buffer, reset=True) from None
        if not received:
            raise CutError(self._buffer, reset=False)
        self._buffer += received

    def _receive(self, most: int = 1 << 20) -> bytes:
        try:
            return self.sock.recv(most)
        except ssl.SSLZeroReturnError:  # both sides have said their end
            return b""
        except ssl.SSLEOFError:
            raise ConnectionResetError("cut: the end came without close_notify") from None

    def closed(self) -> bool:
        """Wait for the other side's end; tell whether it came without a further byte."""
        try:
            return not self._buffer and self._receive(65536) == b""
        except ConnectionError:
            return True

    def end_sending(self) -> None:
        """Close our sending half."""
        say_end(self.sock)
        socket.socket.shutdown(self.sock, socket.SHUT_WR)  # an SSLSocket's own would read in plain from then on

    def reset(self) -> None:
        """End with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def request(method: str = "GET", path: str = "/", body: bytes = b"", *fields: str) -> bytes:
    """Write one request of HTTP/1.1."""
    lines = [f"{method} {path} HTTP/1.1", "Host: api.test", *fields]
    if body or method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body
