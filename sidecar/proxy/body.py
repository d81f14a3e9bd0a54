"""
Where a body ends (RFC 9112, section 6 and 7.1), counted and decoded by ourselves.

Theory.   Three ways to delimit a body, one machine each. All three are fed what arrives and give back `(payload, used)`:
          the decoded bytes and how many of the fed ones belong to this body. `used < len(fed)` only once `complete` is
          true: what is left belongs to the next message (or, from an upstream, to nobody). Nothing is buffered
          but an unfinished chunk line or trailer section, and both are capped.

Tables.   state of ChunkedBody    next
          SIZE                    a chunk line `1*HEX [ext] CRLF` → PAYLOAD, or TRAILERS after size 0
          PAYLOAD                 size bytes → END
          END                     CRLF → SIZE
          TRAILERS                field lines up to a blank line → complete

          limit                   value     precedents
          chunk line              256 B     llhttp 16k, Apache 8k, h11 20 digits; extensions have no use
          trailers                4 KiB, 16 fields
          small chunks            4096 of < 64 B, plus one for each 64 B of payload (requests only)

What can go wrong. A chunk costs about a microsecond whatever its size, so ten million one-byte chunks would cost ten seconds: hence
          the allowance for small chunks. An upstream is not held to it: it is the service that we protect, and streams of small
          events are what it is for. A malformed body sets `problem` and takes nothing more; the caller closes both sides.
"""

from __future__ import annotations

import re
from typing import Final

MAX_CHUNK_LINE_BYTES: Final = 256
MAX_TRAILER_BYTES: Final = 4096
MAX_TRAILERS: Final = 16
SMALL_CHUNK_BYTES: Final = 64
SMALL_CHUNKS: Final = 4096

_MAX_SIZE: Final = 2**63 - 1
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED: Final = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*+"'
_LINE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,16})(?:[ \t]*+;[ \t]*+"
    + _TOKEN
    + rb"(?:[ \t]*+=[ \t]*+(?:"
    + _TOKEN
    + rb"|"
    + _QUOTED
    + rb"))?+)*+"
)
_PLAIN_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
_TRAILER: Final = re.compile(rb"(" + _TOKEN + rb"):([\t\x20-\x7e\x80-\xff]*+)")
_BARE: Final = re.compile(rb"(?<!\r)\n|\r[^\n]")
_SIZE, _PAYLOAD, _END, _TRAILERS = range(4)


class LengthBody:
    """A body of a known length; zero is complete at once."""

    __slots__ = ("complete", "problem", "remaining")
    trailers: tuple[tuple[bytes, bytes], ...] = ()

    def __init__(self, length: int) -> None:
        self.remaining = length
        self.complete = length == 0
        self.problem = ""

    def __repr__(self) -> str:
        return f"<LengthBody {self.remaining} to come>"

    def feed(self, fed: bytes) -> tuple[bytes, int]:
        """Take what belongs to the body; see the module's head."""
        size = len(fed)
        if size < self.remaining:
            self.remaining -= size
            return fed, size
        size, self.remaining, self.complete = self.remaining, 0, True
        return (fed if size == len(fed) else fed[:size]), size

    def finish(self) -> bool:
        """Tell whether the body is whole, now that the connection has ended."""
        return self.complete


class UntilCloseBody:
    """A response body that ends with the connection."""

    __slots__ = ("complete", "problem")
    trailers: tuple[tuple[bytes, bytes], ...] = ()

    def __init__(self) -> None:
        self.complete = False
        self.problem = ""

    def __repr__(self) -> str:
        return f"<UntilCloseBody {'complete' if self.complete else 'open'}>"

    def feed(self, fed: bytes) -> tuple[bytes, int]:
        """Take everything."""
        return fed, len(fed)

    def finish(self) -> bool:
        """Become complete: the connection has ended, and that is how this body ends."""
        self.complete = True
        return True


