"""What can be read in two ways is refused with 400, the connection ends, and not one byte reaches the API."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.support.leaks import leakless, warmed
from tests.support.raw import byte_by_byte, speak
from tests.support.upstream import Conn, Upstream, echo
from tests.support.worker import Worker, running_worker

CONFIG = "upstream: {{endpoints: ['{url}']}}\n"
HOST = b"Host: a\r\n"
POST = b"POST / HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as made:
        yield made


@pytest.fixture(scope="module")
def worker(upstream: Upstream) -> Iterator[Worker]:
    with running_worker(CONFIG.format(url=upstream.url)) as made:
        yield made


@pytest.fixture(scope="module")
def rest(worker: Worker, upstream: Upstream) -> tuple[int, int]:
    return warmed(worker, upstream)


@pytest.fixture(autouse=True)
def _nothing_left(worker: Worker, upstream: Upstream, rest: tuple[int, int]) -> Iterator[None]:
    upstream.use(echo)
    with leakless(worker, upstream, rest):
        yield


def refused(worker: Worker, upstream: Upstream, data: bytes, status: int = 400) -> None:
    """Send *data*, and again byte by byte; each is refused, and the API is not even connected to."""
    before = upstream.accepted
    for parts in ([data + SMUGGLED], byte_by_byte(data)):
        seen = speak(worker.address, parts)
        assert (seen.statuses, seen.closed) == ([status], True), seen
        assert b"connection: close" in seen.received.lower()
    assert upstream.accepted == before, "the API was connected to"


def chunk_fault(worker: Worker, upstream: Upstream, body: bytes) -> None:
    """
    Send a chunked request with a faulty *body*. Whole, it is refused and the API is not even connected to; byte by byte
    the head and what came well-formed may be under way, but the API sees neither an end of the body nor a byte behind.
    """
    before = upstream.accepted
    seen = speak(worker.address, [CHUNKED + body + SMUGGLED])
    assert (seen.statuses, seen.closed) == ([400], True)
    assert upstream.accepted == before, "the API was connected to"

    came: list[bytes] = []
    upstream.use(lambda conn: came.append(all_of(conn)))
    seen = speak(worker.address, byte_by_byte(CHUNKED + body + SMUGGLED))
    assert (seen.statuses, seen.closed) == ([400], True)
    assert upstream.seen.empty()
    for data in came:
        assert b"smuggled" not in data
        assert not data.endswith(b"0\r\n\r\n")


def all_of(conn: Conn) -> bytes:
    """Return every byte until the end of the connection, whichever kind of end it is."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while received := conn.sock.recv(65536):
            data += received
    return data


# Sizes that some number parser takes and the grammar does not: Python's int(), C's strtoul, JavaScript's Number.
NOT_DIGITS = [
    b"+5", b"-5", b"1_0", "٣".encode(), "５".encode(), "²".encode(), b"0x5", b"0X5", b"0b1", b"0o5", b"5.", b"5.0", b"5e0", b"", b" ", b"5 5", b"5,5",
    b"5, 5", b"5;5", b"5\t5", b"\x005", b"5\x00", b"\x0b5", b"5\x0c", b"\xa05", b"five", b"NaN", b"Infinity", b"0x", b"--5", b"'5'", b'"5"',
]  # fmt: skip
# Powers at which a number type overflows, and their neighbours.
EDGES = [power + step for power in (2**31, 2**32, 2**53, 2**63, 2**64) for step in (-1, 0, 1)]
TOO_MANY = [*(n for n in EDGES if n > 2**63 - 1), 10**19, 10**40]


@pytest.mark.parametrize("text", [*NOT_DIGITS, *(b"%d" % n for n in TOO_MANY)])
def test_content_length_is_digits_within_63_bits(worker: Worker, upstream: Upstream, text: bytes) -> None:
    """
    Only 1*DIGIT up to 2^63 - 1 is a length, whatever else a parser may take for a number.
    """
    refused(worker, upstream, POST + b"Content-Length: " + text + b"\r\n\r\n")


