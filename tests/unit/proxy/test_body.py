"""Bodies: where they end, what is malformed, and what is too much."""

from __future__ import annotations

import pytest

from sidecar.proxy.body import (
    MAX_CHUNK_LINE_BYTES,
    MAX_TRAILER_BYTES,
    SMALL_CHUNK_BYTES,
    SMALL_CHUNKS,
    ChunkedBody,
    LengthBody,
    UntilCloseBody,
    encode_chunk,
)


def decode(raw: bytes) -> ChunkedBody:
    """Feed *raw* at once, and once more byte by byte: both ways must end alike."""
    whole, drops = ChunkedBody(), ChunkedBody()
    payload, used = whole.feed(raw)
    pieces, taken = b"", 0
    for at in range(len(raw)):
        piece, count = drops.feed(raw[at : at + 1])
        pieces += piece
        taken += count
    assert (whole.complete, bool(whole.problem), whole.trailers) == (
        drops.complete,
        bool(drops.problem),
        drops.trailers,
    )
    if not whole.problem:
        assert (payload, used) == (pieces, taken)
    return whole


def test_a_length_body_takes_its_bytes_and_no_more() -> None:
    """What is left belongs to the next message."""
    body = LengthBody(5)
    assert body.feed(b"he") == (b"he", 2)
    assert repr(body) == "<LengthBody 3 to come>"
    assert not body.finish()
    assert body.feed(b"lloGET") == (b"llo", 3)
    assert body.complete
    assert body.finish()
    assert body.feed(b"GET") == (b"", 0)
    assert LengthBody(0).complete


def test_an_until_close_body_ends_with_the_connection() -> None:
    """It takes everything and is whole when the connection has ended."""
    body = UntilCloseBody()
    assert body.feed(b"x") == (b"x", 1)
    assert not body.complete
    assert body.finish()
    assert repr(body) == "<UntilCloseBody complete>"


def test_a_chunked_body() -> None:
    """Sizes in any case, with leading zeros, extensions dropped; what follows is left."""
    body = ChunkedBody()
    raw = b'5\r\nhello\r\n000A; a=b;c = "d;\\"e" ;f\r\n0123456789\r\n000;x\r\n\r\nGET'
    assert body.feed(raw) == (b"hello0123456789", len(raw) - 3)
    assert body.complete
    assert body.finish()
    assert body.feed(b"GET") == (b"", 0)
    assert not decode(raw[:-3]).problem


def test_a_cut_chunked_body_is_not_whole() -> None:
    """Every proper beginning is incomplete but well-formed."""
    raw = b"5;a=b\r\nhello\r\n0\r\nA: b\r\n\r\n"
    for size in range(len(raw)):
        body = decode(raw[:size])
        assert (body.finish(), body.problem) == (False, "")


@pytest.mark.parametrize(
    "line",
    [
        b"", b" 5", b"5 ", b"+5", b"-5", b"0x5", b"5_0", b"g", b"5h", b"5 x", b"5;", b"5;;a", b"5;a=", b"5;=b", b'5;a="b', b'5;a="b"c', b"5;a=b c", b"5;\x7f",
        b"5;a\x00", b"5\n", b"5\r", b"5;a\rb", b"5,a", b"8000000000000000", b"FFFFFFFFFFFFFFFF", b"10000000000000000", b"5\x0b", b"\xd9\xa3",
    ],
)  # fmt: skip
def test_bad_chunk_lines(line: bytes) -> None:
    """Hexadecimal ASCII below 2^63 with well-formed extensions, nothing else."""
    assert decode(line + b"\r\nhello\r\n0\r\n\r\n").problem


def test_the_largest_chunk_is_taken() -> None:
    """2^63 - 1 is a size; 16 digits suffice for it."""
    body = ChunkedBody()
    assert body.feed(b"7FFFFFFFFFFFFFFF\r\nab") == (b"ab", 20)
    assert not body.problem


@pytest.mark.parametrize(
    "raw", [b"5\r\nhelloX\r\n", b"5\r\nhello\n", b"5\r\nhello\rX", b"5\r\nhello0\r\n\r\n", b"1\r\nab\r\n"]
)
def test_a_chunk_must_end_with_crlf(raw: bytes) -> None:
    """One byte too many or a bare line end is malformed."""
    assert decode(raw).problem == "a chunk's payload is not followed by CRLF"


def test_a_broken_body_takes_nothing_more() -> None:
    """After a problem there is no way back."""
    body = ChunkedBody()
    assert body.feed(b"x\r\n")[0] == b""
    assert body.feed(b"5\r\nhello\r\n") == (b"", 0)
    assert "hexadecimal" in repr(body)


def test_the_limit_of_a_chunk_line() -> None:
    """256 bytes with its line end; also when it never ends."""
    name = b"x" * (MAX_CHUNK_LINE_BYTES - 4)
    assert not decode(b"1;" + name + b"\r\na\r\n0\r\n\r\n").problem
    assert decode(b"1;" + name + b"x\r\na\r\n0\r\n\r\n").problem
    assert decode(b"1;" + name * 3).problem == "a chunk line exceeds 256 bytes"


def test_trailers() -> None:
    """Told in lower case without outer white space."""
    body = decode(b"0\r\nX-Sum:  abc \r\nEmpty:\r\n\r\n")
    assert body.complete
    assert body.trailers == ((b"x-sum", b"abc"), (b"empty", b""))


@pytest.mark.parametrize(
    "line", [b"X : a", b" X: a", b"X", b": a", b"X: \x00", b"X: a\rb", b"X: a\nb", b"X: a\r\n b", b"X: a\n"]
)
def test_bad_trailers(line: bytes) -> None:
    """The grammar of field lines holds."""
    assert decode(b"0\r\n" + line + b"\r\n\r\n").problem


def test_the_limits_of_trailers() -> None:
    """Sixteen fields, 4 KiB; also when they never end."""
    line = b"X: a\r\n"
    assert not decode(b"0\r\n" + line * 16 + b"\r\n").problem
    assert decode(b"0\r\n" + line * 17 + b"\r\n").problem == "more than 16 trailer fields"
    filler = b"X: " + b"x" * (MAX_TRAILER_BYTES - 7) + b"\r\n\r\n"
    assert not decode(b"0\r\n" + filler).problem
    assert decode(b"0\r\nX" + filler).problem == "the trailer section exceeds 4096 bytes"


def test_small_chunks_have_an_allowance() -> None:
    """Requests may hold 4096 of them, more only beside real payload; an upstream's events are not counted."""
    tiny = b"1\r\na\r\n"
    many = SMALL_CHUNKS * SMALL_CHUNK_BYTES // (SMALL_CHUNK_BYTES - 1)
    body = ChunkedBody()
    body.feed(tiny * many)
    assert not body.problem
    body.feed(tiny)
    assert body.problem == "more than 4096 chunks are smaller than 64 bytes"
    body = ChunkedBody()
    body.feed(tiny * many + encode_chunk(b"x" * 6400) + tiny * 100)
    assert not body.problem
    body = ChunkedBody(bounded=False)
    body.feed(tiny * (2 * many))
    assert not body.problem


def test_encoded_chunks_are_read_back() -> None:
    """What we write is what we read."""
    payload = bytes(range(256))
    assert ChunkedBody().feed(encode_chunk(payload)) == (payload, len(encode_chunk(payload)))
