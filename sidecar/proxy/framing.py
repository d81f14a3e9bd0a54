"""
What is a well-formed, unambiguous HTTP/1.1 head (RFC 9112), on the raw bytes; bodies are in `body.py`.

Theory.   A proxy is safe when no byte string exists that it and its neighbour cut into different messages. So the head is
          matched as a whole against one strict grammar (no leniency, ASCII only), and httptools (llhttp) then reads
          the fields of exactly these bytes as a second, independent opinion. Both must agree.

Tables.   limit                       value     precedents
          head                        16 KiB    node 16k, HAProxy tune.bufsize 16k, Apache 8k a line
          fields                      100       Apache LimitRequestFields 100, HAProxy tune.http.maxhdr 101
          target                      8 KiB     nginx 8k, Apache 8190
          response head               64 KiB    nginx 4k|8k, Envoy 60k, node 16k

          what                        rule
          before the request line     at most one CRLF
          versions                    1.0 and 1.1
          Host                        1.1: exactly one; 1.0: at most one; syntax in `target.py`
          Content-Length              one field, 1*DIGIT, ≤ 2^63 − 1; repeated or listed is refused even when equal
          Transfer-Encoding           exactly `chunked`, once, 1.1 only, never with Content-Length
          Expect                      `100-continue` on 1.1; other expectations are refused, as nobody promises them
                                      (RFC 9110, section 10.1.1 allows a final status; the table of reasons has 400)
          line ends                   CRLF; a bare CR or LF, NUL, a control, obs-fold, a space before `:` is refused

What can go wrong. `named` joins repeated fields by ", " (RFC 9110, section 5.3), so a repeated singleton is never a
          valid one: `5, 5` is no length and `a, b` no host. That, not a special case, is how they are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple

import httptools

from sidecar.proxy.target import MAX_TARGET_BYTES, Target, read_target, valid_host
from sidecar.reasons import Reason, Refusal

MAX_HEAD_BYTES: Final = 16 * 1024
MAX_FIELDS: Final = 100
MAX_RESPONSE_HEAD_BYTES: Final = 64 * 1024
MAX_LENGTH: Final = 2**63 - 1

_MAX_METHOD: Final = 64
_CACHED_LINE: Final = 256  # a start line up to this length may be remembered: at most 1024 of them
_MAX_DIGITS: Final = 64

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_METHOD: Final = re.compile(_TOKEN + rb"{1,%d}" % _MAX_METHOD)
_STATUS: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?")
# Both stop at the field section's blank line. A value may not end in white space in the first: it is stripped then.
_FIELDS: Final = re.compile(rb"(?:" + _TOKEN + rb"++:[\t\x20-\x7e\x80-\xff]*+(?<![ \t])\r\n)*+\r\n")
_UNSTRIPPED: Final = re.compile(rb"(?:" + _TOKEN + rb"++:[\t\x20-\x7e\x80-\xff]*+\r\n)*+\r\n")
_TRAILING: Final = re.compile(rb"[ \t]+\r\n")
_BARE: Final = re.compile(rb"(?<!\r)\n|\r[^\n]")
_LLHTTP_METHODS: Final = frozenset(
    (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS")
)  # others are legal too, but llhttp has a closed list: it reads their fields behind a GET


class RequestHead(NamedTuple):
    """
    A request's head, checked.

    Attributes:
        method: Of RFC 9110's token syntax, never CONNECT.
        target: What goes to the upstream: origin-form or `*`.
        path: The normalised path, the same as in `target`; see `target.py`.
        minor: 0 or 1 of HTTP/1.x.
        named: Lower-case name → value without outer white space; repeated fields joined by ", ".
        repeated: Every field line in order when a name is repeated, else None.
        host: As given (absolute-form: its authority); empty only on 1.0.
        content_length: None when there was none.
        chunked: The body is chunked.
        keep_alive: The client lets the connection live after this exchange.
        expect_continue: The client waits for 100 (Continue).
        upgrade: The client offers another protocol (Upgrade, named in Connection).
        nominated: Lower-case names that Connection lists, without its own options.
        readings: Other paths that known servers would see; see `target.py`.
    """

    method: str
    target: bytes
    path: str
    minor: int
    named: dict[bytes, bytes]
    repeated: list[tuple[bytes, bytes]] | None
    host: bytes
    content_length: int | None
    chunked: bool
    keep_alive: bool
    expect_continue: bool
    upgrade: bool
    nominated: frozenset[bytes]
    readings: tuple[str, ...]

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
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
        named, repeated, nominated: As in RequestHead.
        content_length: As given, also where there is no body (HEAD, 304); None when there was none.
        chunked: The body is chunked.
        bodiless: No body follows: 1xx, 204, 304, or the request was HEAD.
        keep_alive: The upstream lets the connection live; never true when the body lasts until close.
    """

    minor: int
    status: int
    phrase: bytes
    named: dict[bytes, bytes]
    repeated: list[tuple[bytes, bytes]] | None
    nominated: frozenset[bytes]
    content_length: int | None
    chunked: bool
    bodiless: bool
    keep_alive: bool

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
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