@pytest.mark.parametrize("number", [n for n in EDGES if n <= 2**63 - 1])
def test_a_huge_length_is_no_error(worker: Worker, upstream: Upstream, number: int) -> None:
    """
    A body of up to 2^63 - 1 bytes may be announced: its head goes up with the same number.
    """

    def reading(conn: object) -> None:
        conn.tell(conn.read_head())  # type: ignore[attr-defined]

    upstream.use(reading)
    seen = speak(worker.address, [POST + b"Content-Length: %d\r\n\r\nx" % number])
    assert seen.statuses == [502]
    assert b"\r\ncontent-length: %d\r\n" % number in upstream.next_news()  # type: ignore[operator]


CHUNK_SIZES = [text for text in NOT_DIGITS if text not in (b"5e0", b"five", b"0b1", b"5;5", b"")]


@pytest.mark.parametrize(
    "text",
    [*CHUNK_SIZES, b"g", b"\r\n", b"5\n", *(b"%x" % n for n in EDGES if n > 2**63 - 1), b"f" * 17, b"1" + b"0" * 20],
)
def test_a_chunk_size_is_hex_digits_within_63_bits(worker: Worker, upstream: Upstream, text: bytes) -> None:
    """
    Only 1*HEXDIG is a chunk size.
    """
    chunk_fault(worker, upstream, text + b"\r\nhello\r\n0\r\n\r\n")


CHUNK_LINES = [
    b"5\n", b"5\r", b"5 \n", b"5;a\n", b"5;a=b\rc\r\n", b"5;a=b\x00\r\n", b"5;\x7f\r\n", b'5;a="b\r\n', b"5;;\r\n", b"5;=b\r\n", b"5 a\r\n", b"5;a b\r\n",
    b"\x005\r\n", b" 5\r\n", b"\t5\r\n",
]  # fmt: skip


@pytest.mark.parametrize("line", CHUNK_LINES)
def test_a_chunk_line_is_well_formed_to_its_end(worker: Worker, upstream: Upstream, line: bytes) -> None:
    """
    A bare CR or LF, a control, an open quote or stray white space in a chunk line never forms a chunk.
    """
    chunk_fault(worker, upstream, line + b"hello\r\n0\r\n\r\n")


@pytest.mark.parametrize("end", [b"hellox\r\n", b"hello\n", b"hello\r", b"hello0\r\n\r\n", b"hell\r\n", b"hello\r\r\n"])
def test_a_chunk_ends_where_it_says(worker: Worker, upstream: Upstream, end: bytes) -> None:
    """
    What does not follow its payload with CRLF is no chunk, so nothing behind it is a request.
    """
    chunk_fault(worker, upstream, b"5\r\n" + end + b"0\r\n\r\n")


TE = b"Transfer-Encoding: "
CL = b"Content-Length: 5\r\n"
FRAMINGS = [
    CL + TE + b"chunked\r\n", TE + b"chunked\r\n" + CL, CL + CL, CL + b"Content-Length: 6\r\n", b"Content-Length: 5, 5\r\n", b"Content-Length: 5,\r\n",
    CL + TE + b"identity\r\n", CL + TE + b"x\r\n", CL + b"Transfer-Encoding:\r\n", CL + b"transfer_encoding : chunked\r\n", CL + b"Transfer-Encoding : chunked\r\n",
    CL + b" Transfer-Encoding: chunked\r\n", CL + b"X: y\r\n Transfer-Encoding: chunked\r\n", CL + b"X: y\nTransfer-Encoding: chunked\r\n",
    CL + b"X: y\rTransfer-Encoding: chunked\r\n", CL + b"Transfer-Encoding\r\n : chunked\r\n", CL + b"\x00Transfer-Encoding: chunked\r\n",
    CL + b"Transfer-\x0bEncoding: chunked\r\n", CL + b"Transfer-Encoding\x00: chunked\r\n", CL + b"X: \x00\r\n",
    *(TE + value + b"\r\n" for value in (
        b"xchunked", b"chunkedx", b"chunked, identity", b"identity, chunked", b"gzip, chunked", b"chunked, chunked", b"chunked,", b",chunked", b"chunked;a=b",
        b'"chunked"', b"'chunked'", b"chunked\x00", b"\x0bchunked", b"chunked\x0b", b"chunked \x0c", "chun\u212aed".encode(), b"chunk", b"deflate", b"identity",
        b"", b"chunked\r\n\tx", b"chunked\xa0", b"\xa0chunked",
    )),
    TE + b"chunked\r\n" + TE + b"chunked\r\n", TE + b"chunked\r\n" + TE + b"identity\r\n", TE + b"\r\n" + TE + b"chunked\r\n",
]  # fmt: skip


