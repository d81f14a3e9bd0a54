"""
What is a well-formed, unambiguous HTTP/1.1 head (RFC 9112), on the raw bytes.

Theory.   A proxy is safe when no byte string exists that it and its neighbour cut into different messages. So each part of
          a head is matched against one strict grammar: the start line here, host and target in `target.py`, the field
          lines in `fields.py`; bodies are in `body.py`, heads that are still arriving in `scan.py`.

Tables.   limit                       value     precedents
          head                        16 KiB    node 16k, HAProxy tune.bufsize 16k, Apache 8k a line
          fields                      100       Apache LimitRequestFields 100, HAProxy tune.http.maxhdr 101
          target                      8 KiB     nginx 8k, Apache 8190
          response head               64 KiB    nginx 4k|8k, Envoy 60k, node 16k

          what                        rule
          before the request line     at most one CRLF
          method                      a token of at most 64 bytes; not CONNECT (no forward proxy) and not PRI (HTTP/2)
          versions                    1.0 and 1.1
          Host                        1.1: exactly one; 1.0: at most one; syntax in `target.py`
          Content-Length              one field, 1*DIGIT, ≤ 2^63 − 1; repeated or listed is refused even when equal
          Transfer-Encoding           exactly `chunked`, once, 1.1 only, never with Content-Length
          Expect                      `100-continue`, without effect on 1.0 and without a body; other expectations are
                                      refused with 400: nobody here can promise them (RFC 9110, section 10.1.1)
          Upgrade                     noted; the exchange goes on as plain HTTP
          status                      100 … 999; the reason phrase without NUL and controls, may be missing
          line ends                   CRLF; a bare CR or LF, NUL, a control, obs-fold, a space before `:` is refused

Memory.   Clients say the same again and again: a whole head, a start line, a section of fields and a response's head are each
          remembered from the second time on (1024, 1024, 512 and 512 short ones; `memory.py`), with what was written from
          them (`memo`, see `headers.py`). What is remembered is exact: the key is the bytes themselves.

What can go wrong. What is derived from a line or a section must depend on it alone; what needs both is in `_request`.
          Sections hold secrets of clients (Authorization, Cookie): they live as long as the memory, never outside of it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

import httptools

from sidecar.proxy.fields import (
    NO_OPTIONS,
    REMEMBERED_BYTES,
    TOO_MANY,
    Pairs,
    agrees_on_line,
    read_fields,
    read_framing,
    read_options,
)
from sidecar.proxy.memory import Memory
from sidecar.proxy.target import MAX_TARGET_BYTES, Target, read_target, valid_host
from sidecar.reasons import Reason, Refusal

MAX_HEAD_BYTES: Final = 16 * 1024
MAX_RESPONSE_HEAD_BYTES: Final = 64 * 1024
MAX_METHOD_BYTES: Final = 64

_REMEMBERED_LINE: Final = 256
_METHOD: Final = re.compile(rb"[!#$%%&'*+.^_`|~0-9A-Za-z-]{1,%d}" % MAX_METHOD_BYTES)
_STATUS: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?")
# llhttp has a closed list of methods; it is not asked about the lines of others. Fields are read behind a GET.
_LLHTTP_METHODS: Final = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))
_STAND_IN: Final = b"GET / HTTP/1.1"
_new: Final = tuple.__new__  # a NamedTuple's own __new__ is a call in Python


Memo = dict[tuple[object, ...], bytes]
"""Bytes that were written before, by what they depend on beside the head; bounded by `remember`."""


class RequestHead(NamedTuple):
    """
    A request's head, checked.

    Attributes:
        method: Of RFC 9110's token syntax, never CONNECT.
        target: What goes to the upstream: origin-form or `*`.
        path: The normalised path, the same as in `target`; see `target.py`.
        minor: 0 or 1 of HTTP/1.x.
        names: Lower-case, each once.
        named: Name → value without outer white space; repeated fields joined by ", ".
        repeated: Every field line in order when a name is repeated, else None.
        host: As given (absolute-form: its authority); empty only on 1.0.
        content_length: None when there was none.
        chunked: The body is chunked.
        keep_alive: The client lets the connection live after this exchange.
        expect_continue: The client waits for 100 (Continue) with its body.
        upgrade: The client offers another protocol (Upgrade, named in Connection).
        nominated: Lower-case names that Connection lists, without its own options.
        readings: Other paths that known servers would see; see `target.py`.
        line: The request line for the upstream, with its CRLF.
        memo: What was written from the same fields before; None while they are not remembered.
        regular: The request line is remembered, so what follows from it alone is worth remembering.
    """

    method: str
    target: bytes
    path: str
    minor: int
    names: tuple[bytes, ...]
    named: dict[bytes, bytes]
    repeated: Pairs | None
    host: bytes
    content_length: int | None
    chunked: bool
    keep_alive: bool
    expect_continue: bool
    upgrade: bool
    nominated: frozenset[bytes]
    readings: tuple[str, ...]
    line: bytes
    memo: Memo | None
    regular: bool

    @property
    def fields(self) -> Pairs:
        """Every field line in the order of arrival."""
        return list(self.named.items()) if self.repeated is None else self.repeated

    @property
    def has_body(self) -> bool:
        """Tell whether body bytes follow."""
        return self.chunked or bool(self.content_length)


class ResponseHead(NamedTuple):
    """
    A response's head, checked.

    Attributes:
        minor: 0 or 1 of HTTP/1.x.
        status: 100 … 999.
        phrase: The reason phrase, may be empty.
        names, named, repeated, nominated, memo: As in RequestHead.
        content_length: As given, also where there is no body (HEAD, 304); None when there was none.
        chunked: The body is chunked.
        bodiless: No body follows: 1xx, 204, 304, or the request was HEAD.
        keep_alive: The upstream lets the connection live; never true when the body lasts until close.
        line: The status line for the client, with its CRLF.
    """

    minor: int
    status: int
    phrase: bytes
    names: tuple[bytes, ...]
    named: dict[bytes, bytes]
    repeated: Pairs | None
    nominated: frozenset[bytes]
    content_length: int | None
    chunked: bool
    bodiless: bool
    keep_alive: bool
    line: bytes
    memo: Memo | None

    @property
    def fields(self) -> Pairs:
        """Every field line in the order of arrival."""
        return list(self.named.items()) if self.repeated is None else self.repeated

    @property
    def until_close(self) -> bool:
        """Tell whether the body ends with the connection."""
        return not self.bodiless and not self.chunked and self.content_length is None

    @property
    def interim(self) -> bool:
        """Tell whether another response follows; 101 is no interim response but the last one of HTTP."""
        return self.status < 200 and self.status != 101


class RequestLine(NamedTuple):
    """A request line, read; `line` is the one for the upstream; llhttp has an opinion on it where `asks_llhttp`."""

    method: str
    minor: int
    target: Target
    line: bytes
    asks_llhttp: bool


class Section(NamedTuple):
    """The fields of a request of one minor version, read and checked; the attributes are RequestHead's."""

    names: tuple[bytes, ...]
    named: dict[bytes, bytes]
    repeated: Pairs | None
    host: bytes
    content_length: int | None
    chunked: bool
    keep_alive: bool
    expect_continue: bool
    upgrade: bool
    nominated: frozenset[bytes]
    memo: Memo | None


