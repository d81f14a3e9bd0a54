"""Which offers of another protocol are passed on, and which answers agree."""

from __future__ import annotations

import pytest

from sidecar.proxy.framing import RequestHead, ResponseHead, parse_request_head, parse_response_head
from sidecar.proxy.upgrade import agrees, offered, with_offer

ALLOWED = frozenset((b"websocket",))


def request(line: str, *fields: str) -> RequestHead:
    head = parse_request_head("\r\n".join([line, "Host: a", *fields, "", ""]).encode())
    assert isinstance(head, RequestHead)
    return head


@pytest.mark.parametrize(
    ("line", "fields", "protocol"),
    [
        ("GET / HTTP/1.1", ("Connection: Upgrade", "Upgrade: websocket"), b"websocket"),
        ("GET / HTTP/1.1", ("Connection: keep-alive, upgrade", "Upgrade: WebSocket"), b"websocket"),
        ("GET / HTTP/1.1", ("Connection: upgrade", "Upgrade: h2c, websocket"), b"websocket"),
        ("GET / HTTP/1.1", ("Connection: upgrade", "Upgrade: h2c"), b""),
        ("GET / HTTP/1.1", ("Connection: upgrade", "Upgrade: websocket2"), b""),
        ("GET / HTTP/1.1", ("Upgrade: websocket",), b""),
        ("GET / HTTP/1.1", ("Connection: upgrade",), b""),
        ("GET / HTTP/1.0", ("Connection: upgrade", "Upgrade: websocket"), b""),
        ("HEAD / HTTP/1.1", ("Connection: upgrade", "Upgrade: websocket"), b""),
        ("POST / HTTP/1.1", ("Connection: upgrade", "Upgrade: websocket"), b""),
        ("GET / HTTP/1.1", ("Connection: upgrade", "Upgrade: websocket", "Content-Length: 1"), b""),
        ("GET / HTTP/1.1", ("Connection: upgrade", "Upgrade: websocket", "Transfer-Encoding: chunked"), b""),
    ],
)
def test_what_is_offered(line: str, fields: tuple[str, ...], protocol: bytes) -> None:
    """
    A protocol of the route, named in Upgrade and in Connection, by a GET of 1.1 without body; nothing else.
    """
    assert offered(request(line, *fields), ALLOWED) == protocol


def test_a_route_without_protocols_offers_none() -> None:
    """
    `upgrade: []` leaves a request plain HTTP.
    """
    assert offered(request("GET / HTTP/1.1", "Connection: upgrade", "Upgrade: websocket"), frozenset()) == b""


@pytest.mark.parametrize(
    ("fields", "agreed"),
    [
        ("Upgrade: websocket\r\nConnection: Upgrade\r\n", True),
        ("Upgrade: WebSocket\r\nConnection: upgrade\r\n", True),
        ("Upgrade: websocket\r\n", False),
        ("Connection: upgrade\r\n", False),
        ("Upgrade: h2c\r\nConnection: upgrade\r\n", False),
        ("Upgrade: websocket, h2c\r\nConnection: upgrade\r\n", False),
        ("Upgrade: websocket\r\nConnection: close\r\n", False),
    ],
)
def test_what_agrees(fields: str, agreed: bool) -> None:
    """
    Exactly the protocol that was offered, and Connection says so; an answer to no offer never agrees. Some others are no
    heads at all: the second parser refuses them.
    """
    head = parse_response_head(f"HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n".encode(), "GET")
    assert (isinstance(head, ResponseHead) and agrees(head, b"websocket")) is agreed
    assert isinstance(head, str) or not agrees(head, b"")


def test_the_offer_is_written_at_the_end() -> None:
    """
    A written head gets the two fields before its blank line.
    """
    assert with_offer(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"websocket") == (
        b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    )