@pytest.mark.parametrize("fields", FRAMINGS)
def test_a_body_has_one_framing(worker: Worker, upstream: Upstream, fields: bytes) -> None:
    """
    Length and chunks together, a length twice, any coding but exactly one `chunked`, and every disguise of these is refused.
    """
    refused(worker, upstream, POST + fields + b"\r\n5\r\nhello\r\n0\r\n\r\n")


HEADS = [
    b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", b"GET / HTTP/1.1\r\nHost: u:p@a\r\n\r\n", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n", b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: [::g]\r\n\r\n", b"GET / HTTP/1.1\r\nHost: 0x7f.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a%2eb\r\n\r\n", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", b"GET / HTTP/1.1\nHost: a\n\n", b"GET / HTTP/1.1\r\nHost: a\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x01b\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nX Y: z\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n: z\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nX\t: y\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\xc3\xa9: y\r\n\r\n",
    b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
    b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"G\xc3\x89T / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET@ / HTTP/1.1\r\nHost: a\r\n\r\n", b"G:T / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"M" * 65 + b" / HTTP/1.1\r\nHost: a\r\n\r\n", b"/ HTTP/1.1\r\nHost: a\r\n\r\n", b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /# HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /% HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", b"GET \\a HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /\\a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", b"POST * HTTP/1.1\r\nHost: a\r\n\r\n", b"OPTIONS *a HTTP/1.1\r\nHost: a\r\n\r\n", b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", b"GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http://u@b/ HTTP/1.1\r\nHost: a\r\n\r\n", b"GET //a HTTP/1.2\r\nHost: a\r\n\r\n", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", b"GET / HTTP/0.9\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", b"GET / HTTP/01.1\r\nHost: a\r\n\r\n", b"GET / http/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.\u0661\r\nHost: a\r\n\r\n".encode(), b"GET / HTCPCP/1.1\r\nHost: a\r\n\r\n", b"GET /\r\nHost: a\r\n\r\n", b"GET /\r\n\r\n", b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"SSH-2.0-x\r\n\r\n",
    b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nExpect: magic\r\n\r\n",
]  # fmt: skip


@pytest.mark.parametrize("head", HEADS)
def test_a_head_has_one_reading(worker: Worker, upstream: Upstream, head: bytes) -> None:
    """
    A host, target, method, version or field line that is not exactly the grammar's is refused.
    """
    refused(worker, upstream, head)


@pytest.mark.parametrize("form", [b"http://b/x", b"HTTP://b:80/x", b"http://b/x?q"])
def test_absolute_form_says_the_host(worker: Worker, upstream: Upstream, form: bytes) -> None:
    """
    The authority of an absolute-form target replaces the Host field, and the API gets a path.
    """
    seen = speak(worker.address, [b"GET " + form + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"])
    asked = upstream.next_request()
    assert seen.statuses == [200]
    assert asked.fields["host"].removesuffix(":80") == "b"
    assert asked.line.split(" ")[1].partition("?")[0] == "/x"


def test_asterisk_is_for_options(worker: Worker, upstream: Upstream) -> None:
    """
    `OPTIONS *` reaches the API as it is.
    """
    seen = speak(worker.address, [b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"])
    assert seen.statuses == [200]
    assert upstream.next_request().line == "OPTIONS * HTTP/1.1"


def test_a_refusal_ends_what_was_pipelined(worker: Worker, upstream: Upstream) -> None:
    """
    Requests before a malformed one are answered, it is refused, and nothing behind it is served.
    """
    good = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
    seen = speak(worker.address, [good % 1 + good % 2 + b"GET / HTTP/1.1\r\n\r\n" + good % 3])
    assert (seen.statuses, seen.closed) == ([200, 200, 400], True)
    assert [upstream.next_request().line.split(" ")[1] for _ in range(2)] == ["/1", "/2"]
    assert upstream.seen.empty()
