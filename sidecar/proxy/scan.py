"""
Heads that are still arriving: find their end, and refuse at once what can never become one.

Theory.   The whole head usually arrives at once, and then this is one search. When it does not, each byte is looked at a
          fixed number of times however small the pieces are, so a head sent byte by byte costs no more than its length.
          A start line is judged when it is there, the limits of size and number as soon as they are exceeded, a bare CR or LF
          when it comes: whoever sends `GET / HTTP/1.0 LF LF` gets an answer, not a timeout.
"""

from __future__ import annotations

import re
from typing import Final

from sidecar.proxy.fields import MAX_FIELDS
from sidecar.proxy.framing import (
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


class HeadScan:
    """
    The search for the end of one head; `reset` before the next one on the same connection.

    Attributes:
        seen: Bytes looked at so far.
    """

    __slots__ = ("_lines", "_response", "_started", "seen")

    def __init__(self, *, response: bool = False) -> None:
        self._response = response
        self.reset()

    def __repr__(self) -> str:
        return f"<HeadScan {self.seen} bytes, {self._lines} lines>"

    def reset(self) -> None:
        """Start again at offset 0 of a new head."""
        self.seen = 0
        self._lines = 0
        self._started = False

    def scan(self, buffer: bytes | bytearray) -> int | Refusal:
        """
        Look at what has arrived since the last call.

        Args:
            buffer: All bytes from the head's first one on.

        Returns:
            The offset behind the head; 0 while it is incomplete; or why it can never become a valid one (for a
            response only the detail counts).
        """
        end = buffer.find(b"\r\n\r\n", self.seen - 3 if self.seen > 3 else 0)
        if end >= 0 and not (end == 0 and not self._response):
            return end + 4
        refusal = self._judge(buffer)
        self.seen = len(buffer)
        return refusal or 0

    def _judge(self, buffer: bytes | bytearray) -> Refusal | None:
        """Judge an incomplete head."""
        bare = _BARE.search(buffer, self.seen - 1 if self.seen > 1 else 0)
        if bare is not None:
            return bad_request("the head holds a bare CR or LF")
        self._lines += buffer.count(b"\n", self.seen)
        if not self._started:
            refusal = self._judge_start(buffer)
            if refusal is not None:
                return refusal
        if len(buffer) > (MAX_RESPONSE_HEAD_BYTES if self._response else MAX_HEAD_BYTES):
            return HEAD_TOO_LARGE
        return TOO_MANY_FIELDS if self._lines > MAX_FIELDS + 2 else None

    def _judge_start(self, buffer: bytes | bytearray) -> Refusal | None:
        """Judge the start line once it is whole, or when it is too long to become one."""
        begin = 2 if not self._response and buffer.startswith(b"\r\n") else 0
        end = buffer.find(b"\r\n", max(begin, self.seen - 1))
        if end < 0:
            too_long = not self._response and len(buffer) - begin > _MAX_LINE
            return TARGET_TOO_LONG if too_long else None
        self._started = True
        line = bytes(buffer[begin:end])
        read = read_status_line(line) if self._response else read_request_line(line)
        if isinstance(read, str):
            return bad_request(read)
        return read if isinstance(read, Refusal) else None
