"""What the supervisor answers on `observe` while no controller lives, over real sockets."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Iterator

import pytest

from sidecar.supervise.stand_in import DEADLINE_S, MAX_HEAD_BYTES, MAX_OPEN, StandIn
from tests.support.patience import WAIT_S


class Desk:
    """A stand-in in a selector of its own, that turns when its test says so."""

    def __init__(self) -> None:
        self.ready = True
        self.now = 0.0
        self.selector = selectors.DefaultSelector()
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.listening.setblocking(False)
        self.stand_in = StandIn(self.selector, lambda: self.ready)

    def turn(self) -> None:
        """Serve what is there now."""
        while events := self.selector.select(0.01):
            for key, _ in events:
                key.data(self.now)

    def connect(self) -> socket.socket:
        made = socket.create_connection(self.listening.getsockname(), timeout=WAIT_S)
        self.turn()
        return made

    def ask(self, request: bytes) -> bytes:
        """Send *request* and return everything that comes back until the end."""
        with self.connect() as client:
            client.sendall(request)
            self.turn()
            return b"".join(iter(lambda: client.recv(65536), b""))


@pytest.fixture
def desk() -> Iterator[Desk]:
    """A stand-in that is switched on."""
    made = Desk()
    made.stand_in.switch(made.listening)
    yield made
    made.stand_in.switch(None)
    made.listening.close()
    made.selector.close()


@pytest.mark.parametrize(
    ("line", "ready", "status"),
    [
        (b"GET /livez HTTP/1.1", True, b"200"),
        (b"GET /livez HTTP/1.1", False, b"200"),
        (b"GET /readyz HTTP/1.1", True, b"200"),
        (b"GET /readyz?verbose HTTP/1.1", True, b"200"),
        (b"GET /readyz HTTP/1.0", False, b"503"),
        (b"GET /metrics HTTP/1.1", True, b"503"),
        (b"GET / HTTP/1.1", True, b"404"),
        (b"POST /livez HTTP/1.1", True, b"404"),
        (b"nonsense", True, b"404"),
    ],
)
def test_answers(desk: Desk, line: bytes, ready: bool, status: bytes) -> None:
    """
    livez is 200, readyz what the workers say, metrics 503, anything else 404; one whole answer, then the end.
    """
    desk.ready = ready
    head, _, body = desk.ask(line + b"\r\nHost: x\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status)
    assert b"Connection: close" in head
    assert f"Content-Length: {len(body)}".encode() in head
    assert body


def test_head_has_no_body(desk: Desk) -> None:
    """
    HEAD gets the fields alone.
    """
    head, _, body = desk.ask(b"HEAD /livez HTTP/1.1\r\n\r\n").partition(b"\r\n\r\n")
    assert (head.startswith(b"HTTP/1.1 200"), body) == (True, b"")


def test_a_head_may_come_in_pieces(desk: Desk) -> None:
    """
    A request that comes byte by byte is answered at its end.
    """
    with desk.connect() as client:
        for byte in b"GET /livez HTTP/1.1\r\n\r\n":
            client.send(bytes([byte]))
            desk.turn()
        assert client.recv(65536).startswith(b"HTTP/1.1 200")


def test_a_silent_client_is_closed(desk: Desk) -> None:
    """
    Who has not asked within two seconds is closed; who has not waited so long is not.
    """
    with desk.connect() as client:
        desk.stand_in.expire(DEADLINE_S - 0.1)
        assert repr(desk.stand_in) == "<StandIn on, 1 open>"
        desk.stand_in.expire(DEADLINE_S)
        assert client.recv(1) == b""
    assert repr(desk.stand_in) == "<StandIn on, 0 open>"


def test_what_is_open_is_bounded(desk: Desk) -> None:
    """
    At most 64 connections wait; a head without end is cut off.
    """
    clients = [desk.connect() for _ in range(MAX_OPEN + 5)]
    assert repr(desk.stand_in) == f"<StandIn on, {MAX_OPEN} open>"
    assert clients[-1].recv(1) == b""
    clients[0].sendall(b"x" * (MAX_HEAD_BYTES + 1))
    desk.turn()
    assert repr(desk.stand_in) == f"<StandIn on, {MAX_OPEN - 1} open>"
    for client in clients:
        client.close()
    desk.turn()
    assert repr(desk.stand_in) == "<StandIn on, 0 open>"


def test_switched_off_it_serves_nobody(desk: Desk) -> None:
    """
    Switched off it accepts no more; the connections wait in the kernel for the controller, or for the next switching on.
    """
    desk.stand_in.switch(None)
    with desk.connect() as client:
        client.sendall(b"GET /livez HTTP/1.1\r\n\r\n")
        desk.turn()
        desk.stand_in.switch(desk.listening)
        desk.turn()
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
