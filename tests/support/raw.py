"""Raw bytes to a worker, and what came back: for messages that no client library would send."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from tests.support.client import CutError
from tests.support.patience import WAIT_S


@dataclass(frozen=True)
class Exchange:
    """What a client saw: every byte until the end, and whether the end was the worker's."""

    received: bytes
    closed: bool

    @property
    def statuses(self) -> list[int]:
        """The statuses of all answers; bodies must not hold a status line."""
        return [int(status) for status in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", self.received)]


def speak(address: tuple[str, int], parts: Iterable[bytes], *, until_close: bool = True) -> Exchange:
    """
    Send *parts* one after the other, each in a segment of its own, and read.

    Args:
        address: Where the worker serves.
        parts: What to send; a worker that has ended meanwhile is no fault.
        until_close: Read to the worker's end; else to the end of what comes within a moment.
    """
    with socket.create_connection(address, timeout=WAIT_S) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(ConnectionError):
            for part in parts:
                sock.sendall(part)
        return _read(sock, until_close=until_close)


def _read(sock: socket.socket, *, until_close: bool) -> Exchange:
    received = b""
    sock.settimeout(WAIT_S if until_close else 0.3)
    try:
        while data := sock.recv(65536):
            received += data
    except ConnectionResetError as error:
        raise CutError(received, reset=True) from error
    except TimeoutError:
        if until_close:
            raise
        return Exchange(received, closed=False)
    return Exchange(received, closed=True)


def byte_by_byte(data: bytes) -> list[bytes]:
    """Return *data* as single bytes."""
    return [data[at : at + 1] for at in range(len(data))]
