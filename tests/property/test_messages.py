"""Any bytes in: a head or a refusal, never an exception; what is accepted, an independent parser reads alike."""

from __future__ import annotations

import h11
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.proxy.body import ChunkedBody, LengthBody, encode_chunk
from sidecar.proxy.framing import RequestHead, ResponseHead, find_head_end, parse_request_head, parse_response_head
from sidecar.proxy.headers import request_head, response_head
from sidecar.proxy.hop import Hop
from sidecar.proxy.respond import render
from sidecar.proxy.scan import judge_request, judge_response
from sidecar.reasons import Reason, Refusal

HOP = Hop(pseudonym="sidecar-1a2b3c4d", install_key=b"key", trusted=("10.0.0.0/8",))
SOME = settings(max_examples=200, deadline=None)

# Pieces that heads are made of, and what attackers put between them.
SPICE = [
    b" ", b"\t", b"\r", b"\n", b"\r\n", b"\x00", b"\x0b", b"\x7f", b"\xff", b",", b";", b":", b"%", b"/", b"//", b"..", b"%2e", b"%2F", b"*", b"@", b"+", b"0x", b"_",
    b"5", b"chunked", b"close", b"upgrade", b"100-continue", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"GET", b"http://", b"a", b"[::1]", b"99999999999999999999",
]  # fmt: skip
NAMES = [
    b"Host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Upgrade", b"Expect", b"TE", b"Trailer", b"Via", b"X-Forwarded-For", b"Forwarded", b"Cookie",
    b"traceparent", b"X", b"X_Forwarded_For", b"Proxy-Foo",
]  # fmt: skip
VALUES = [
    b"a",
    b"5",
    b"chunked",
    b"close",
    b"x",
    b"a, b",
    b"100-continue",
    b"trailers",
    b"10.0.0.1",
    b"sidecar_session=1; a=b",
    b"",
    b"for=1.2.3.4",
    b"upgrade",
]
spice = st.lists(st.sampled_from(SPICE), max_size=4).map(b"".join)
field = st.tuples(
    st.sampled_from(NAMES), st.sampled_from([b": ", b":", b" : ", b":\t"]), st.sampled_from(VALUES) | spice
).map(b"".join)
target = st.sampled_from([b"/", b"/a?b", b"*", b"http://a/b", b"/a//b;c", b"/%61%2Fb"]) | spice
start = st.tuples(
    st.sampled_from([b"GET", b"POST", b"OPTIONS", b"FOO"]), target, st.sampled_from([b"HTTP/1.1", b"HTTP/1.0"])
).map(b" ".join)
status = st.tuples(
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/3"]),
    st.sampled_from([b"200", b"204", b"304", b"100", b"099"]),
    spice,
).map(b" ".join)


