"""
The field lines of a head: read twice, and what they say about the body and the connection (RFC 9110, 9112).

Theory.   The whole section is matched against one strict grammar first (no leniency, ASCII names, CRLF only); httptools
          (llhttp) then reads the same bytes as an independent second opinion, and both must agree. Clients send few different
          lists of names, so their lower-case forms are remembered (at most 512 lists, of short heads only).

What can go wrong. `named` joins repeated fields by ", " (RFC 9110, section 5.3), so a repeated singleton is never a
          valid one: `5, 5` is no length and `a, b` no host. That, not a special case, is how they are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import ClassVar, Final, NamedTuple

import httptools

MAX_FIELDS: Final = 100
MAX_LENGTH: Final = 2**63 - 1
REMEMBERED_BYTES: Final = 2048  # what a head up to this size is made of may be remembered

_MAX_DIGITS: Final = 64
_MAX_CONNECTION: Final = 256

_NAME: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++:"
_SECTION: Final = re.compile(rb"(?:" + _NAME + rb"[\t\x20-\x7e\x80-\xff]*+(?<![ \t])\r\n)*+\r\n")
# llhttp keeps white space behind a value and refuses it behind `chunked`: it is stripped before llhttp sees it.
_UNSTRIPPED: Final = re.compile(rb"(?:" + _NAME + rb"[\t\x20-\x7e\x80-\xff]*+\r\n)*+\r\n")
_TRAILING: Final = re.compile(rb"(?<![ \t])[ \t]++\r\n")  # begins at a run's first byte only: linear

MALFORMED: Final = "a field line is malformed"
TOO_MANY: Final = f"more than {MAX_FIELDS} fields"

Pairs = list[tuple[bytes, bytes]]


class Options(NamedTuple):
    """What a Connection field says; `nominated` is without its own options."""

    close: bool
    keep_alive: bool
    upgrade: bool
    nominated: frozenset[bytes]


NO_OPTIONS: Final = Options(close=False, keep_alive=False, upgrade=False, nominated=frozenset())
_OWN_OPTIONS: Final = frozenset((b"close", b"keep-alive", b"upgrade", b""))
_UNFRAMED: Final[tuple[int | None, bool]] = (None, False)


class _Sink:
    """What httptools reports to: fields only; the Nones spare it failing look-ups of attributes."""

    __slots__ = ("on_header",)
    on_message_begin: ClassVar[None] = None
    on_url: ClassVar[None] = None
    on_status: ClassVar[None] = None
    on_headers_complete: ClassVar[None] = None
    on_body: ClassVar[None] = None
    on_message_complete: ClassVar[None] = None
    on_chunk_header: ClassVar[None] = None
    on_chunk_complete: ClassVar[None] = None

    def __init__(self, on_header: Callable[[bytes, bytes], object]) -> None:
        self.on_header = on_header


def read_fields(
    raw: bytes, at: int, parser: type[httptools.HttpRequestParser | httptools.HttpResponseParser]
) -> tuple[tuple[bytes, ...], dict[bytes, bytes], Pairs | None] | str:
    """
    Check and read the field lines of a head.

    Args:
        raw: The head with its blank line.
        at: Where the start line ends.
        parser: The second opinion's class; a parser serves one head, as its states stick.

    Returns:
        The lower-case names, name → value (without outer white space, repeated fields joined by ", "), and every line in order
        when a name is repeated, else None; or what is wrong.
    """
    if _SECTION.fullmatch(raw, at + 2) is None:
        if _UNSTRIPPED.fullmatch(raw, at + 2) is None:
            return MALFORMED
        raw = raw[:at] + _TRAILING.sub(b"\r\n", raw[at:])
    count = raw.count(b"\n") - 2
    if count > MAX_FIELDS:
        return TOO_MANY
    found: dict[bytes, bytes] = {}
    try:
        parser(_Sink(found.setdefault)).feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        return f"the second parser refuses the head: {error}"
    spelled = tuple(found)
    names = _remembered_names(spelled) if len(raw) <= REMEMBERED_BYTES else _lower(spelled)
    named = dict(zip(names, found.values()))  # noqa: B905 - equally long by construction; strict= costs 0.2 µs
    if len(named) == count:
        return names, named, None
    return _repeated(raw, at)


def _lower(names: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return tuple(map(bytes.lower, names))


def _repeated(raw: bytes, at: int) -> tuple[tuple[bytes, ...], dict[bytes, bytes], Pairs]:
    """Read the field lines one by one: a name comes back, so that a dictionary alone would lose one."""
    pairs: Pairs = []
    values: dict[bytes, list[bytes]] = {}
    for line in raw[at + 2 : -4].split(b"\r\n"):
        spelled, _, value = line.partition(b":")
        name, value = spelled.lower(), value.strip(b" \t")
        pairs.append((name, value))
        values.setdefault(name, []).append(value)
    named = {name: b", ".join(several) for name, several in values.items()}
    return tuple(named), named, pairs


def agrees_on_line(line: bytes) -> bool:
    """Tell whether llhttp, too, takes *line* for a request line."""
    try:
        httptools.HttpRequestParser(_Sink(_ignore)).feed_data(line + b"\r\n\r\n")
    except httptools.HttpParserError:
        return False
    return True


def _ignore(name: bytes, value: bytes) -> None:
    """Take a field that nobody wants."""


def read_framing(minor: int, length: bytes | None, coding: bytes | None) -> tuple[int | None, bool] | str:
    """Decide how the body is delimited: (Content-Length or None, chunked), or what is wrong."""
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


def read_options(connection: bytes) -> Options:
    """Read a Connection field."""
    return _remembered_options(connection) if len(connection) <= _MAX_CONNECTION else _options(connection)


def _options(connection: bytes) -> Options:
    names = frozenset(name.strip(b" \t") for name in connection.lower().split(b","))
    return Options(b"close" in names, b"keep-alive" in names, b"upgrade" in names, names - _OWN_OPTIONS)


_remembered_names: Final = lru_cache(maxsize=512)(_lower)
_remembered_options: Final = lru_cache(maxsize=256)(_options)
