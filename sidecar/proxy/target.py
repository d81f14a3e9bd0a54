"""
What a request is about: host and target, read strictly from raw bytes.

Theory.   Two servers in a row must read one request as one and the same resource, or whoever writes the request
          chooses which rules apply to it. So this file accepts only what every server reads alike, and names all the
          readings of what servers are known to read differently, so that `route.py` can refuse when they disagree.

Host.     `reg-name`, IPv4 or `[IPv6]`, with an optional port (RFC 3986, section 3.2.2; RFC 9110, section 7.2). No
          userinfo, no list (`,`), no percent-encoding. A host whose last label looks like a number must be a strict
          dotted IPv4 address (WHATWG URL, "ends in a number"): `0x7f.1` and `017700000001` are refused. Empty is
          refused: an `http` URI without host is invalid (RFC 9110, section 4.2.1).

Target.   origin-form, absolute-form (`http` only; its authority replaces Host), `*` for OPTIONS only. CONNECT and its
          authority-form are refused: this is no forward proxy. Userinfo in an absolute-form is dropped when the Host
          field names the same host and port without it, and refused otherwise (RFC 9110, section 4.2.4).

Path.     The rule, in the order in which it is applied; what is left is matched *and* forwarded, byte for byte:
          1. bytes: `pchar` and `/` of RFC 3986 only; `%` needs two hex digits.
          2. `%XX` of an unreserved character is decoded (`%61` is `a`, `%2e` is `.`), other hex digits become upper
             case (RFC 3986, section 6.2.2): both spellings are the same path to every server.
          3. `%00` and other encoded controls are refused.
          4. a dot segment is refused, also one that hides behind `%2F`, `%5C` or a path parameter (`/..;x/`):
             clients resolve them before they send, so only an attacker is left.
          5. `//`, `;x`, `%2F` and `%5C` stay as they are: there are servers that read `//` as `/`, drop `;x` and decode
             `%2F` (`%5C`) to `/`, and APIs that rely on them. `readings` lists what such servers would see; a request
             whose readings lead to different routes is refused by `Router.route`.

Query.    Visible ASCII but `"`, `#`, `<` and `>` (what the URL Standard lets browsers send); `%` needs two hex digits.
          The query takes no part in routing and is forwarded byte for byte.

What can go wrong. Servers that decode twice (`%252e`) see another path than we do; that is a fault of theirs which no
          proxy can know of.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from itertools import product
from typing import Final, NamedTuple

MAX_TARGET_BYTES: Final = 8192  # nginx large_client_header_buffers 8k, Apache LimitRequestLine 8190
MAX_HOST_BYTES: Final = 261  # a DNS name of 255 and a port

_HOST: Final = re.compile(rb"(?:([A-Za-z0-9._~!$&'()*+;=-]+)|\[([0-9A-Fa-f:.]+)\])(?::([0-9]{0,5}))?")
_NUMBER: Final = re.compile(rb"(?:[^.]*\.)*(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.?")
_ORIGIN: Final = re.compile(
    rb"(/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]++|%[0-9A-Fa-f]{2})*+)(\?(?:[!$&-;=?-~]++|%[0-9A-Fa-f]{2})*+)?"
)
_ABSOLUTE: Final = re.compile(rb"[Hh][Tt][Tt][Pp]://([^/?#]*)(.*)")
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_SPECIAL: Final = re.compile(rb"[%;]|/[/.]")  # where there is none of these a path means one thing to everybody
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_CONTROL: Final = re.compile(rb"%(?:[01][0-9A-F]|7F)")
_DOTS: Final = re.compile(rb"(?:/|%2F|%5C)\.\.?(?:[;/]|%2F|%5C|\Z)")
_PARAMETER: Final = re.compile(r";[^/]*")
_SLASHES: Final = re.compile(r"//+")


class Target(NamedTuple):
    """
    A request target, read.

    Attributes:
        path: Normalised; `*` for the asterisk-form. What is matched and forwarded.
        forwarded: Path and query as they go to the upstream.
        authority: Of an absolute-form, without userinfo; None for the other forms.
        userinfo: The absolute-form had one.
        readings: Other paths that known servers would see; empty for nearly every request.
    """

    path: str
    forwarded: bytes
    authority: bytes | None = None
    userinfo: bool = False
    readings: tuple[str, ...] = ()


@lru_cache(maxsize=4096)
def _valid_host(host: bytes) -> bool:
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    name, literal, port = match.groups()
    if port and int(port) > 65535:
        return False
    try:
        if literal is not None:
            ipaddress.IPv6Address(literal.decode("ascii"))
        elif _NUMBER.fullmatch(name):
            ipaddress.IPv4Address(name.decode("ascii"))
    except ValueError:
        return False
    return True


def valid_host(host: bytes) -> bool:
    """Tell whether *host* is one host with an optional port; long ones are refused before they reach the cache."""
    return len(host) <= MAX_HOST_BYTES and _valid_host(host)


def read_target(method: str, target: bytes) -> Target | str:
    """
    Read a request target of at most MAX_TARGET_BYTES.

    Returns:
        The target, or what is wrong with it in words for the client.
    """
    if target == b"*":
        return Target("*", b"*") if method == "OPTIONS" else "the target * is for OPTIONS only"
    if target.startswith(b"/"):
        return _origin(target)
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        return "the target must start with / or http://"
    authority, rest = absolute.groups()
    _, at, host = authority.rpartition(b"@")
    if not rest and method == "OPTIONS":
        return Target("*", b"*", host, bool(at))  # RFC 9112, section 3.2.4
    origin = _origin(rest if rest.startswith(b"/") else b"/" + rest)
    return origin if isinstance(origin, str) else origin._replace(authority=host, userinfo=bool(at))


def _origin(target: bytes) -> Target | str:
    match = _ORIGIN.fullmatch(target)
    if match is None:
        return "the target holds a byte or percent-encoding that RFC 3986 does not allow there"
    path, query = match.groups()
    if _SPECIAL.search(path) is None:
        return tuple.__new__(Target, (path.decode("ascii"), target, None, False, ()))
    if b"%" in path:
        path = _ESCAPE.sub(_unescape, path)
        if _CONTROL.search(path):
            return "the path holds an encoded control character"
    if (b"/." in path or b"%" in path) and _DOTS.search(path):
        return "the path holds a dot segment; resolve it before sending"
    text = path.decode("ascii")
    other = _readings(text) if b"//" in path or b";" in path or b"%" in path else ()
    return tuple.__new__(Target, (text, path + query if query else path, None, False, other))


def _unescape(match: re.Match[bytes]) -> bytes:
    code = int(match[1], 16)
    return bytes((code,)) if code in _UNRESERVED else b"%" + match[1].upper()


def _readings(path: str) -> tuple[str, ...]:
    """List what servers would see that drop parameters, decode slashes or merge them, in every combination."""
    seen = {path: None}
    for parameters, slash, backslash, merge in product((False, True), repeat=4):
        read = path.replace("%2F", "/") if slash else path
        read = read.replace("%5C", "/") if backslash else read
        read = _PARAMETER.sub("", read) if parameters else read
        read = _SLASHES.sub("/", read) if merge else read
        seen[read] = None
    return tuple(seen)[1:]
