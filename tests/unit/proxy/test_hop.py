"""Who the client is: the socket's peer, or what trusted proxies say of it."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from sidecar.proxy.addresses import as_forwarded, as_forwarded_for, read_address, read_chain
from sidecar.proxy.framing import RequestHead, parse_request_head
from sidecar.proxy.hop import Hop
from sidecar.reasons import Reason

HOP = Hop(pseudonym="sidecar-1a2b3c4d", install_key=b"key", trusted=("10.0.0.0/8", "2001:db8:ffff::/48", "192.0.2.7"))


def head(*fields: str) -> RequestHead:
    """Make a request with these fields."""
    lines = "".join(f"{field}\r\n" for field in fields)
    read = parse_request_head(f"GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n".encode("latin-1"))
    assert isinstance(read, RequestHead), read
    return read


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"), ("192.0.2.1:80", "192.0.2.1"), ("2001:db8::1", "2001:db8::1"), ("[2001:db8::1]", "2001:db8::1"), ("[2001:db8::1]:80", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"), ("fe80::1%eth0", "fe80::1"), ("", None), ("unknown", None), ("_hidden", None), ("192.0.2", None), ("192.0.2.01", None),
        ("[::1", None), ("1.2.3.4:x", None), ("999.0.0.1:80", None), ("[x]:80", None),
    ],
)  # fmt: skip
def test_read_address(text: str, address: str | None) -> None:
    """With or without port and brackets; mapped IPv4 is IPv4; anything else is none."""
    found = read_address(text)
    assert (None if found is None else str(found)) == address


def test_chains() -> None:
    """X-Forwarded-For before Forwarded; each can be written as the other."""
    assert read_chain({}) == []
    assert read_chain({b"x-forwarded-for": b"a, b", b"forwarded": b"for=c"}) == ["a", "b"]
    forwarded = {b"forwarded": b'for=192.0.2.1;proto=http, proto=https;For="[2001:db8::1]:80", by=x, for=_x, for='}
    assert read_chain(forwarded) == ["192.0.2.1", "[2001:db8::1]:80", "unknown", "_x", "unknown"]
    assert as_forwarded_for(read_chain(forwarded)) == b"192.0.2.1, 2001:db8::1, unknown, unknown, unknown"
    assert as_forwarded(["192.0.2.1", "2001:db8::1", "junk"]) == b'for=192.0.2.1, for="[2001:db8::1]", for=unknown'


def test_peers() -> None:
    """Trust and key are known once a connection."""
    assert HOP.peer("192.0.2.1").key == "192.0.2.1"
    assert not HOP.peer("192.0.2.1").trusted
    assert HOP.peer("192.0.2.7").trusted
    assert HOP.peer("::ffff:10.1.2.3").trusted
    assert HOP.peer("2001:db8:1:2:3:4:5:6").key == "2001:db8:1:2::/64"
    assert HOP.peer(None).address == "unknown"
    assert not HOP.peer("").trusted
    assert repr(HOP) == "<Hop sidecar-1a2b3c4d trusting 3 networks>"


@pytest.mark.parametrize(
    ("peer", "chain", "client"),
    [
        ("192.0.2.1", "198.51.100.9", "192.0.2.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.9", "198.51.100.9"),
        ("10.0.0.1", "6.6.6.6, 198.51.100.9", "198.51.100.9"),
        ("10.0.0.1", "6.6.6.6, 198.51.100.9, 10.0.0.2, 192.0.2.7", "198.51.100.9"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "198.51.100.9, garbage", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.9, garbage, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "198.51.100.9:1234", "198.51.100.9"),
    ],
)
def test_the_client_is_the_first_untrusted_hop_from_the_right(peer: str, chain: str, client: str) -> None:
    """Whatever stands left of it was written by somebody whom nobody vouches for."""
    request = head(f"X-Forwarded-For: {chain}") if chain else head()
    assert HOP.client_address(HOP.peer(peer), request) == client


def test_client_keys() -> None:
    """The address, an IPv6 one by its /64, or the HMAC of a header; a missing header falls back."""
    peer = HOP.peer("192.0.2.1")
    digest = hmac.new(b"key", b"secret", hashlib.sha256).hexdigest()[:16]
    assert HOP.client_key("address", peer, head()) == "192.0.2.1"
    assert HOP.client_key("header:x-api-key", peer, head("X-Api-Key: secret")) == f"h-{digest}"
    assert HOP.client_key("header:x-api-key", peer, head()) == "192.0.2.1"
    assert HOP.client_key("header:x-api-key", peer, head("X-Api-Key:")) == "192.0.2.1"
    assert HOP.client_key("header:x-api-key", peer, head("X-Api-Key: " + "s" * 300)).startswith("h-")
    proxied = head("X-Forwarded-For: 2001:db8:1:2:3::4")
    assert HOP.client_key("address", HOP.peer("10.0.0.1"), proxied) == "2001:db8:1:2::/64"
    assert HOP.client_key("address", HOP.peer("10.0.0.1"), head()) == "10.0.0.1"


@pytest.mark.parametrize(
    ("via", "loops"),
    [("1.1 sidecar-1a2b3c4d", True), ("1.0 x, 1.1 SIDECAR-1a2b3c4d (y), 1.1 z", True), ("1.1 sidecar-1a2b3c4de", False), ("1.1 x-sidecar-1a2b3c4d", False)],
)  # fmt: skip
def test_loops(via: str, *, loops: bool) -> None:
    """Our own token in Via, whole, is a loop; another sidecar is not."""
    refusal = HOP.loops(head(f"Via: {via}"))
    assert (refusal is not None) is loops
    assert refusal is None or refusal.reason is Reason.LOOP_DETECTED
    assert HOP.loops(head()) is None
