"""How large a message may be, through a real worker: the largest that passes, one more that does not, also byte by byte."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sidecar.proxy.body import MAX_CHUNK_LINE_BYTES, MAX_TRAILER_BYTES, MAX_TRAILERS
from sidecar.proxy.fields import MAX_FIELDS
from sidecar.proxy.framing import MAX_HEAD_BYTES
from sidecar.proxy.target import MAX_TARGET_BYTES
from tests.support.client import Client
from tests.support.leaks import leakless, warmed
from tests.support.raw import byte_by_byte, speak
from tests.support.upstream import Upstream, echo
from tests.support.worker import Worker, running_worker

CONFIG = """
upstream: {{endpoints: ["{url}"]}}
routes:
  - {{name: small, match: {{path: /small/**}}, max_body: 1KiB}}
  - {{name: default, match: {{path: /**}}}}
"""
END = b"Connection: close\r\n\r\n"


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


def head_of(size: int) -> bytes:
    start, end = b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"\r\n" + END
    return start + b"x" * (size - len(start) - len(end)) + end


def fields_of(count: int) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * (count - 2) + END


def target_of(size: int) -> bytes:
    return b"GET /" + b"a" * (size - 1) + b" HTTP/1.1\r\nHost: a\r\n" + END


def chunked(body: bytes, path: bytes = b"/") -> bytes:
    return b"POST " + path + b" HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n" + END + body


def chunk_line_of(size: int) -> bytes:
    line = b"1;a="
    return chunked(line + b"b" * (size - len(line) - 2) + b"\r\nx\r\n0\r\n\r\n")


def trailers_of(count: int) -> bytes:
    return chunked(b"1\r\nx\r\n0\r\n" + b"X: y\r\n" * count + b"\r\n")


def trailer_section_of(size: int) -> bytes:
    return chunked(b"1\r\nx\r\n0\r\nX: " + b"y" * (size - len(b"X: \r\n\r\n")) + b"\r\n\r\n")


CASES = {
    "head": (head_of, MAX_HEAD_BYTES, 16 * 1024, 431),
    "fields": (fields_of, MAX_FIELDS, 100, 431),
    "target": (target_of, MAX_TARGET_BYTES, 8 * 1024, 414),
    "chunk line": (chunk_line_of, MAX_CHUNK_LINE_BYTES, 256, 400),
    "trailer fields": (trailers_of, MAX_TRAILERS, 16, 400),
    "trailer section": (trailer_section_of, MAX_TRAILER_BYTES, 4 * 1024, 400),
}


@pytest.mark.parametrize("torn", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("what", CASES)
def test_the_largest_passes_and_one_more_does_not(worker: Worker, upstream: Upstream, what: str, torn: bool) -> None:
    """
    At the limit a message is served; one byte or field beyond it is refused with its own status, and the connection ends.
    """
    make, limit, promised, status = CASES[what]
    assert limit == promised
    for size, wanted in ((limit, 200), (limit + 1, status)):
        data = make(size)
        seen = speak(worker.address, byte_by_byte(data) if torn else [data])
        assert (seen.statuses, seen.closed) == ([wanted], True)
    assert upstream.seen.qsize() == 1


@pytest.mark.parametrize("what", ["head", "target"])
def test_what_is_too_large_is_refused_before_it_ends(worker: Worker, upstream: Upstream, what: str) -> None:
    """
    A head or target that never ends is answered as soon as it is too long, and nothing goes up.
    """
    make, limit, _, status = CASES[what]
    before = upstream.accepted
    seen = speak(worker.address, [make(3 * limit)[: limit + 128]])
    assert (seen.statuses, seen.closed) == ([status], True)
    assert upstream.accepted == before


@pytest.mark.parametrize("torn", [False, True], ids=["whole", "byte by byte"])
def test_a_routes_cap_is_exact(worker: Worker, upstream: Upstream, torn: bool) -> None:
    """
    1024 bytes pass where `max_body` is 1 KiB, 1025 get 413: with a length before a byte of them is read, in chunks on the way.
    """
    for size, status in ((1024, 200), (1025, 413)):
        length = b"POST /small/ HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n" % size + END + b"x" * size
        chunks = chunked(b"400\r\n" + b"x" * 1024 + b"\r\n" + b"1\r\nx\r\n" * (size - 1024) + b"0\r\n\r\n", b"/small/")
        for data in (length, chunks):
            seen = speak(worker.address, byte_by_byte(data) if torn else [data])
            assert (seen.statuses, seen.closed) == ([status], True)
    assert [upstream.next_request().body for _ in range(2)] == [b"x" * 1024] * 2
    assert upstream.seen.empty()


def test_many_tiny_chunks_are_an_attack(worker: Worker, upstream: Upstream) -> None:
    """
    A body of one-byte chunks is cut off after a few thousand; the client of a large body in sane chunks never notices.
    """
    assert speak(worker.address, [chunked(b"1\r\nx\r\n" * 6000 + b"0\r\n\r\n")]).statuses == [400]
    with Client(worker.address) as client:
        client.send(chunked(b"3e8\r\n" + b"x" * 1000 + b"\r\n")[: -(5 + 1000 + 2)])
        for _ in range(6000):
            client.send(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        client.send(b"0\r\n\r\n")
        assert len(client.read().body) == 6_000_000
