"""
This install as one hop of a message's way, and who stands at the other end of a connection.

Theory.   Who a client is decides what it may do, so only what cannot be forged counts: the socket's address, and beyond it what
          trusted proxies say, read from the right, hop by hop (RFC 7239, section 8.1). The client is the first address
          from the right that is not trusted; a hop that is no address ends the walk at its right neighbour.

What can go wrong. A trusted peer may send X-Forwarded-For and Forwarded, and they may differ. X-Forwarded-For is believed
          then, because proxies that know only one of them pass the other as the client wrote it, and nearly all know that one.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from base64 import b64encode
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from sidecar.proxy.addresses import IPNetwork, client_key_of, node, read_address, read_chain
from sidecar.proxy.framing import RequestHead
from sidecar.reasons import Reason, Refusal

_MAX_HASHED: Final = 256  # a header value up to this length may be remembered with its hash
_LOOP: Final = Refusal(Reason.LOOP_DETECTED, 0.0, "via", "the request has passed this sidecar before")


class Peer(NamedTuple):
    """
    The other end of one downstream connection; computed once for all its requests.

    Attributes:
        address: Its address as text; `unknown` when the socket could not tell.
        key: Its client key: the address, an IPv6 one by its /64.
        trusted: Its forwarding fields count.
        scheme: What it speaks to us: http or https.
        lines: X-Forwarded-For and -Proto when it is not trusted, and Client-Cert.
        element: Its element of Forwarded, up to the host.
    """

    address: str
    key: str
    trusted: bool
    scheme: bytes
    lines: bytes
    element: bytes


NOBODY: Final = Peer("unknown", "unknown", trusted=False, scheme=b"http", lines=b"", element=b"for=unknown")


def _shown(certificate: bytes) -> bytes:
    return b"client-cert: :%b:\r\n" % b64encode(certificate) if certificate else b""


class Hop:
    """
    What this install adds to every message: its pseudonym, whom it trusts, its key.

    Immutable but for bounded memories of addresses and hashed values; a new config makes a new one.
    """

    def __init__(
        self, *, pseudonym: str, install_key: bytes, trusted: Sequence[str] = (), tracing: bool = True
    ) -> None:
        """
        Prepare all constant bytes.

        Args:
            pseudonym: This install's token in Via, as `sidecar-1a2b3c4d`.
            install_key: Secret of this install, for header client keys.
            trusted: CIDR texts or addresses.
            tracing: Make a traceparent where there is none.
        """
        token = pseudonym.encode("ascii")
        self.pseudonym = pseudonym
        self.tracing = tracing
        self.via = (b"via: 1.0 %b\r\n" % token, b"via: 1.1 %b\r\n" % token)
        self._own = re.compile(rb"(?:^|[\s,])" + re.escape(token) + rb"(?:$|[\s,])", re.IGNORECASE)
        self._key = install_key
        self._networks: tuple[IPNetwork, ...] = tuple(ipaddress.ip_network(text, strict=False) for text in trusted)
        self._trusts = lru_cache(maxsize=4096)(self._is_trusted)
        self._hashed = lru_cache(maxsize=4096)(self._hash)

    def __repr__(self) -> str:
        return f"<Hop {self.pseudonym} trusting {len(self._networks)} networks>"

    def peer(self, address: str | None, scheme: str = "http", certificate: bytes = b"") -> Peer:
        """
        Describe the other end of a connection.

        Args:
            address: None is a peer that has gone before it could be asked.
            scheme: http or https.
            certificate: What it was verified by, in DER; sent on as Client-Cert (RFC 9440).
        """
        found = read_address(address or "")
        text = "unknown" if found is None else str(found)
        return Peer(
            text,
            "unknown" if found is None else client_key_of(found),
            found is not None and self._trusts(text),
            scheme.encode("ascii"),
            f"x-forwarded-for: {text}\r\nx-forwarded-proto: {scheme}\r\n".encode("ascii") + _shown(certificate),
            f"for={node(found)};proto={scheme}".encode("ascii"),
        )

    def loops(self, head: RequestHead) -> Refusal | None:
        """Refuse a request that has passed here before: its Via holds our own token."""
        via = head.named.get(b"via")
        return _LOOP if via is not None and self._own.search(via) else None

    def client_address(self, peer: Peer, head: RequestHead) -> str:
        """Return the client's address: the peer's own, or from the right the first one that no trusted peer has."""
        client = peer.address
        if not peer.trusted:
            return client
        for hop in reversed(read_chain(head.named)):
            found = read_address(hop)
            if found is None:
                return client
            client = str(found)
            if not self._trusts(client):
                return client
        return client

    def client_key(self, rule: str, peer: Peer, head: RequestHead) -> str:
        """
        Return who the client is on a route.

        Args:
            rule: `address` or `header:NAME` in lower case; a request without that field falls back to the address.
            peer: The connection's other end.
            head: The request.

        Returns:
            An address, an IPv6 /64 as `2001:db8:1:2::/64`, or `h-` and 16 hex digits of HMAC(install key, value).
        """
        if rule != "address":
            value = head.named.get(rule.removeprefix("header:").encode("ascii"))
            if value:
                return self.header_key(value)
        if not peer.trusted:
            return peer.key
        found = read_address(self.client_address(peer, head))
        return peer.key if found is None else client_key_of(found)

    def header_key(self, value: bytes) -> str:
        """Return the client key of a header's value; the value itself goes nowhere."""
        return self._hashed(value) if len(value) <= _MAX_HASHED else self._hash(value)

    def _hash(self, value: bytes) -> str:
        return "h-" + hmac.new(self._key, value, hashlib.sha256).hexdigest()[:16]

    def _is_trusted(self, address: str) -> bool:
        found = ipaddress.ip_address(address)
        return any(found.version == network.version and found in network for network in self._networks)
