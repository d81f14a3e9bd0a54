"""
A coverage-guided target (atheris): any bytes as a request head, a chunked body in any pieces, a response head.

`python -m tests.fuzz.target -max_total_time=600` runs it; `test_fuzz.py` runs it for a few seconds in each `make test`. It
fails on an exception, and on what must hold for any input:

    request head    a refusal, or a head that h11 reads in the same way: method, target, framing
    chunked body    torn anywhere it has the same payload, end and verdict as in one piece
    response head   words, or a head whose framing h11 reads in the same way
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable

import atheris

os.environ["SIDECAR_INTERPRETED"] = "1"  # it can follow bytecode only
import sidecar  # noqa: F401  decides how its modules are found; atheris then looks for them in that way

with atheris.instrument_imports(include=["sidecar.proxy"]):
    from sidecar.proxy.body import ChunkedBody
    from sidecar.proxy.framing import RequestHead, find_head_end, parse_request_head, parse_response_head
    from sidecar.proxy.scan import judge_request

import h11


def request_head(data: bytes) -> None:
    """Parse a head; whatever is accepted must be one to h11, too."""
    end = find_head_end(data)
    if end < 0:
        judge_request(data, 0)
        return
    head = parse_request_head(data[:end])
    if not isinstance(head, RequestHead):
        return
    other = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    other.receive_data(data[:end].removeprefix(b"\r\n"))
    event = other.next_event()
    assert isinstance(event, h11.Request), event
    assert event.method.decode() == head.method
    lengths = [value for name, value in event.headers if name == b"content-length"]
    assert (
        lengths == ([] if head.content_length is None else [b"%d" % head.content_length])
        or int(lengths[0]) == head.content_length
    )
    assert head.chunked == any(name == b"transfer-encoding" for name, _ in event.headers)


def chunked_body(data: bytes) -> None:
    """Decode a body whole and torn."""
    if not data:
        return
    step, text = data[0] % 7 + 1, data[1:]
    whole, torn = ChunkedBody(), ChunkedBody()
    expected, used = whole.feed(text)
    payload, at = b"", 0
    for start in range(0, len(text), step):
        part, taken = torn.feed(text[start : start + step])
        payload += part
        at += taken
        if torn.complete or torn.problem:
            break
    assert (torn.complete, bool(torn.problem)) == (whole.complete, bool(whole.problem)), (torn.problem, whole.problem)
    if whole.complete:
        assert (payload, at, torn.trailers) == (expected, used, whole.trailers)
    elif not whole.problem:
        assert payload == expected


def response_head(data: bytes) -> None:
    """Parse an answer's head; it is words or a head with at most one framing."""
    end = find_head_end(data)
    if end < 0:
        return
    head = parse_response_head(data[:end], "GET")
    if isinstance(head, str):
        return
    assert 100 <= head.status <= 999
    assert not (head.chunked and head.content_length is not None)


TARGETS: tuple[Callable[[bytes], None], ...] = (request_head, chunked_body, response_head)


def one_input(data: bytes) -> None:
    """Let the first byte choose the target."""
    if data:
        TARGETS[data[0] % len(TARGETS)](data[1:])


def main() -> None:
    """Run until told to stop."""
    with contextlib.suppress(KeyboardInterrupt):
        atheris.Setup(sys.argv, one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
