"""
A request that offers another protocol, and the answer that agrees to it (RFC 9110, section 7.8; WebSocket: RFC 6455).

Tables.   a request offers                               goes up as
          a protocol of its route, in a GET of 1.1       written, with that offer alone; what the client sends behind its head waits
            without body
          another one, or otherwise                      plain HTTP without the offer

          the API answers                                then
          101 with the protocol that was offered         both connections leave HTTP (`tunnel.py`)
          101 with another one, or unasked               502: nothing is passed on
          anything else                                  it is passed on and the client's connection ends with it, for what came
                                                         behind the head was meant for the other protocol

What can go wrong. `h2c` must never be among a route's protocols: its tunnel would carry requests past all guards.
"""

from __future__ import annotations

from typing import Final

from sidecar.proxy.fields import read_options
from sidecar.proxy.framing import RequestHead, ResponseHead

SWITCHED: Final = 101


def offered(head: RequestHead, allowed: frozenset[bytes]) -> bytes:
    """Return the protocol that *head* offers and that is passed on; empty when none is."""
    if not head.upgrade or head.method != "GET" or head.minor != 1 or head.has_body:
        return b""
    for token in head.named[b"upgrade"].lower().split(b","):
        if token.strip(b" \t") in allowed:
            return token.strip(b" \t")
    return b""


def with_offer(head: bytes, protocol: bytes) -> bytes:
    """Return the written *head*, of a request or a 101, with the protocol that it is about."""
    return b"%bconnection: upgrade\r\nupgrade: %b\r\n\r\n" % (head[:-2], protocol)


def agrees(head: ResponseHead, protocol: bytes) -> bool:
    """Tell whether the 101 *head* switches to *protocol*."""
    if not protocol or head.named.get(b"upgrade", b"").lower() != protocol:
        return False
    return read_options(head.named.get(b"connection", b"")).upgrade