def find_head_end(buffer: bytes | bytearray, start: int = 0) -> int:
    """
    Return the offset behind the head's blank line, or -1 while it has not arrived.

    Args:
        buffer: What has arrived; a head starts at its offset 0.
        start: Bytes that an earlier call has seen already.
    """
    end = buffer.find(b"\r\n\r\n", start - 3 if start > 3 else 0)
    return end + 4 if end >= 0 else -1


def parse_request_head(raw: bytes) -> RequestHead | Refusal:
    """
    Read one request head, from its first byte up to and including the blank line.

    Returns:
        The head, or why it is refused; never raises, whatever the bytes are.
    """
    known = KNOWN_HEADS.get(raw)
    if known is not None:
        return known
    if len(raw) > MAX_HEAD_BYTES:
        return HEAD_TOO_LARGE
    head = _read_head(raw[2:] if raw.startswith(b"\r\n") else raw)
    if isinstance(head, RequestHead) and head.regular and head.memo is not None:
        _heads.keep(raw, head)
    return head


def _read_head(raw: bytes) -> RequestHead | Refusal:
    at = raw.find(b"\r\n")
    line, lines = raw[:at], raw[at:]
    known = _lines.kept.get(line)
    start = read_request_line(line) if known is None else known
    if isinstance(start, Refusal):
        return start
    asked = known is not None or not start.asks_llhttp
    sections = _sections[start.minor]
    section = sections.kept.get(lines)
    if section is None:
        # llhttp reads a new line and a new section in one pass, else the section behind a stand-in.
        together = start.minor == 1 and not asked
        read = read_section(lines, start.minor, line if together else _STAND_IN)
        if isinstance(read, Refusal):
            return read
        keeps = len(lines) <= REMEMBERED_BYTES and sections.again(lines)
        section = sections.keep(lines, read._replace(memo={})) if keeps else read
        asked = asked or together
    if not asked and not agrees_on_line(line):
        return BAD_LINE
    if known is None and len(line) <= _REMEMBERED_LINE and _lines.again(line):
        known = _lines.keep(line, start)
    return _join(start, section, known is not None)