def heads(first: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Make heads that are nearly right, often with a Host."""
    lines = st.tuples(first, st.sampled_from([b"Host: a", b"X: y"]), st.lists(field, max_size=5).map(b"\r\n".join))
    return lines.map(lambda parts: b"\r\n".join(part for part in parts if part) + b"\r\n\r\n")


def mutated(draw: st.DrawFn, raw: bytes) -> bytes:
    """Insert or delete at some places."""
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(raw)))
        raw = raw[:at] + draw(st.sampled_from(SPICE)) + raw[at + draw(st.integers(0, 2)) :]
    return raw


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Make request heads of every quality."""
    return mutated(draw, draw(heads(start)))


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    """Make response heads of every quality."""
    return mutated(draw, draw(heads(status)))


def reread_request(raw: bytes) -> h11.Request:
    """Read a head with h11, as a server would."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(raw)
    event = server.next_event()
    assert isinstance(event, h11.Request), event
    return event


@SOME
@given(st.binary(max_size=300) | requests())
def test_any_bytes_are_a_request_or_a_refusal(raw: bytes) -> None:
    """Whole or partial, nothing raises."""
    assert isinstance(parse_request_head(raw), RequestHead | Refusal)
    assert isinstance(judge_request(raw, 0), Refusal | None)


@SOME
@given(st.binary(max_size=300) | responses(), st.sampled_from(["GET", "HEAD"]))
def test_any_bytes_are_a_response_or_a_problem(raw: bytes, method: str) -> None:
    """Whole or partial, nothing raises."""
    assert isinstance(parse_response_head(raw, method), ResponseHead | str)
    assert isinstance(judge_response(raw, 0), str | None)


@SOME
@given(requests())
def test_h11_reads_what_we_accept_alike(raw: bytes) -> None:
    """Method, target, version, host and framing are the same to an independent parser."""
    head = parse_request_head(raw)
    if isinstance(head, Refusal):
        return
    assert raw.count(b"\r\n\r\n") == 1
    other = reread_request(raw.removeprefix(b"\r\n"))
    assert other.method.decode() == head.method
    assert other.http_version == b"1.%d" % head.minor
    assert list(other.headers) == head.fields or head.chunked  # h11 lowers the coding's case
    hosts = [value for name, value in other.headers if name == b"host"]
    assert head.host in (hosts or [b""]) or other.target.lower().startswith(b"http://")
    assert head.target == other.target or b"%" in other.target or b"://" in other.target
    lengths = [int(value) for name, value in other.headers if name == b"content-length"]
    assert lengths == ([] if head.content_length is None else [head.content_length])
    assert head.chunked is any(name == b"transfer-encoding" for name, _ in other.headers)


@SOME
@given(requests(), st.sampled_from(["192.0.2.1", "10.0.0.1", "2001:db8::1"]), st.binary(min_size=24, max_size=24))
def test_what_goes_upstream_is_one_unambiguous_head(raw: bytes, address: str, random: bytes) -> None:
    """Valid header bytes whatever came in: we and h11 accept it, it says the same, and hop-by-hop fields are gone."""
    head = parse_request_head(raw)
    if isinstance(head, Refusal):
        return
    trace = b"traceparent: 00-%b-%b-01\r\n\r\n" % (random[:16].hex().encode(), random[16:].hex().encode())
    text = request_head(head, HOP.peer(address), HOP, trace, b"api")
    again = parse_request_head(text)
    assert isinstance(again, RequestHead), again
    assert (again.method, again.target, again.path, again.host) == (
        head.method,
        head.target,
        head.path,
        head.host or b"api",
    )
    assert (again.content_length, again.chunked, again.minor) == (head.content_length, head.chunked, 1)
    assert not again.named.keys() & {b"upgrade", b"keep-alive", b"proxy-foo", b"x_forwarded_for"}
    assert b"sidecar_session" not in text
    assert reread_request(text).target == head.target
    assert HOP.loops(again) is not None
    for name in (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded", b"traceparent"):
        assert text.count(b"\r\n" + name + b": ") == 1


@SOME
@given(responses(), st.sampled_from(["GET", "HEAD"]), st.sampled_from([0, 1]), st.booleans())
def test_what_goes_downstream_is_one_unambiguous_head(raw: bytes, method: str, minor: int, close: bool) -> None:
    """We and h11 accept it, with the same status."""
    head = parse_response_head(raw, method)
    if isinstance(head, str):
        return
    text = response_head(head, HOP, minor, close)
    again = parse_response_head(text, method)
    assert isinstance(again, ResponseHead), again
    assert (again.status, again.bodiless) == (head.status, head.bodiless)
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("host", "a")]))
    client.receive_data(text)
    event = client.next_event()
    assert isinstance(event, h11.Response | h11.InformationalResponse), event
    assert event.status_code == head.status


@SOME
@given(requests(), st.lists(st.integers(1, 400), max_size=6))
def test_the_end_of_a_head_is_found_however_it_arrives(raw: bytes, cuts: list[int]) -> None:
    """Any cutting into pieces gives the same offset."""
    whole = find_head_end(raw)
    seen = 0
    for size in [*sorted(cut for cut in cuts if cut < len(raw)), len(raw)]:
        found = find_head_end(raw[:size], seen)
        seen = size
        if found >= 0:
            break
    assert found == whole


@SOME
@given(requests())
def test_no_valid_head_is_refused_while_it_arrives(raw: bytes) -> None:
    """Each beginning of an accepted head is waited for."""
    if isinstance(parse_request_head(raw), RequestHead):
        for size in range(len(raw)):
            assert judge_request(raw[:size], max(0, size - 1)) is None


@st.composite
def chunked(draw: st.DrawFn) -> bytes:
    """Make chunked bodies of every quality, with bytes behind them."""
    payloads = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=5))
    extension = draw(st.sampled_from([b"", b";a", b';a="b;c"', b" ; a = b", b";"]))
    chunks = [b"%X%b\r\n%b\r\n" % (len(payload), extension, payload) for payload in payloads]
    end = draw(st.sampled_from([b"0\r\n\r\n", b"000\r\nA: b\r\n\r\n", b"0\r\nA : b\r\n\r\n", b""]))
    return mutated(draw, b"".join(chunks) + end + draw(st.sampled_from([b"", b"GET / HTTP/1.1\r\n"])))


@SOME
@given(chunked(), st.lists(st.integers(1, 250), max_size=6))
def test_a_chunked_body_is_the_same_however_it_arrives(raw: bytes, cuts: list[int]) -> None:
    """Payload, end, trailers and verdict do not depend on the cutting."""
    whole = ChunkedBody()
    payload, used = whole.feed(raw)
    pieces, taken, last = b"", 0, 0
    cut = ChunkedBody()
    for size in [*sorted(cut_at for cut_at in cuts if cut_at < len(raw)), len(raw)]:
        piece, count = cut.feed(raw[last:size])
        pieces += piece
        taken += count
        last = size
    assert (cut.complete, cut.trailers, bool(cut.problem)) == (whole.complete, whole.trailers, bool(whole.problem))
    assert pieces == payload
    assert whole.problem or taken == used


@SOME
@given(chunked())
def test_h11_decodes_what_we_accept_alike(raw: bytes) -> None:
    """Where we find a whole body, h11 finds the same one and the same bytes behind it."""
    ours = ChunkedBody()
    payload, used = ours.feed(raw)
    if not ours.complete or b" ;" in raw or b"\t;" in raw:  # h11 knows no white space there (RFC 9112, section 7.1.1)
        return
    server = h11.Connection(h11.SERVER)
    server.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + raw)
    assert isinstance(server.next_event(), h11.Request)
    theirs = b""
    while not isinstance(event := server.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Data), event
        theirs += bytes(event.data)
    assert theirs == payload
    assert server.trailing_data[0] == raw[used:]


@SOME
@given(st.lists(st.binary(min_size=1, max_size=100), max_size=5))
def test_what_we_encode_we_decode(payloads: list[bytes]) -> None:
    """Chunks are written as they are read."""
    body = ChunkedBody()
    raw = b"".join(map(encode_chunk, payloads)) + b"0\r\n\r\n"
    assert body.feed(raw) == (b"".join(payloads), len(raw))
    assert body.complete


@SOME
@given(st.integers(0, 50), st.lists(st.binary(max_size=20), max_size=6))
def test_a_length_body_takes_exactly_its_length(length: int, pieces: list[bytes]) -> None:
    """However the bytes arrive."""
    body, raw = LengthBody(length), b"".join(pieces)
    taken = b"".join(body.feed(piece)[0] for piece in pieces)
    assert taken == raw[:length]
    assert body.complete is (len(raw) >= length)


@SOME
@given(
    st.sampled_from(list(Reason)),
    st.text(max_size=40),
    st.text(max_size=40),
    st.floats(0, 1e6),
    st.sampled_from(["full", "reason", "none"]),
)
def test_every_refusal_is_a_valid_answer(reason: Reason, rule: str, detail: str, wait_s: float, explain: str) -> None:
    """Whatever the texts are, the head is valid and the body as long as it says."""
    if reason is Reason.CLIENT_DISCONNECTED:
        return
    raw = render(Refusal(reason, wait_s, rule, detail), decision="d", explain=explain, jitter_ratio=0.5)
    end = find_head_end(raw)
    head = parse_response_head(raw[:end], "GET")
    assert isinstance(head, ResponseHead), head
    assert head.content_length == len(raw) - end
