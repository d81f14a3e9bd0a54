"""Heads: the table of `framing.py`, row by row."""

from __future__ import annotations

import pytest

from sidecar.proxy.fields import MAX_FIELDS
from sidecar.proxy.framing import (
    MAX_HEAD_BYTES,
    RequestHead,
    ResponseHead,
    find_head_end,
    parse_request_head,
    parse_response_head,
)
from sidecar.reasons import Reason, Refusal


def request(text: str) -> RequestHead | Refusal:
    """Read a head whose lines are given with \\n and without Host and blank line."""
    start, _, rest = text.partition("\n")
    lines = [start, "Host: a", *([rest] if rest else [])]
    return parse_request_head("\n".join(lines).replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n")


def accepted(text: str) -> RequestHead:
    """Read a head that must be accepted."""
    head = request(text)
    assert isinstance(head, RequestHead), head
    return head


def refused(raw: bytes) -> Reason:
    """Read a head that must be refused; return why."""
    head = parse_request_head(raw)
    assert isinstance(head, Refusal), head
    return head.reason


def response(raw: bytes, method: str = "GET") -> ResponseHead:
    """Read a response head that must be accepted."""
    head = parse_response_head(raw, method)
    assert isinstance(head, ResponseHead), head
    return head


def test_a_plain_request() -> None:
    """Every attribute of a common head."""
    head = accepted("GET /a?b HTTP/1.1\nAccept:  x \t\nEmpty:")
    assert (head.method, head.target, head.path, head.minor, head.host) == ("GET", b"/a?b", "/a", 1, b"a")
    assert head.fields == [(b"host", b"a"), (b"accept", b"x"), (b"empty", b"")]
    assert (head.content_length, head.chunked, head.has_body) == (None, False, False)
    assert (head.keep_alive, head.expect_continue, head.upgrade) == (True, False, False)
    assert head.line == b"GET /a?b HTTP/1.1\r\n"


@pytest.mark.parametrize(
    "method", ["GET", "get", "REPORT", "PURGE", "M-SEARCH", "MKCOLA", "!#$%&'*+-.^_`|~09", "X" * 64]
)
def test_any_token_is_a_method(method: str) -> None:
    """Methods are extensible; what llhttp does not know is no fault."""
    assert accepted(f"{method} / HTTP/1.1").method == method


@pytest.mark.parametrize(
    "line",
    [
        "GET  / HTTP/1.1", "GET /  HTTP/1.1", " GET / HTTP/1.1", "GET / HTTP/1.1 ", "GET\t/ HTTP/1.1", "GET /", "GET", "", "GET / HTTP/1.1 x", "GET / HTTP/0.9",
        "GET / HTTP/1.2", "GET / HTTP/2.0", "GET / HTTP/1.10", "GET / HTTP/01.1", "GET / http/1.1", "GET / HTT/1.1", "GET / ICE/1.0", "GET / HTTP/1,1",
        "G(T / HTTP/1.1", "G\x00T / HTTP/1.1", "GÉT / HTTP/1.1", "CONNECT a:80 HTTP/1.1", "CONNECT / HTTP/1.1", "PRI * HTTP/1.1", "GET * HTTP/1.1", "X" * 65 + " / HTTP/1.1",
        "GET /\x0b HTTP/1.1", "GET /a/../b HTTP/1.1",
    ],
)  # fmt: skip
def test_bad_request_lines(line: str) -> None:
    """Exactly method, target and a known version with one space between."""
    assert refused(line.encode("latin-1") + b"\r\nHost: a\r\n\r\n") is Reason.BAD_REQUEST


def test_one_leading_empty_line_is_tolerated() -> None:
    """One CRLF, not two, and no bare CR or LF (RFC 9112, section 2.2)."""
    good = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    assert isinstance(parse_request_head(b"\r\n" + good), RequestHead)
    assert refused(b"\r\n\r\n" + good) is Reason.BAD_REQUEST
    assert refused(b"\n" + good) is Reason.BAD_REQUEST
    assert refused(b"\r" + good) is Reason.BAD_REQUEST


@pytest.mark.parametrize(
    "line",
    [
        b"X : a", b" X: a", b"\tX: a", b"X", b": a", b"X\x00: a", b"X(: a", b"X\xe9: a", b"X Y: a", b"X: a\r\n b", b"X: a\r\n\tb", b"X: a\rb", b"X: a\nb", b"X: a\n",
        b"X: a\x00", b"X: \x01", b"X: \x0b", b"X: \x7f", b"X: a\r", b"Content-Length: 5\nX: y", b"",
    ],
)  # fmt: skip
def test_bad_field_lines(line: bytes) -> None:
    """Folding, controls, bare line ends, white space before the colon and names that are no tokens are refused."""
    assert refused(b"GET / HTTP/1.1\r\nHost: a\r\n" + line + b"\r\nZ: z\r\n\r\n") is Reason.BAD_REQUEST


def test_obs_text_and_tabs_stand_in_values() -> None:
    """Bytes from 0x80 on and tabs within a value are legal; outer white space is not part of it."""
    assert accepted("GET / HTTP/1.1\nX:\t \xff a\tb\t ").named[b"x"] == b"\xff a\tb"


@pytest.mark.parametrize(
    "hosts",
    [[], ["a", "a"], ["a, a"], [""], ["u@a"], ["a b"], ["a:x"], ["127.01.0.1"], ["%61"], ["a\xe9"]],
)
def test_host_on_1_1(hosts: list[str]) -> None:
    """Missing, repeated, listed, empty or malformed: 400."""
    fields = "".join(f"Host: {host}\r\n" for host in hosts).encode("latin-1")
    assert refused(b"GET / HTTP/1.1\r\n" + fields + b"\r\n") is Reason.BAD_REQUEST


def test_host_on_1_0() -> None:
    """It may be missing there, but not malformed nor repeated."""
    head = parse_request_head(b"GET / HTTP/1.0\r\n\r\n")
    assert isinstance(head, RequestHead)
    assert (head.host, head.minor, head.keep_alive) == (b"", 0, False)
    assert refused(b"GET / HTTP/1.0\r\nHost: a\r\nhost: a\r\n\r\n") is Reason.BAD_REQUEST
    assert refused(b"GET / HTTP/1.0\r\nHost: a b\r\n\r\n") is Reason.BAD_REQUEST


def test_absolute_form_replaces_host() -> None:
    """The authority wins; userinfo goes only where Host confirms the rest."""
    assert accepted("GET http://b:1/c HTTP/1.1").host == b"b:1"
    assert accepted("GET http://u:p@a/c HTTP/1.1").host == b"a"
    assert isinstance(request("GET http://u:p@b/c HTTP/1.1"), Refusal)
    assert refused(b"GET http://u@a/ HTTP/1.0\r\n\r\n") is Reason.BAD_REQUEST
    assert refused(b"GET http:///c HTTP/1.1\r\nHost: a\r\n\r\n") is Reason.BAD_REQUEST
    assert refused(b"GET http://b/c HTTP/1.1\r\n\r\n") is Reason.BAD_REQUEST


@pytest.mark.parametrize(("text", "length"), [("0", 0), ("5", 5), ("003", 3), ("9223372036854775807", 2**63 - 1)])
def test_content_length(text: str, length: int) -> None:
    """Digits up to 2^63 - 1; zero is no body."""
    head = accepted(f"POST / HTTP/1.1\nContent-Length: {text}")
    assert (head.content_length, head.chunked, head.has_body) == (length, False, length > 0)


@pytest.mark.parametrize(
    "value",
    [
        "", "+5", "-5", "1_0", "0x5", "5,5", "5, 5", "5;5", "5 5", "5.0", "1e3", "\xd9\xa3", "\xb2", "9223372036854775808", "18446744073709551615",
        "18446744073709551616", "1000000000000000000000", "0" * 65,
    ],
)  # fmt: skip
def test_bad_content_length(value: str) -> None:
    """Anything but one ASCII number is refused, also where a lenient parser would read one."""
    assert isinstance(request(f"POST / HTTP/1.1\nContent-Length: {value}"), Refusal)


@pytest.mark.parametrize("second", ["5", "6", "5, 5"])
def test_repeated_content_length(second: str) -> None:
    """Refused even when equal."""
    assert isinstance(request(f"POST / HTTP/1.1\nContent-Length: 5\nContent-length: {second}"), Refusal)


@pytest.mark.parametrize("value", ["chunked", "Chunked", "CHUNKED", " chunked \t"])
def test_chunked(value: str) -> None:
    """Exactly chunked, in any case; outer white space is not part of the value."""
    head = accepted(f"POST / HTTP/1.1\nTransfer-Encoding:{value}")
    assert (head.chunked, head.has_body, head.content_length) == (True, True, None)


@pytest.mark.parametrize(
    "value",
    ["", "identity", "gzip", "gzip, chunked", "chunked, gzip", "chunked, chunked", "chunked,", ",chunked", "xchunked", "chunked;q=1", '"chunked"', "chunked\x0b", "chunk ed"],
)  # fmt: skip
def test_other_transfer_encodings(value: str) -> None:
    """Refused, never guessed."""
    assert isinstance(request(f"POST / HTTP/1.1\nTransfer-Encoding: {value}"), Refusal)


def test_conflicting_framing() -> None:
    """Two lengths, two codings, both kinds, or a coding on 1.0: refused."""
    assert isinstance(request("POST / HTTP/1.1\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked"), Refusal)
    assert isinstance(request("POST / HTTP/1.1\nTransfer-Encoding: chunked\nContent-Length: 5"), Refusal)
    assert isinstance(request("POST / HTTP/1.1\nContent-Length: 5\nTransfer-Encoding: identity"), Refusal)
    assert isinstance(request("POST / HTTP/1.0\nTransfer-Encoding: chunked"), Refusal)


def test_the_limits_of_a_head() -> None:
    """16 KiB, 100 fields, 8 KiB of target: exactly at the limit passes, one more does not."""
    host = "Host: a\r\n"
    fields = "".join(f"X{number}: y\r\n" for number in range(MAX_FIELDS - 1))
    assert isinstance(parse_request_head(f"GET / HTTP/1.1\r\n{host}{fields}\r\n".encode()), RequestHead)
    assert refused(f"GET / HTTP/1.1\r\n{host}{fields}Z: z\r\n\r\n".encode()) is Reason.HEADER_TOO_LARGE
    assert isinstance(parse_request_head(f"GET /{'a' * 8191} HTTP/1.1\r\n{host}\r\n".encode()), RequestHead)
    assert refused(f"GET /{'a' * 8192} HTTP/1.1\r\n{host}\r\n".encode()) is Reason.URI_TOO_LONG
    start = f"GET / HTTP/1.1\r\n{host}X: "
    filler = "x" * (MAX_HEAD_BYTES - len(start) - 4)
    assert isinstance(parse_request_head(f"{start}{filler}\r\n\r\n".encode()), RequestHead)
    assert refused(f"{start}{filler}x\r\n\r\n".encode()) is Reason.HEADER_TOO_LARGE


@pytest.mark.parametrize(
    ("version", "connection", "keep"),
    [
        ("1.1", "keep-alive", True), ("1.1", "close", False), ("1.1", "Close", False), ("1.1", "x, close", False), ("1.1", "keep-alive, close", False),
        ("1.0", "keep-alive", True), ("1.0", "Keep-Alive", True), ("1.0", "x", False), ("1.0", "close, keep-alive", False), ("1.1", "closed", True),
    ],
)  # fmt: skip
def test_keep_alive(version: str, connection: str, *, keep: bool) -> None:
    """By version and Connection; close wins."""
    assert accepted(f"GET / HTTP/{version}\nConnection: {connection}").keep_alive is keep


def test_connection_nominates() -> None:
    """All names but its own options, also over several lines."""
    head = accepted("GET / HTTP/1.1\nConnection: X-A, close ,, \tX-B\nConnection: x-c")
    assert head.nominated == {b"x-a", b"x-b", b"x-c"}
    assert not head.keep_alive


def test_expect() -> None:
    """100-continue counts on 1.1 with a body; other expectations are refused."""
    assert accepted("POST / HTTP/1.1\nExpect: 100-Continue\nContent-Length: 5").expect_continue
    assert not accepted("POST / HTTP/1.1\nExpect: 100-continue").expect_continue
    assert not accepted("POST / HTTP/1.0\nExpect: 100-continue\nContent-Length: 5").expect_continue
    assert isinstance(request("POST / HTTP/1.1\nExpect: 200-ok\nContent-Length: 5"), Refusal)


def test_upgrade_is_noted_and_does_not_stop_the_reader() -> None:
    """With Connection naming it, also with a body, where llhttp would take the rest for another protocol."""
    head = accepted("POST / HTTP/1.1\nConnection: Upgrade\nUpgrade: h2c\nContent-Length: 4\nZ: z")
    assert head.upgrade
    assert (head.content_length, head.named[b"z"]) == (4, b"z")
    assert not accepted("GET / HTTP/1.1\nUpgrade: h2c").upgrade


def test_repeated_fields_keep_their_lines() -> None:
    """Each line in order; `named` has them joined."""
    head = accepted("GET / HTTP/1.1\nA: 1\nB: 2\na:  3 ")
    assert head.fields == [(b"host", b"a"), (b"a", b"1"), (b"b", b"2"), (b"a", b"3")]
    assert head.named[b"a"] == b"1, 3"


def test_find_head_end() -> None:
    """Behind the blank line, also when its bytes arrive apart."""
    raw = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest"
    assert find_head_end(raw) == len(raw) - 4
    for seen in range(len(raw) - 4):
        assert find_head_end(raw[:seen]) == -1
        assert find_head_end(raw, seen) == len(raw) - 4


def test_a_plain_response() -> None:
    """Every attribute of a common head."""
    head = response(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer: x\r\n\r\n")
    assert (head.minor, head.status, head.phrase, head.line) == (1, 200, b"OK", b"HTTP/1.1 200 OK\r\n")
    assert (head.content_length, head.chunked, head.bodiless, head.until_close) == (5, False, False, False)
    assert head.keep_alive
    assert head.fields == [(b"content-length", b"5"), (b"server", b"x")]


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 099 X", b"HTTP/1.1 000 X", b"HTTP/1.1 1000 X", b"HTTP/1.1 20 X", b"HTTP/1.1 +20 X", b"HTTP/2.0 200 OK", b"HTTP/0.9 200 OK", b"HTTP/1.2 200 OK",
        b"HTTP/1.1  200 OK", b"HTTP/1.1\t200 OK", b"HTTP/1.1 200 O\x00K", b"HTTP/1.1 200 O\x01", b"HTTP/1.1 200 O\x7f", b"RTSP/1.0 200 OK", b" HTTP/1.1 200 OK", b"",
        b"\r\nHTTP/1.1 200 OK", b"HTTP/1.1 200 O\rK", b"HTTP/1.1 200 OK\nA: b", b"HTTP/1.1 200 OK\r\nA : b", b"HTTP/1.1 200 OK\r\n A: b",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5", b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5", b"HTTP/1.1 200 OK\r\nContent-Length: -1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 65536,
    ],
)  # fmt: skip
def test_bad_responses(raw: bytes) -> None:
    """Versions, statuses, controls, framing: told in words, never raised."""
    assert isinstance(parse_response_head(raw + b"\r\n\r\n", "GET"), str)


