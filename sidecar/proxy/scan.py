"""
Heads that are still arriving: refuse at once what can never become a valid one.

Theory.   The whole head usually arrives at once, and then nobody asks here. When it does not, the start line is judged as
          soon as it is there, the limits of size and number as soon as they are exceeded, and a bare CR or LF when it comes:
          whoever sends `GET / HTTP/1.0 LF LF` gets an answer, not a timeout.

What can go wrong. A head may come byte by byte, so the work for one piece must not grow with what came before: a piece without a
          line end costs a look at itself, and there are at most a hundred pieces with one.
"""

from __future__ import annotations

import re
from typing import Final

from sidecar.proxy.fields import MAX_FIELDS, agrees_on_line
from sidecar.proxy.framing import (
    BAD_LINE,
    HEAD_TOO_LARGE,
    MAX_HEAD_BYTES,
    MAX_METHOD_BYTES,
    MAX_RESPONSE_HEAD_BYTES,
    TARGET_TOO_LONG,
    TOO_MANY_FIELDS,
    bad_request,
    read_request_line,
    read_status_line,
)
from sidecar.proxy.target import MAX_TARGET_BYTES
from sidecar.reasons import Refusal

_BARE: Final = re.compile(rb"(?<!\r)\n|\r[^\n]")
_MAX_LINE: Final = MAX_METHOD_BYTES + MAX_TARGET_BYTES + len("  HTTP/1.1")


def judge_request(partial: bytes, seen: int) -> Refusal | None:
    """
    Judge the beginning of a request head whose blank line has not arrived.

    Args:
        partial: All bytes from the head's first one on.
        seen: Bytes that an earlier call has judged already.

    Returns:
        Why it can never become a valid head, or None.
    """
    problem = _line_ends(partial, seen)
    if problem is not None:
        return bad_request(problem)
    begin = 2 if partial.startswith(b"\r\n") else 0
    if partial.find(b"\n", seen) >= 0:
        line = _first_line(partial, begin, seen)
        read = None if line is None else read_request_line(line)
        if isinstance(read, Refusal):
            return read
        if line is not None and read is not None and read.asks_llhttp and not agrees_on_line(line):
            return BAD_LINE
        if partial.count(b"\n", begin) > MAX_FIELDS + 1:
            return TOO_MANY_FIELDS
    if len(partial) - begin > _MAX_LINE and partial.find(b"\n", begin, begin + _MAX_LINE + 2) < 0:
        return TARGET_TOO_LONG
    return HEAD_TOO_LARGE if len(partial) > MAX_HEAD_BYTES else None


def judge_response(partial: bytes, seen: int) -> str | None:
    """Judge the beginning of a response head likewise; say what is wrong in words."""
    problem = _line_ends(partial, seen)
    if problem is not None:
        return problem
    line = _first_line(partial, 0, seen)
    if line is not None:
        read = read_status_line(line)
        if isinstance(read, str):
            return read
    if len(partial) > MAX_RESPONSE_HEAD_BYTES:
        return f"the head exceeds {MAX_RESPONSE_HEAD_BYTES} bytes"
    return None


def _line_ends(partial: bytes, seen: int) -> str | None:
    return "the head holds a bare CR or LF" if _BARE.search(partial, max(seen - 1, 0)) else None


def _first_line(partial: bytes, begin: int, seen: int) -> bytes | None:
    """Return the start line when its end is among the new bytes."""
    end = partial.find(b"\r\n", begin)
    return partial[begin:end] if end + 2 > seen and end >= 0 else None
