"""Which fields cross: the table of `headers.py`, row by row, in both directions."""

from __future__ import annotations

import pytest

from sidecar.proxy.framing import RequestHead, ResponseHead, parse_request_head, parse_response_head
from sidecar.proxy.headers import must_close, rechunks, request_head, response_head, trailer_section
from sidecar.proxy.hop import Hop

HOP = Hop(pseudonym="sidecar-1a2b3c4d", install_key=b"key", trusted=("10.0.0.0/8",))
TRACE = b"traceparent: 00-0123456789abcdef0123456789abcdef-fedcba9876543210-01\r\n\r\n"
CLIENT, PROXY = "192.0.2.1", "10.0.0.1"


def sent(*fields: str, start: str = "GET /a HTTP/1.1", peer: str = CLIENT, hop: Hop = HOP) -> list[str]:
    """Send a request with these fields through; return the lines that the upstream gets."""
    host = [] if start.endswith("1.0") else ["Host: shop"]
    raw = "\r\n".join([start, *host, *fields, "", ""]).encode("latin-1")
    head = parse_request_head(raw)
    assert isinstance(head, RequestHead), head
    text = request_head(head, hop.peer(peer), hop, TRACE).decode("latin-1")
    assert text.endswith("\r\n\r\n")
    return text[:-4].split("\r\n")


def named(lines: list[str], name: str) -> list[str]:
    """Return the values of all fields of this name."""
    return [line.partition(": ")[2] for line in lines[1:] if line.partition(": ")[0] == name]


def back(raw: bytes, *, method: str = "GET", minor: int = 1, close: bool = False) -> list[str]:
    """Send a response through; return the lines that the client gets."""
    head = parse_response_head(raw, method)
    assert isinstance(head, ResponseHead), head
    text = response_head(head, HOP, minor, close).decode("latin-1")
    assert text.endswith("\r\n\r\n")
    return text[:-4].split("\r\n")


def test_a_plain_request() -> None:
    """Host first, the client's fields in order, then what the sidecar vouches for."""
    assert sent("Accept: x", "User-Agent: y") == [
        "GET /a HTTP/1.1",
        "host: shop",
        "accept: x",
        "user-agent: y",
        "x-forwarded-for: 192.0.2.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: shop",
        'forwarded: for=192.0.2.1;proto=http;host="shop"',
        "via: 1.1 sidecar-1a2b3c4d",
        "traceparent: 00-0123456789abcdef0123456789abcdef-fedcba9876543210-01",
    ]


def test_a_request_of_1_0_goes_on_as_1_1() -> None:
    """Without Host it gets the endpoint's; Via tells what it was."""
    head = parse_request_head(b"GET / HTTP/1.0\r\n\r\n")
    assert isinstance(head, RequestHead)
    lines = request_head(head, HOP.peer(CLIENT), HOP, TRACE, b"api:9000").decode().split("\r\n")
    assert lines[0] == "GET / HTTP/1.1"
    assert named(lines, "host") == ["api:9000"]
    assert named(lines, "via") == ["1.0 sidecar-1a2b3c4d"]
    assert named(sent(start="GET / HTTP/1.0"), "host") == [""]


@pytest.mark.parametrize(
    "field",
    [
        "Connection: keep-alive", "Keep-Alive: timeout=5", "Proxy-Connection: close", "Proxy-Authorization: x", "Proxy-Foo: x", "Upgrade: h2c", "HTTP2-Settings: x",
        "TE: gzip", "Trailer: X", "X-Real-IP: 6.6.6.6", "X-Forwarded-Port: 1", "X-Forwarded-User: root", "X-Forwarded-By: x",
        "X_Forwarded_For: 6.6.6.6", "X_Real-IP: 6.6.6.6", "Transfer_Encoding: chunked", "Content_Length: 5", "Proxy_Authorization: x", "tracestate: a=b", "traceparent: x",
    ],
)  # fmt: skip
def test_fields_that_end_here(field: str) -> None:
    """Hop-by-hop, Proxy-*, forwarding claims of strangers, and spellings that only some upstreams equate."""
    name, _, value = field.lower().partition(": ")
    assert value not in named(sent(field, "Z: z"), name)
    assert named(sent(field, "Z: z"), "z") == ["z"]


def test_fields_that_cross() -> None:
    """Everything else, also with underscores, repeated lines and bytes beyond ASCII."""
    lines = sent("X_Foo: 1", "Accept: a", "Accept: b", "Cookie: a=b", "Authorization: x", "Max-Forwards: 5", "X: \xe9")
    assert named(lines, "x_foo") == ["1"]
    assert named(lines, "accept") == ["a", "b"]
    assert named(lines, "cookie") == ["a=b"]
    assert named(lines, "authorization") == ["x"]
    assert named(lines, "max-forwards") == ["5"]
    assert named(lines, "x") == ["\xe9"]