class _Options(NamedTuple):
    """What a Connection field says."""

    close: bool
    keep_alive: bool
    upgrade: bool
    nominated: frozenset[bytes]


_NO_OPTIONS: Final = _Options(close=False, keep_alive=False, upgrade=False, nominated=frozenset())
_OWN_OPTIONS: Final = frozenset((b"close", b"keep-alive", b"upgrade", b""))


def find_head_end(buffer: bytes | bytearray, start: int = 0) -> int:
    """
    Return the offset behind the head's blank line, or -1 while it has not arrived.

    Args:
        buffer: What has arrived; a head starts at its offset 0.
        start: Bytes that an earlier call has seen already.
    """
    end = buffer.find(b"\r\n\r\n", max(0, start - 3))
    return end + 4 if end >= 0 else -1


def parse_request_head(raw: bytes) -> RequestHead | Refusal:
    """
    Read one request head, from its first byte up to and including the blank line.

    Returns:
        The head, or why it is refused; never raises, whatever the bytes are.
    """
    if len(raw) > MAX_HEAD_BYTES:
        return _TOO_LARGE
    if raw[:2] == b"\r\n":
        raw = raw[2:]
    at = raw.find(b"\r\n")
    line = raw[:at]
    start = _remembered_line(line) if at <= _CACHED_LINE else _request_line(line)
    if isinstance(start, Refusal):
        return start
    method, minor, known, target = start
    fields = _fields(raw if known else b"GET / HTTP/1.1" + raw[at:], at if known else 14, httptools.HttpRequestParser)
    if isinstance(fields, str):
        return _TOO_MANY if fields is _MANY else _bad(fields)
    return _request(method, minor, target, *fields)


def _request(
    method: str,
    minor: int,
    target: Target,
    named: dict[bytes, bytes],
    repeated: list[tuple[bytes, bytes]] | None,
) -> RequestHead | Refusal:
    get = named.get
    host = get(b"host")
    if host is None:
        if minor:
            return _bad("Host is missing")
        host = b""
    elif not valid_host(host):
        return _bad("Host is not exactly one valid host with an optional port")
    if target.authority is not None:
        if not valid_host(target.authority) or (target.userinfo and target.authority != host):
            return _bad("the target's authority is not a valid host with an optional port")
        host = target.authority
    framing = _framing(minor, get(b"content-length"), get(b"transfer-encoding"))
    if isinstance(framing, str):
        return _bad(framing)
    length, chunked = framing
    connection = get(b"connection")
    options = _NO_OPTIONS if connection is None else _connection(connection)
    expect = get(b"expect")
    if expect is not None and expect.lower() != b"100-continue":
        return _bad("Expect names an expectation other than 100-continue")
    return RequestHead(
        method,
        target.forwarded,
        target.path,
        minor,
        named,
        repeated,
        host,
        length,
        chunked,
        not options.close and (minor == 1 or options.keep_alive),
        expect is not None and minor == 1 and (chunked or bool(length)),
        options.upgrade and b"upgrade" in named,
        options.nominated,
        target.readings,
    )


def parse_response_head(raw: bytes, request_method: str) -> ResponseHead | str:
    """
    Read one response head, from its first byte up to and including the blank line.

    Args:
        raw: Exactly the head.
        request_method: A response to HEAD has no body.

    Returns:
        The head, or what is wrong with it in words; never raises.
    """
    at = raw.find(b"\r\n")
    match = _STATUS.fullmatch(raw, 0, max(at, 0))
    if match is None:
        return "the status line is malformed or of an unsupported version"
    fields = _fields(raw, at, httptools.HttpResponseParser)
    if isinstance(fields, str):
        return fields
    named, repeated = fields
    minor, status = int(match[1]), int(match[2])
    framing = _framing(minor, named.get(b"content-length"), named.get(b"transfer-encoding"))
    if isinstance(framing, str):
        return framing
    length, chunked = framing
    bodiless = request_method == "HEAD" or status < 200 or status in (204, 304)
    connection = named.get(b"connection")
    options = _NO_OPTIONS if connection is None else _connection(connection)
    keep = not options.close and (minor == 1 or options.keep_alive)
    return ResponseHead(
        minor,
        status,
        match[3] or b"",
        named,
        repeated,
        options.nominated,
        length,
        chunked and not bodiless,
        bodiless,
        keep and (bodiless or chunked or length is not None),
    )


