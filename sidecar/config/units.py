"""
Quantities as people write them: durations, rates, sizes, ratios and addresses, both ways.

Every parser takes exactly one spelling of each thing, in ASCII, and refuses everything else with a sentence about what
to type instead. A bare number is refused where a unit is possible: `timeout: 30` has meant seconds, milliseconds and
minutes in different proxies, and each reader is sure of another one. Every formatter returns the canonical spelling,
and parsing it gives the same value back, to the bit.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from sidecar.config.policies import Address, Endpoint

_NUMBER: Final = r"([0-9]{1,15}(?:\.[0-9]{1,12})?)"
_QUANTITY: Final = re.compile(_NUMBER + r" ?([A-Za-z%/µ]*)", re.ASCII)
_HOST: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?", re.ASCII)
_PORT: Final = re.compile(r"[0-9]{1,5}", re.ASCII)
_SHOWN_CHARS: Final = 60
_LARGEST_SIZE_BYTES: Final = 1024**4

_SECONDS: Final = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86400)}
_PER: Final = {"/s": Decimal(1), "/m": Decimal(60), "/h": Decimal(3600)}
_BYTES: Final = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_MEANT: Final = {
    "sec": "s", "secs": "s", "second": "s", "seconds": "s", "S": "s", "min": "m", "mins": "m", "minute": "m",
    "minutes": "m", "hour": "h", "hours": "h", "H": "h", "day": "d", "days": "d", "D": "d", "msec": "ms",
    "MS": "ms", "/sec": "/s", "/second": "/s", "/min": "/m", "/minute": "/m", "/hour": "/h", "rps": "/s", "qps": "/s",
    "k": "KiB", "K": "KiB", "kB": "KiB", "KB": "KiB", "kb": "KiB", "kib": "KiB", "M": "MiB", "MB": "MiB", "mb": "MiB",
    "mib": "MiB", "G": "GiB", "GB": "GiB", "gb": "GiB", "gib": "GiB", "b": "B", "bytes": "B",
}  # fmt: skip

DURATIONS: Final = "250ms, 10s, 5m, 2h or 1d"
RATES: Final = "100/s, 600/m or 36000/h"
SIZES: Final = "512B, 64KiB, 10MiB or 1GiB"
RATIOS: Final = "50% or 0.5"


class UnitError(ValueError):
    """
    A text that is no such quantity.

    Attributes:
        problem: What is wrong, quoting the input.
        hint: What to type instead.
    """

    def __init__(self, problem: str, hint: str) -> None:
        super().__init__(f"{problem} ({hint})")
        self.problem = problem
        self.hint = hint


def shown(value: object) -> str:
    """Return *value* as an error message quotes it: printable ASCII of bounded length."""
    text = ascii(value)
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 2] + "…'"


def _split(value: object, what: str, examples: str, units: Mapping[str, object]) -> tuple[Decimal, str]:
    text = value if isinstance(value, str) else str(value)
    found = _QUANTITY.fullmatch(text) if not isinstance(value, bool) else None
    if found is None:
        raise UnitError(f"{shown(value)} is not a {what}", f"write one number and one unit, as {examples}")
    number, unit = found.groups()
    if unit not in units or " " in text:
        meant = unit if unit in units else _MEANT.get(unit, "")
        suggestion = f"write {number}{meant}" if meant in units else f"write {examples}"
        if unit == "" and "" not in units:
            raise UnitError(f"{shown(value)} has no unit", f"write {number}{_usual(units)} for a {what}")
        problem = f"{shown(value)} has a space in it" if " " in text else f"{shown(unit)} is not a unit of a {what}"
        raise UnitError(problem, suggestion)
    return Decimal(number), unit


def _usual(units: Mapping[str, object]) -> str:
    return next((unit for unit in ("s", "/s", "B") if unit in units), "")


def _plain(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def parse_duration(value: object) -> float:
    """Return the seconds of `250ms`, `10s`, `5m`, `2h` or `1d`; raise UnitError for anything else."""
    number, unit = _split(value, "duration", DURATIONS, _SECONDS)
    return float(number * _SECONDS[unit])


def format_duration(seconds: float) -> str:
    """Return *seconds* in the largest unit that needs no fraction; milliseconds take one when they must."""
    exact = Decimal(repr(float(seconds)))
    if exact == 0:
        return "0s"
    for unit in ("d", "h", "m", "s"):
        if exact % _SECONDS[unit] == 0:
            return f"{_plain(exact / _SECONDS[unit])}{unit}"
    return f"{_plain(exact * 1000)}ms"


def parse_rate(value: object) -> float:
    """Return the events per second of `100/s`, `600/m` or `36000/h`; raise UnitError for anything else."""
    number, unit = _split(value, "rate", RATES, _PER)
    return float(number / _PER[unit])


def format_rate(per_s: float) -> str:
    """Return *per_s* by the second, minute or hour, whichever needs no fraction; else by the second."""
    for unit, seconds in _PER.items():
        number = round(Decimal(repr(float(per_s))) * seconds, 9)
        if number == number.to_integral_value() and float(number / seconds) == per_s:
            return f"{_plain(number)}{unit}"
    return f"{_plain(Decimal(repr(float(per_s))))}/s"


def parse_size(value: object) -> int:
    """Return the bytes of `512B`, `64KiB`, `10MiB` or `1GiB`; raise UnitError for anything else."""
    number, unit = _split(value, "size", SIZES, _BYTES)
    size = number * _BYTES[unit]
    if size > _LARGEST_SIZE_BYTES:
        raise UnitError(f"{shown(value)} is out of range", f"write {format_size(_LARGEST_SIZE_BYTES)} at most")
    if size != size.to_integral_value():
        raise UnitError(f"{shown(value)} is not a whole number of bytes", f"write {SIZES}")
    return int(size)


def format_size(size_bytes: int) -> str:
    """Return *size_bytes* in the largest binary unit that needs no fraction."""
    for unit in ("GiB", "MiB", "KiB"):
        if size_bytes and size_bytes % _BYTES[unit] == 0:
            return f"{size_bytes // _BYTES[unit]}{unit}"
    return f"{size_bytes}B"


def parse_ratio(value: object) -> float:
    """Return 0..1 of `50%` or `0.5`; raise UnitError for anything else."""
    number, unit = _split(value, "ratio", RATIOS, {"%": 0, "": 0})
    ratio = number / 100 if unit == "%" else number
    if ratio > 1:
        hint = f"write {_plain(number)}%" if unit == "" and number <= 100 else "a ratio lies between 0% and 100%"
        raise UnitError(f"{shown(value)} is more than 1, which is all of it", hint)
    return float(ratio)


def format_ratio(ratio: float) -> str:
    """Return *ratio* in percent."""
    return f"{_plain(Decimal(repr(float(ratio))) * 100)}%"


def parse_host(text: str) -> str:
    """
    Return the host name or IP address in *text* (IPv6 without brackets), lower case.

    Raises:
        UnitError: when it is neither; an all-numeric name is taken for a mistyped IPv4 address, as resolvers do.
    """
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    last = text.rstrip(".").rpartition(".")[2]
    if not _HOST.fullmatch(text) or len(text) > 253 or last.isdigit():
        raise UnitError(f"{shown(text)} is not a host name or IP address", "write api.internal, 127.0.0.1 or [::1]")
    return text.lower()


def _parse_port(text: str, lowest: int) -> int:
    if not _PORT.fullmatch(text) or not lowest <= int(text) <= 65535:
        raise UnitError(f"{shown(text)} is not a port", f"a port is a number from {lowest} to 65535")
    return int(text)


def split_host_port(text: str, *, lowest_port: int = 0) -> tuple[str, int]:
    """
    Return host (without brackets) and port of `HOST:PORT` or `[IPV6]:PORT`.

    Raises:
        UnitError: when *text* is neither.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or (":" in host and not bracketed):
        better = f"write 0.0.0.0{text}" if re.fullmatch(r":[0-9]{1,5}", text) else "write HOST:PORT or [IPV6]:PORT"
        better = f"write 127.0.0.1:{text}" if _PORT.fullmatch(text) else better
        raise UnitError(f"{shown(text)} is not an address", f"{better}, as 127.0.0.1:8080 or [::1]:8080")
    if bracketed and ":" not in host:
        raise UnitError(f"{shown(host)} has brackets but is not an IPv6 address", "write HOST:PORT without brackets")
    return parse_host(host[1:-1] if bracketed else host), _parse_port(port, lowest_port)


