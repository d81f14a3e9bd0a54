"""Hostile messages cost a multiple of their length, never its square."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from sidecar.config.policies import Match, RouteRule
from sidecar.proxy.body import ChunkedBody
from sidecar.proxy.framing import RequestHead, parse_request_head
from sidecar.proxy.headers import request_head
from sidecar.proxy.hop import Hop
from sidecar.proxy.route import Router, path_template
from sidecar.proxy.scan import judge_request

# What is quadratic takes seconds on 16 KiB; what is linear a few milliseconds, also on a machine that is busy otherwise.
ENOUGH_S = 1.0  # of CPU
HOP = Hop(pseudonym="sidecar-1", install_key=b"", trusted=("0.0.0.0/0",))
PEER = HOP.peer("10.0.0.1")
ROUTER = Router((RouteRule("a", Match("/api/*/x/*/y/**", ("POST",))), RouteRule("d", Match("/**"))))


def best_s(work: Callable[[], object]) -> float:
    """Return the CPU seconds of the shortest of three runs."""
    times = []
    for _ in range(3):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return min(times)


def pass_through(raw: bytes) -> None:
    """Do all that a request's head costs."""
    head = parse_request_head(raw)
    if isinstance(head, RequestHead):
        HOP.loops(head)
        HOP.client_key("address", PEER, head)
        ROUTER.route(head)
        path_template(head.path)
        request_head(head, PEER, HOP, b"traceparent: x\r\n\r\n")


@pytest.mark.parametrize(
    "field",
    [
        b"X: a" + b" " * 16000 + b"b", b"X: a" + b" " * 16000, b"Connection: " + b"a," * 8000, b"X-Forwarded-For: " + b"1.1.1.1," * 1900,
        b"Forwarded: " + b"for=1.1.1.1," * 1300, b"Forwarded: " + b";" * 16000, b"Forwarded: ;" + b" " * 16000, b"Cookie: " + b"sidecar_session=1;" * 880,
        b"Cookie: sidecar_session" + b" " * 16000 + b"x", b"Cookie: sidecar_session" + b"; " * 7000 + b"x", b"Via: " + b"sidecar-1x," * 1400, b"Host: " + b"1." * 8000,
        b"traceparent: 00-" + b"0" * 16000, b"TE: " + b"trailers," * 1700,
    ],
)  # fmt: skip
def test_fields(field: bytes) -> None:
    """No field of 16 KiB is expensive."""
    host = b"" if field.startswith(b"Host") else b"Host: a\r\n"
    raw = b"GET / HTTP/1.1\r\n" + host + field + b"\r\n\r\n"
    assert best_s(lambda: pass_through(raw)) < ENOUGH_S


@pytest.mark.parametrize(
    "target",
    [b"/" * 8000, b"/;" * 4000, b"/%2F" * 2000, b"/.a" * 2600, b"/" + b"%41" * 2700, b"/" + b"a" * 8000, b"/%2f;%5c//" * 800, b"/?" + b"%41" * 2700, b"http://" + b"a@" * 4000],
)  # fmt: skip
def test_targets(target: bytes) -> None:
    """No target of 8 KiB is expensive, with all its readings routed."""
    raw = b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    assert best_s(lambda: pass_through(raw)) < ENOUGH_S


@pytest.mark.parametrize(
    "raw", [b"GET / HTTP/1.1\r\nX: " + b"a" * 16000, b"GET /" + b"a" * 8000, b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 99]
)
def test_heads_that_arrive_byte_by_byte(raw: bytes) -> None:
    """Each byte is judged alone."""

    def drip() -> None:
        for size in range(1, len(raw) + 1):
            assert judge_request(raw[:size], size - 1) is None

    assert best_s(drip) < ENOUGH_S


@pytest.mark.parametrize(
    ("raw", "piece"),
    [
        (b"1\r\na\r\n" * 11000, 65536), (b"1\r\na\r\n" * 11000, 1), (b"0\r\nX: " + b"a" * 4000, 1), (b"0\r\nX: a" + b" " * 4000 + b"b\r\n\r\n", 65536),
        (b"1" + b" " * 240 + b"x\r\n", 1), ((b"1;" + b"a=b;" * 60 + b"a\r\na\r\n") * 1000, 65536), (b"0" * 16 + b"\r\n\r\n", 1),
    ],
)  # fmt: skip
def test_chunked_bodies(raw: bytes, piece: int) -> None:
    """Tiny chunks end at the allowance; lines and trailers at their limits."""

    def feed() -> None:
        body = ChunkedBody()
        for at in range(0, len(raw), piece):
            body.feed(raw[at : at + piece])

    assert best_s(feed) < ENOUGH_S