class _Sink:
    """What httptools reports to: fields only; the Nones spare it failing attribute look-ups."""

    __slots__ = ("on_header",)
    on_message_begin = on_url = on_headers_complete = on_body = on_message_complete = None
    on_chunk_header = on_chunk_complete = on_status = None

    def __init__(self, on_header: Callable[[bytes, bytes], object]) -> None:
        self.on_header = on_header


_MANY: Final = "more than 100 fields"


def _fields(
    raw: bytes, at: int, parser: type[httptools.HttpRequestParser | httptools.HttpResponseParser]
) -> tuple[dict[bytes, bytes], list[tuple[bytes, bytes]] | None] | str:
    """Check and read the field lines behind the start line that ends at *at*."""
    if _FIELDS.fullmatch(raw, at + 2) is None:
        if _UNSTRIPPED.fullmatch(raw, at + 2) is None:
            return "a field line is malformed"
        raw = raw[:at] + _TRAILING.sub(b"\r\n", raw[at:])
    count = raw.count(b"\n") - 2
    if count > MAX_FIELDS:
        return _MANY
    found: dict[bytes, bytes] = {}
    try:
        parser(_Sink(found.setdefault)).feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        return f"the head is refused: {error}"
    named = dict(zip(map(bytes.lower, found), found.values(), strict=True))
    if len(named) == count:
        return named, None
    return _repeated(raw, at)


def _repeated(raw: bytes, at: int) -> tuple[dict[bytes, bytes], list[tuple[bytes, bytes]]]:
    """Read the field lines one by one: a name comes back, so that a dictionary alone would lose one."""
    pairs: list[tuple[bytes, bytes]] = []
    named: dict[bytes, bytes] = {}
    for line in raw[at + 2 : -4].split(b"\r\n"):
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        pairs.append((name, value))
        named[name] = b"%b, %b" % (named[name], value) if name in named else value
    return named, pairs


def _framing(minor: int, length: bytes | None, coding: bytes | None) -> tuple[int | None, bool] | str:
    """Decide how the body is delimited: (Content-Length, chunked), or what is wrong."""
    if coding is None:
        if length is None:
            return _UNFRAMED
        if not length.isdigit() or len(length) > _MAX_DIGITS or int(length) > MAX_LENGTH:
            return "Content-Length is not exactly one decimal number below 2^63"
        return int(length), False
    if length is not None:
        return "Content-Length and Transfer-Encoding stand together"
    if minor == 0:
        return "Transfer-Encoding on HTTP/1.0"
    if coding.lower() != b"chunked":
        return "Transfer-Encoding is not exactly chunked"
    return None, True


_UNFRAMED: Final[tuple[int | None, bool]] = (None, False)


def _connection(value: bytes) -> _Options:
    return _remembered_options(value) if len(value) <= _CACHED_LINE else _options(value)


def _options(value: bytes) -> _Options:
    names = frozenset(name.strip(b" \t") for name in value.lower().split(b","))
    return _Options(b"close" in names, b"keep-alive" in names, b"upgrade" in names, names - _OWN_OPTIONS)


def _request_line(line: bytes) -> tuple[str, int, bool, Target] | Refusal:
    """Read `method SP target SP version` with exactly these two spaces."""
    parts = line.split(b" ")
    if len(parts) != 3:
        return _bad("the request line is not method, target and version with one space between")
    method, target, version = parts
    minor = 1 if version == b"HTTP/1.1" else 0 if version == b"HTTP/1.0" else -1
    if minor < 0:
        return _bad("the version is neither HTTP/1.1 nor HTTP/1.0")
    if not _METHOD.fullmatch(method):
        return _bad("the method is not a token of at most 64 bytes")
    if method in (b"CONNECT", b"PRI"):
        return _bad(f"the method {method.decode('ascii')} is not served here")
    if len(target) > MAX_TARGET_BYTES:
        return _TOO_LONG
    name = method.decode("ascii")
    read = read_target(name, target)
    return _bad(read) if isinstance(read, str) else (name, minor, method in _LLHTTP_METHODS, read)


_remembered_line: Final = lru_cache(maxsize=1024)(_request_line)
_remembered_options: Final = lru_cache(maxsize=256)(_options)


def _bad(detail: str) -> Refusal:
    return Refusal(Reason.BAD_REQUEST, 0.0, "framing", detail)


_TOO_LARGE: Final = Refusal(Reason.HEADER_TOO_LARGE, 0.0, "framing", f"the head exceeds {MAX_HEAD_BYTES} bytes")
_TOO_MANY: Final = Refusal(Reason.HEADER_TOO_LARGE, 0.0, "framing", f"more than {MAX_FIELDS} fields")
_TOO_LONG: Final = Refusal(Reason.URI_TOO_LONG, 0.0, "framing", f"the target exceeds {MAX_TARGET_BYTES} bytes")