def parse_address(value: object) -> Address:
    """
    Return the address of `HOST:PORT`, `[IPV6]:PORT` or `unix:/PATH`; port 0 lets the kernel choose.

    Raises:
        UnitError: when *value* is none of these, or a socket path of more than the kernel's 107 bytes.
    """
    if not isinstance(value, str):
        raise UnitError(f"{shown(value)} is not an address", f"write 127.0.0.1:{shown(value)}, with the host")
    if not value.startswith(("unix:", "/")):
        return Address(*split_host_port(value))
    path = value.removeprefix("unix:")
    if not path.startswith("/") or not path.isprintable() or value.startswith("/"):
        raise UnitError(f"{shown(value)} is not a Unix socket's address", "write unix: and an absolute path")
    if len(path.encode(errors="replace")) > 107:  # sockaddr_un.sun_path holds 108 with its NUL, unix(7)
        raise UnitError(f"{shown(value)} is too long for a socket's path", "use at most 107 bytes")
    return Address("", 0, path)


def parse_endpoint(value: object) -> Endpoint:
    """
    Return host and port of `http://HOST[:PORT]` or `https://HOST[:PORT]`, or the path of `unix:/PATH`.

    The port is 80 or 443 when none is given.

    Raises:
        UnitError: for any other scheme, and for credentials, a path, a query or a fragment.
    """
    text = value if isinstance(value, str) else str(value)
    if text.startswith("unix:"):
        return Endpoint("", 0, parse_address(text).path)
    scheme, found, rest = text.partition("://")
    if not found:
        raise UnitError(f"{shown(value)} is not a URL", f"write http://{text if text.isascii() else 'HOST:PORT'}")
    if scheme not in ("http", "https"):
        raise UnitError(
            f"{shown(scheme)} is not a scheme that endpoints can have",
            "write http://HOST:PORT, https://HOST:PORT or unix:/PATH",
        )
    if "@" in rest:
        raise UnitError("an endpoint cannot hold credentials", "let the client or the API carry them")
    rest = rest.removesuffix("/")
    if any(mark in rest for mark in "/?#"):
        raise UnitError(f"{shown(value)} has more than host and port", "write http://HOST:PORT; paths pass unchanged")
    has_port = re.search(r":[0-9]*\Z", rest.rpartition("]")[2]) is not None
    tls = scheme == "https"
    host, port = split_host_port(rest if has_port else f"{rest}:{443 if tls else 80}", lowest_port=1)
    return Endpoint(host, port, tls=tls)


def format_endpoint(endpoint: Endpoint) -> str:
    """Return the URL of *endpoint*."""
    return str(endpoint) if endpoint.path else f"http{'s' if endpoint.tls else ''}://{endpoint}"