def _join(start: RequestLine, section: Section, regular: bool) -> RequestHead | Refusal:  # noqa: FBT001
    method, minor, target, line, _ = start
    names, named, repeated, host, length, chunked, keep, expect, upgrade, nominated, memo = section
    if target.authority is not None:
        if not valid_host(target.authority) or (target.userinfo and target.authority != host):
            return bad_request("the target's authority is not exactly one valid host with an optional port")
        host, memo = target.authority, None
    parts = (
        method, target.forwarded, target.path, minor, names, named, repeated, host, length, chunked, keep, expect,
        upgrade, nominated, target.readings, line, memo, regular,
    )  # fmt: skip
    return _new(RequestHead, parts)


def read_section(lines: bytes, minor: int, behind: bytes = _STAND_IN) -> Section | Refusal:
    """
    Read the fields of a request.

    Args:
        lines: From the start line's CRLF up to and including the blank line.
        minor: 0 or 1 of HTTP/1.x.
        behind: The request line that llhttp sees before them, without its CRLF.
    """
    fields = read_fields(behind + lines, len(behind), httptools.HttpRequestParser)
    if isinstance(fields, str):
        return TOO_MANY_FIELDS if fields is TOO_MANY else bad_request(fields)
    names, named, repeated = fields
    get = named.get
    host = get(b"host")
    if host is None and minor:
        return bad_request("Host is missing")
    if host is not None and not valid_host(host):
        return bad_request("Host is not exactly one valid host with an optional port")
    framing = read_framing(minor, get(b"content-length"), get(b"transfer-encoding"))
    if isinstance(framing, str):
        return bad_request(framing)
    length, chunked = framing
    connection = get(b"connection")
    options = NO_OPTIONS if connection is None else read_options(connection)
    expect = get(b"expect")
    if expect is not None and expect.lower() != b"100-continue":
        return bad_request("Expect names an expectation other than 100-continue")
    keep = not options.close and (minor == 1 or options.keep_alive)
    waits = expect is not None and minor == 1 and (chunked or bool(length))
    upgrade = options.upgrade and b"upgrade" in named
    parts = names, named, repeated, host or b"", length, chunked, keep, waits, upgrade, options.nominated, None
    return _new(Section, parts)


def parse_response_head(raw: bytes, request_method: str) -> ResponseHead | str:
    """
    Read one response head, from its first byte up to and including the blank line.

    Args:
        raw: Exactly the head.
        request_method: A response to HEAD has no body.

    Returns:
        The head, or what is wrong with it in words; never raises.
    """
    to_head = request_method == "HEAD"
    memory = _responses[to_head]
    known = memory.kept.get(raw)
    if known is not None:
        return known
    if len(raw) > MAX_RESPONSE_HEAD_BYTES:
        return f"the head exceeds {MAX_RESPONSE_HEAD_BYTES} bytes"
    head = read_response(raw, to_head)
    if len(raw) <= REMEMBERED_BYTES and not isinstance(head, str) and memory.again(raw):
        return memory.keep(raw, head._replace(memo={}))
    return head