def test_nominated_fields_end_here_but_never_ours() -> None:
    """Connection cannot remove what the sidecar sets, nor the framing."""
    lines = sent(
        "Connection: X-A, Host, Via, X-Forwarded-For, Forwarded, Content-Length, Traceparent, Cookie", "X-A: 1", "X-B: 2",
        "Content-Length: 5", "Cookie: a=b", "traceparent: 00-" + "1" * 32 + "-" + "2" * 16 + "-01", start="POST / HTTP/1.1",
    )  # fmt: skip
    assert named(lines, "x-a") == named(lines, "cookie") == named(lines, "connection") == []
    assert named(lines, "x-b") == ["2"]
    assert named(lines, "host") == ["shop"]
    assert named(lines, "content-length") == ["5"]
    assert named(lines, "x-forwarded-for") == [CLIENT]
    assert len(named(lines, "forwarded")) == len(named(lines, "via")) == len(named(lines, "traceparent")) == 1


def test_forwarding_fields_of_strangers_are_overwritten() -> None:
    """Nobody but a trusted peer says who the client is."""
    lines = sent(
        "X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil", "Forwarded: for=6.6.6.6",
        peer="2001:db8::1",
    )  # fmt: skip
    assert named(lines, "x-forwarded-for") == ["2001:db8::1"]
    assert named(lines, "x-forwarded-proto") == ["http"]
    assert named(lines, "x-forwarded-host") == ["shop"]
    assert named(lines, "forwarded") == ['for="[2001:db8::1]";proto=http;host="shop"']


def test_forwarding_fields_of_trusted_peers_are_appended() -> None:
    """The chain grows by the peer; its other claims stand."""
    lines = sent(
        "X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: HTTPS", "X-Forwarded-Host: public", "Forwarded: for=6.6.6.6;by=x",
        "X-Forwarded-Port: 443", "X-Real-IP: 6.6.6.6", "X_Forwarded_Port: 1", peer=PROXY,
    )  # fmt: skip
    assert named(lines, "x-forwarded-for") == ["6.6.6.6, 10.0.0.1"]
    assert named(lines, "x-forwarded-proto") == ["https"]
    assert named(lines, "x-forwarded-host") == ["public"]
    assert named(lines, "forwarded") == ['for=6.6.6.6;by=x, for=10.0.0.1;proto=http;host="shop"']
    assert named(lines, "x-forwarded-port") == ["443"]
    assert named(lines, "x-real-ip") == ["6.6.6.6"]
    assert named(lines, "x_forwarded_port") == []


def test_a_missing_chain_of_a_trusted_peer_is_made_from_the_other() -> None:
    """So both tell the same clients; a first hop starts both."""
    lines = sent("X-Forwarded-For: 6.6.6.6, 2001:db8::1", "X-Forwarded-Proto: gopher", peer=PROXY)
    assert named(lines, "forwarded") == ['for=6.6.6.6, for="[2001:db8::1]", for=10.0.0.1;proto=http;host="shop"']
    assert named(lines, "x-forwarded-proto") == ["http"]
    lines = sent('Forwarded: for="[2001:db8::1]:5"', peer=PROXY)
    assert named(lines, "x-forwarded-for") == ["2001:db8::1, 10.0.0.1"]
    lines = sent(peer=PROXY)
    assert named(lines, "x-forwarded-for") == ["10.0.0.1"]
    assert named(lines, "forwarded") == ['for=10.0.0.1;proto=http;host="shop"']


def test_via_is_appended() -> None:
    """Ours stands last."""
    assert named(sent("Via: 1.0 a", "Via: 1.1 b"), "via") == ["1.0 a, 1.1 b", "1.1 sidecar-1a2b3c4d"]


@pytest.mark.parametrize(
    ("parent", "passes"),
    [
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", True),
        ("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", True),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", False),
        ("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", False),
        ("00-00000000000000000000000000000000-b7ad6b7169203331-01", False),
        ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", False),
        ("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", False),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", False),
    ],
)
def test_traceparent(parent: str, *, passes: bool) -> None:
    """A valid one passes with its tracestate; else a new one is made and the state dropped."""
    lines = sent(f"traceparent: {parent}", "tracestate: a=b")
    new = "00-0123456789abcdef0123456789abcdef-fedcba9876543210-01"
    assert named(lines, "traceparent") == [parent if passes else new]
    assert named(lines, "tracestate") == (["a=b"] if passes else [])


def test_tracing_can_be_off() -> None:
    """Then none is made, and a valid one still passes."""
    off = Hop(pseudonym="sidecar-1", install_key=b"", tracing=False)
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert named(sent(hop=off), "traceparent") == []
    assert named(sent(f"traceparent: {parent}", hop=off), "traceparent") == [parent]