@pytest.mark.parametrize(
    ("raw", "phrase"),
    [(b"200 OK", b"OK"), (b"200 ", b""), (b"200", b""), (b"200  OK", b" OK"), (b"500 \xc3\xab", b"\xc3\xab")],
)
def test_reason_phrases(raw: bytes, phrase: bytes) -> None:
    """May be empty, missing with its space, or beyond ASCII."""
    assert response(b"HTTP/1.1 " + raw + b"\r\n\r\n").phrase == phrase


@pytest.mark.parametrize(
    ("status", "method", "bodiless"),
    [(100, "GET", True), (103, "GET", True), (204, "GET", True), (304, "GET", True), (200, "HEAD", True), (200, "GET", False), (205, "GET", False), (999, "GET", False)],
)  # fmt: skip
def test_which_responses_have_no_body(status: int, method: str, *, bodiless: bool) -> None:
    """1xx, 204, 304 and answers to HEAD, whatever their framing fields say."""
    head = response(b"HTTP/1.1 %d X\r\nTransfer-Encoding: chunked\r\n\r\n" % status, method)
    assert (head.bodiless, head.chunked, head.until_close) == (bodiless, not bodiless, False)
    assert head.interim is (status in (100, 103))


def test_response_until_close() -> None:
    """Without length or chunks it ends with the connection, which then cannot be kept."""
    head = response(b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n")
    assert head.until_close
    assert not head.keep_alive
    assert response(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n").keep_alive
    assert not response(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n").keep_alive
    assert not response(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").keep_alive


def test_switching_protocols_is_final() -> None:
    """101 is not followed by another response of HTTP."""
    assert not response(b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n").interim