def read_response(raw: bytes, to_head: bool) -> ResponseHead | str:  # noqa: FBT001  a key of the memory
    """Read a response's head; *to_head* when it answers HEAD."""
    at = max(raw.find(b"\r\n"), 0)
    start = _remembered_status(raw[:at]) if at <= _REMEMBERED_LINE else read_status_line(raw[:at])
    if isinstance(start, str):
        return start
    minor, status, phrase, line = start
    fields = read_fields(raw, at, httptools.HttpResponseParser)
    if isinstance(fields, str):
        return fields
    names, named, repeated = fields
    get = named.get
    framing = read_framing(minor, get(b"content-length"), get(b"transfer-encoding"))
    if isinstance(framing, str):
        return framing
    length, chunked = framing
    bodiless = to_head or status < 200 or status in (204, 304)
    connection = get(b"connection")
    options = NO_OPTIONS if connection is None else read_options(connection)
    keep = not options.close and (minor == 1 or options.keep_alive)
    return ResponseHead(
        minor,
        status,
        phrase,
        names,
        named,
        repeated,
        options.nominated,
        length,
        chunked and not bodiless,
        bodiless,
        keep and (bodiless or chunked or length is not None),
        line,
        None,
    )


def read_request_line(line: bytes) -> RequestLine | Refusal:
    """Read `method SP target SP version` with exactly these two spaces; the second opinion is the caller's to ask."""
    parts = line.split(b" ")
    if len(parts) != 3:
        return bad_request("the request line is not method, target and version with one space between")
    method, target, version = parts
    minor = 1 if version == b"HTTP/1.1" else 0 if version == b"HTTP/1.0" else -1
    if minor < 0:
        return bad_request("the version is neither HTTP/1.1 nor HTTP/1.0")
    if method not in _LLHTTP_METHODS and not _METHOD.fullmatch(method):
        return bad_request(f"the method is not a token of at most {MAX_METHOD_BYTES} bytes")
    name = method.decode("ascii")
    if name in ("CONNECT", "PRI"):
        return bad_request(f"the method {name} is not served here")
    if len(target) > MAX_TARGET_BYTES:
        return TARGET_TOO_LONG
    read = read_target(name, target)
    if isinstance(read, str):
        return bad_request(read)
    forwarded = line if minor and read.forwarded == target else b"%b %b HTTP/1.1" % (method, read.forwarded)
    return _new(RequestLine, (name, minor, read, forwarded + b"\r\n", method in _LLHTTP_METHODS))


def read_status_line(line: bytes) -> tuple[int, int, bytes, bytes] | str:
    """Read a status line: (minor version, status, reason phrase, the line for the client), or what is wrong."""
    match = _STATUS.fullmatch(line)
    if match is None:
        return "the status line is malformed or of a version other than HTTP/1.1 and HTTP/1.0"
    phrase = match[3] or b""
    return int(match[1]), int(match[2]), phrase, b"HTTP/1.1 %b %b\r\n" % (match[2], phrase)


def bad_request(detail: str) -> Refusal:
    """Refuse a message; *detail* says what is wrong, for the client."""
    return Refusal(Reason.BAD_REQUEST, 0.0, "framing", detail)


_heads: Final[Memory[bytes, RequestHead]] = Memory(1024)
KNOWN_HEADS: Final = _heads.kept  # for those who hold exactly one head, as most who read a request do
KNOWN_BYTES: Final = REMEMBERED_BYTES  # what is longer is not worth its hash
_lines: Final[Memory[bytes, RequestLine]] = Memory(1024)
_sections: Final[tuple[Memory[bytes, Section], ...]] = (Memory(64), Memory(512))  # HTTP/1.0 and 1.1
_responses: Final[tuple[Memory[bytes, ResponseHead], ...]] = (Memory(512), Memory(64))  # to others, to HEAD
_remembered_status: Final = lru_cache(maxsize=256)(read_status_line)

BAD_LINE: Final = bad_request("the second parser refuses the request line")
HEAD_TOO_LARGE: Final = Refusal(Reason.HEADER_TOO_LARGE, 0.0, "framing", f"the head exceeds {MAX_HEAD_BYTES} bytes")
TOO_MANY_FIELDS: Final = Refusal(Reason.HEADER_TOO_LARGE, 0.0, "framing", TOO_MANY)
TARGET_TOO_LONG: Final = Refusal(Reason.URI_TOO_LONG, 0.0, "framing", f"the target exceeds {MAX_TARGET_BYTES} bytes")