def test_framing_of_requests_is_written_anew() -> None:
    """One canonical length, or chunked with its announced trailers; Expect and TE under their conditions."""
    post = "POST / HTTP/1.1"
    assert named(sent("Content-Length: 007", start=post), "content-length") == ["7"]
    assert named(sent("Content-Length: 0", start=post), "content-length") == ["0"]
    lines = sent("Transfer-Encoding: Chunked", "Trailer: X", "TE: trailers;q=1, trailers", "Connection: TE", start=post)
    assert named(lines, "transfer-encoding") == ["chunked"]
    assert named(lines, "trailer") == ["X"]
    assert named(lines, "te") == ["trailers"]
    assert named(lines, "connection") == ["te"]
    assert named(sent("Expect: 100-continue", "Content-Length: 5", start=post), "expect") == ["100-continue"]
    assert named(sent("Expect: 100-continue", start=post), "expect") == []


@pytest.mark.parametrize(
    ("cookie", "kept"),
    [
        ("a=b; sidecar_session=x; c=d", ["a=b; c=d"]), ("sidecar_session=x", []), ("sidecar_session=x; a=b", ["a=b"]), ("a=b;sidecar_session=x", ["a=b"]),
        ("my_sidecar_session=x", ["my_sidecar_session=x"]), ("a=sidecar_session", ["a=sidecar_session"]), ("sidecar_session = x; sidecar_session=y", []),
    ],
)  # fmt: skip
def test_the_consoles_cookie_stays_here(cookie: str, kept: list[str]) -> None:
    """It is a key to the sidecar, not to the service."""
    assert named(sent(f"Cookie: {cookie}"), "cookie") == kept


def test_a_plain_response() -> None:
    """Its fields in order, then framing and Via."""
    assert back(b"HTTP/1.1 200 Fine\r\nServer: x\r\nContent-Length: 05\r\nDate: y\r\n\r\n") == [
        "HTTP/1.1 200 Fine", "server: x", "date: y", "content-length: 5", "via: 1.1 sidecar-1a2b3c4d",
    ]  # fmt: skip


def test_response_fields_that_end_here() -> None:
    """Hop-by-hop, nominated and Proxy-* but Proxy-Status; repeated ones keep their lines."""
    lines = back(
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-A\r\nKeep-Alive: x\r\nX-A: 1\r\nUpgrade: h2c\r\nProxy-Authenticate: x\r\n"
        b"Proxy-Status: y\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nVia: 1.1 z\r\nTE: x\r\nContent-Length: 0\r\n\r\n"
    )
    for name in ("connection", "keep-alive", "x-a", "upgrade", "proxy-authenticate", "te"):
        assert named(lines, name) == []
    assert named(lines, "proxy-status") == ["y"]
    assert named(lines, "set-cookie") == ["a", "b"]
    assert named(lines, "via") == ["1.1 z", "1.1 sidecar-1a2b3c4d"]
    assert named(back(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"), "connection") == []


def test_framing_of_responses_is_written_anew() -> None:
    """By length, else chunked to a 1.1 client and until close to a 1.0 client; none where there is no body."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n"
    until_close = b"HTTP/1.0 200 OK\r\nTrailer: X\r\n\r\n"
    for raw in (chunked, until_close):
        head = parse_response_head(raw, "GET")
        assert isinstance(head, ResponseHead)
        assert (rechunks(head, 1), must_close(head, 1)) == (True, False)
        assert (rechunks(head, 0), must_close(head, 0)) == (False, True)
        assert named(back(raw), "transfer-encoding") == ["chunked"]
        assert named(back(raw, minor=0, close=True), "transfer-encoding") == []
    assert named(back(chunked), "trailer") == ["X"]
    assert named(back(until_close), "trailer") == []
    length = b"HTTP/1.1 %b X\r\nContent-Length: 5\r\n\r\n"
    assert named(back(length % b"204"), "content-length") == []
    assert named(back(length % b"103"), "content-length") == []
    assert named(back(length % b"304"), "content-length") == ["5"]
    assert named(back(length % b"200", method="HEAD"), "content-length") == ["5"]
    assert named(back(chunked, method="HEAD"), "transfer-encoding") == []


def test_connection_to_the_client() -> None:
    """Said only where it differs from what the client's version implies."""
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    assert named(back(raw), "connection") == []
    assert named(back(raw, close=True), "connection") == ["close"]
    assert named(back(raw, minor=0), "connection") == ["keep-alive"]
    assert named(back(raw, minor=0, close=True), "connection") == ["close"]


def test_trailers_that_would_change_what_was_read_are_dropped() -> None:
    """Framing, routing, credentials and the like; the rest closes the last chunk."""
    trailers = ((b"x-sum", b"1"), (b"content-length", b"5"), (b"transfer_encoding", b"chunked"), (b"cookie", b"a"))
    assert trailer_section(trailers) == b"0\r\nx-sum: 1\r\n\r\n"
    assert trailer_section(()) == b"0\r\n\r\n"
