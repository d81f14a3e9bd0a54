"""
New traces (W3C Trace Context), made by the batch: one costs a tenth of a microsecond instead of half of one.

Theory.   A traceparent is 24 random bytes in hex. Nearly all of its cost is that of its calls, so 64 are made at once from one
          draw and written out in full; a request then takes one. The source is the cheap one of `clock.py`: a trace id
          must be unlikely to repeat, it need not be hard to guess (level 2, section 3.2.2.5).
"""

from __future__ import annotations

from typing import Final

from sidecar import clock

_BATCH: Final = 64
_TRACE_BYTES: Final = 16
_PARENT_BYTES: Final = 8
_LINE: Final = b"traceparent: 00-%b-%b-01\r\n\r\n"
_lines: Final[list[bytes]] = []


def new_trace() -> bytes:
    """Return a new traceparent as the last field of a head, with the blank line behind it."""
    if not _lines:
        _lines.extend(map(_LINE.__mod__, zip(_ids(_TRACE_BYTES), _ids(_PARENT_BYTES), strict=True)))
    return _lines.pop()


def _ids(size: int) -> list[bytes]:
    """Return a batch of random numbers of *size* bytes each, in hex."""
    drawn = clock.random_bits(8 * size * _BATCH).to_bytes(size * _BATCH, "big")
    return drawn.hex(" ", size).encode("ascii").split(b" ")