class ChunkedBody:
    """
    A chunked body, decoded.

    Attributes:
        complete: The last byte of the trailer section has been taken.
        problem: What is malformed, in words; empty while all is well.
        trailers: Lower-case name and value of each trailer field, once complete.
    """

    __slots__ = (
        "_allowance",
        "_bounded",
        "_judged",
        "_line",
        "_remaining",
        "_state",
        "complete",
        "problem",
        "trailers",
    )

    def __init__(self, *, bounded: bool = True) -> None:
        """Start before the first chunk line; *bounded* holds the sender to the allowance for small chunks."""
        self._state = _SIZE
        self._remaining = 0
        self._line = b""
        self._judged = 0
        self._bounded = bounded
        self._allowance = SMALL_CHUNKS * SMALL_CHUNK_BYTES
        self.complete = False
        self.problem = ""
        self.trailers: tuple[tuple[bytes, bytes], ...] = ()

    def __repr__(self) -> str:
        state = ("size", "payload", "end", "trailers")[self._state]
        return f"<ChunkedBody {self.problem or ('complete' if self.complete else state)}>"

    def finish(self) -> bool:
        """Tell whether the body is whole, now that the connection has ended."""
        return self.complete

    def feed(self, fed: bytes) -> tuple[bytes, int]:
        """Decode what belongs to the body; see the module's head."""
        if self.problem or self.complete:
            return b"", 0
        kept = len(self._line)
        text = self._line + fed if kept else fed
        self._line, self._judged = b"", kept
        pieces: list[bytes] = []
        at = self._decode(text, pieces)
        return (pieces[0] if len(pieces) == 1 else b"".join(pieces)), at - kept

    def _decode(self, text: bytes, pieces: list[bytes]) -> int:
        """Run the machine over *text*; return the offset behind what it took or kept."""
        at, size = 0, len(text)
        while at < size and not self.complete and not self.problem:
            if self._state == _PAYLOAD:
                piece = text[at : at + self._remaining]
                pieces.append(piece)
                at += len(piece)
                self._remaining -= len(piece)
                if not self._remaining:
                    self._state = _END
                continue
            if self._state == _SIZE:
                at = self._whole_chunks(text, at, pieces)
                if at == size or self.problem:
                    break
            step = self._end if self._state == _END else self._size if self._state == _SIZE else self._trailers
            taken = step(text, at)
            if taken == 0:  # the line is not whole yet
                if not self.problem:
                    self._line = text[at:]
                return size
            at += taken
        return at

    def _end(self, text: bytes, at: int) -> int:
        """Take the CRLF behind a chunk's payload."""
        if text.startswith(b"\r\n", at):
            self._state = _SIZE
            return 2
        if text[at:] != b"\r":
            self.problem = "a chunk's payload is not followed by CRLF"
        return 0

    def _size(self, text: bytes, at: int) -> int:
        """Take a chunk line."""
        end = text.find(b"\r\n", at, at + MAX_CHUNK_LINE_BYTES)
        if end < 0:
            self._incomplete(text, at, MAX_CHUNK_LINE_BYTES, "a chunk line")
            return 0
        line = _LINE.fullmatch(text, at, end)
        size = int(line[1], 16) if line is not None else _MAX_SIZE + 1
        if size > _MAX_SIZE:
            self.problem = "a chunk line is not a hexadecimal size with well-formed extensions"
            return 0
        self._charge(size)
        self._remaining = size
        self._state = _PAYLOAD if size else _TRAILERS
        return end + 2 - at

    def _charge(self, size: int) -> None:
        """Hold the sender to the allowance: a chunk costs 64 bytes of it and earns its own."""
        if self._bounded and size:
            self._allowance += size - SMALL_CHUNK_BYTES
            if self._allowance < 0:
                self.problem = f"more than {SMALL_CHUNKS} chunks are smaller than {SMALL_CHUNK_BYTES} bytes"

    def _whole_chunks(self, text: bytes, at: int, pieces: list[bytes]) -> int:
        """Take the chunks that lie in *text* as a whole, without extensions: nearly all there are; return the new offset."""
        total = len(text)
        while (line := _PLAIN_LINE.match(text, at)) is not None:
            size, begin = int(line[1], 16), line.end()
            end = begin + size
            if not size or end + 2 > total or not text.startswith(b"\r\n", end):
                break
            self._charge(size)
            if self.problem:
                break
            pieces.append(text[begin:end])
            at = end + 2
        return at

    def _trailers(self, text: bytes, at: int) -> int:
        """Take the trailer section with its blank line."""
        if text.startswith(b"\r\n", at):
            self.complete = True
            return 2
        end = text.find(b"\r\n\r\n", at, at + MAX_TRAILER_BYTES)
        if end < 0:
            self._incomplete(text, at, MAX_TRAILER_BYTES, "the trailer section")
            return 0
        lines = text[at:end].split(b"\r\n")
        if len(lines) > MAX_TRAILERS:
            self.problem = f"more than {MAX_TRAILERS} trailer fields"
            return 0
        found = [_TRAILER.fullmatch(line) for line in lines]
        if not all(found):
            self.problem = "a trailer field is malformed"
            return 0
        self.trailers = tuple((match[1].lower(), match[2].strip(b" \t")) for match in found if match is not None)
        self.complete = True
        return end + 4 - at

    def _incomplete(self, text: bytes, at: int, limit: int, what: str) -> None:
        """Judge a line or section whose end has not arrived: it must not be malformed or too long already."""
        if len(text) - at >= limit:
            self.problem = f"{what} exceeds {limit} bytes"
        elif _BARE.search(text, max(at, self._judged - 1)):
            self.problem = f"{what} holds a bare CR or LF"


Body = LengthBody | ChunkedBody | UntilCloseBody

LAST_CHUNK: Final = b"0\r\n\r\n"


def encode_chunk(payload: bytes) -> bytes:
    """Frame *payload* (not empty: that would be the last chunk) as one chunk."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)
