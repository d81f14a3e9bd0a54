"""Partial heads: refused as soon as they can never become valid, never earlier."""

from __future__ import annotations

import pytest

from sidecar.proxy.scan import judge_request, judge_response
from sidecar.reasons import Reason, Refusal


def drip(raw: bytes) -> Refusal | None:
    """Judge *raw* byte by byte, as it arrives; return the first refusal."""
    for size in range(1, len(raw) + 1):
        refusal = judge_request(raw[:size], size - 1)
        if refusal is not None:
            return refusal
    return None


def test_every_beginning_of_a_good_head_is_waited_for() -> None:
    """No valid head is refused early, with a leading empty line neither."""
    for lead in (b"", b"\r\n"):
        raw = lead + b"GET /a?b HTTP/1.1\r\nHost: a\r\nX: y"
        assert drip(raw) is None
        assert judge_request(raw, 0) is None


@pytest.mark.parametrize(
    "raw",
    [b"GET / HTTP/1.0\n", b"\n", b"GET / HTTP/1.0\r\r", b"GET / HTTP/1.1\r\nHost: a\n", b"GET / HTTP/1.1\r\nA: \rb", b"GET /#x HTTP/1.0\r\n", b"x\r\n", b"\r\n\r\n"],
)  # fmt: skip
def test_malformed_beginnings(raw: bytes) -> None:
    """Bare line ends and bad start lines get their 400 at once, however they arrive."""
    for refusal in (drip(raw), judge_request(raw, 0)):
        assert refusal is not None
        assert refusal.reason is Reason.BAD_REQUEST


def test_limits_hold_before_the_head_is_complete() -> None:
    """Target, fields and size are refused while they grow."""
    start = b"GET / HTTP/1.1\r\n"
    cases = {
        Reason.URI_TOO_LONG: b"GET /" + b"a" * 9000,
        Reason.HEADER_TOO_LARGE: start + b"A: b\r\n" * 101,
    }
    for reason, raw in cases.items():
        for refusal in (drip(raw), judge_request(raw, 0)):
            assert refusal is not None
            assert refusal.reason is reason
    assert judge_request(start + b"A: b\r\n" * 100, 0) is None
    large = judge_request(start + b"A: " + b"x" * 16384, 0)
    assert large is not None
    assert large.reason is Reason.HEADER_TOO_LARGE
    exact = judge_request(b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\n", 0)
    assert exact is not None
    assert exact.reason is Reason.URI_TOO_LONG


def test_responses() -> None:
    """An upstream's partial head is judged likewise, with its own limit."""
    assert judge_response(b"HTTP/1.1 200 OK\r\nA: b", 0) is None
    assert judge_response(b"HTTP/1.1 200 OK\nA: b", 0) == "the head holds a bare CR or LF"
    assert judge_response(b"HTTP/1.1 99 OK\r\n", 0) is not None
    assert judge_response(b"HTTP/1.1 200 OK\r\nA: " + b"b" * 65536, 0) is not None
