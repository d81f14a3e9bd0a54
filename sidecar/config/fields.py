"""
The kinds of value that a config key can have: how each is read, refused, written back and described.

A kind is a type for pydantic plus a `Kind` row that names its unit, so the JSON Schema, the error messages and the
reference page are made from the same place as the parsing.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final, TypeAlias, TypeVar

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

from sidecar.config import units
from sidecar.config.policies import Address, Endpoint, Explain
from sidecar.config.units import UnitError, shown
from sidecar.decide.policies import LadderStep, Response, RollbackMode
from sidecar.detect.policies import Sensitivity
from sidecar.facts import Mode
from sidecar.guard.policies import LimitMode

MASK: Final = "(hidden)"  # what stands for a hash or secret in every shown text; see mask.py
OWN_ERROR: Final = "sidecar"  # the pydantic error type that carries our own problem and hint

_T = TypeVar("_T")
_NAME: Final = re.compile(r"[a-z0-9_-]{1,64}", re.ASCII)
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}", re.ASCII)  # RFC 9110, section 5.6.2
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PATH: Final = re.compile(r"/[A-Za-z0-9._~!$&'()+,;=:@%*/-]*", re.ASCII)
_NUMBER_TEXT: Final = r"[0-9]+(\.[0-9]+)?"


@dataclass(frozen=True, slots=True)
class Kind:
    """How a kind of value is named on the reference page: `duration`, `rate`, …; `unit` shows what may be typed."""

    name: str
    unit: str = ""


class Role(StrEnum):
    """What a token may do: viewer reads, operator also decides, admin also applies config."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


class ReceiverType(StrEnum):
    """How alerts leave."""

    WEBHOOK = "webhook"
    LOG = "log"


class ExplainLevel(StrEnum):
    """How much a refused client learns."""

    FULL = Explain.FULL
    REASON = Explain.REASON
    NONE = Explain.NONE


def refuse(problem: str, hint: str) -> PydanticCustomError:
    """Return the error that `load.py` turns back into a `ConfigError` with this problem and hint."""
    return PydanticCustomError(OWN_ERROR, "{problem}", {"problem": problem, "hint": hint})


def meant(word: str, known: Iterable[str]) -> str:
    """Return the one of *known* that *word* was probably meant to be; empty when none is near."""
    return next(iter(difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)), "")


def _reading(parse: Callable[[object], _T]) -> BeforeValidator:
    def read(value: object) -> _T:
        try:
            return parse(value)
        except UnitError as error:
            raise refuse(error.problem, error.hint) from None

    return BeforeValidator(read)


def _schema(pattern: str, *examples: str, **more: object) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^({pattern})$", "examples": list(examples), **more})


def _bounded(
    parse: Callable[[object], float], low: float, high: float, write: Callable[[float], str]
) -> Callable[[object], float]:
    def read(value: object) -> float:
        number = value if isinstance(value, float) else parse(value)
        if not low <= number <= high:
            raise UnitError(f"{shown(value)} is out of range", f"write {write(low)} to {write(high)}")
        return number

    return read


_DURATION: Final = _NUMBER_TEXT + "(ms|s|m|h|d)"
_WRITE_DURATION: Final = PlainSerializer(units.format_duration, return_type=str)
_DURATION_SCHEMA: Final = _schema(_DURATION, "250ms", "10s", "5m")
_LONGEST_S: Final = 366 * 86400.0

Duration = Annotated[
    float,
    _reading(_bounded(units.parse_duration, 0.001, _LONGEST_S, units.format_duration)),
    _WRITE_DURATION,
    _DURATION_SCHEMA,
    Kind("duration", units.DURATIONS),
]
DurationOrZero = Annotated[
    float,
    _reading(_bounded(units.parse_duration, 0.0, _LONGEST_S, units.format_duration)),
    _WRITE_DURATION,
    _DURATION_SCHEMA,
    Kind("duration, 0s allowed", units.DURATIONS),
]
Rate = Annotated[
    float,
    _reading(_bounded(units.parse_rate, 1 / 3600, 1e9, units.format_rate)),
    PlainSerializer(units.format_rate, return_type=str),
    _schema(_NUMBER_TEXT + "/[smh]", "100/s", "600/m"),
    Kind("rate", units.RATES),
]
Size = Annotated[
    int,
    _reading(lambda value: value if type(value) is _SizeBytes else _SizeBytes(units.parse_size(value))),
    PlainSerializer(units.format_size, return_type=str),
    _schema(_NUMBER_TEXT + "([KMG]iB|B)", "64KiB", "10MiB"),
    Kind("size", units.SIZES),
]
Ratio = Annotated[
    float,
    _reading(lambda value: value if isinstance(value, float) else units.parse_ratio(value)),
    PlainSerializer(units.format_ratio, return_type=str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": f"^{_NUMBER_TEXT}%?$"},
                {"type": "number", "minimum": 0, "maximum": 1},
            ],
            "examples": ["50%", 0.5],
        }
    ),
    Kind("ratio", units.RATIOS),
]


class _SizeBytes(int):
    """A size that was read already: tells a default from a bare number in the file."""


def _address(value: object) -> Address:
    return value if isinstance(value, Address) else units.parse_address(value)


def _endpoint(value: object) -> Endpoint:
    return value if isinstance(value, Endpoint) else units.parse_endpoint(value)


ListenAddress = Annotated[
    Address,
    _reading(_address),
    PlainSerializer(str, return_type=str),
    _schema(r".+:[0-9]{1,5}|unix:/.+", "127.0.0.1:8080", "[::1]:8080", "unix:/run/sidecar/admin.sock"),
    Kind("address", "HOST:PORT, [IPV6]:PORT or unix:/PATH"),
]
EndpointUrl = Annotated[
    Endpoint,
    _reading(_endpoint),
    PlainSerializer(units.format_endpoint, return_type=str),
    _schema(r"http://[^/?#@]+/?", "http://127.0.0.1:9000"),
    Kind("URL", "http://HOST:PORT"),
]


def _text(pattern: re.Pattern[str], what: str, hint: str, *, quote: bool = True) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str):
            raise UnitError(f"{shown(value)} is not {what}", f'put it in quotes: "{shown(value)}"' if quote else hint)
        if not pattern.fullmatch(value):
            raise UnitError(f"{shown(value) if quote else 'this'} is not {what}", hint)
        return value

    return read


Name = Annotated[
    str,
    _reading(_text(_NAME, "a name", "use 1 to 64 of a-z, 0-9, _ and -")),
    _schema(_NAME.pattern, "checkout"),
    Kind("name", "a-z, 0-9, _ and -"),
]
TokenName = Annotated[
    str,
    _reading(_text(re.compile(r"[\w.@-]{1,64}", re.ASCII), "a name", "use 1 to 64 letters, digits and . @ _ -")),
    _schema(r"[A-Za-z0-9_.@-]{1,64}", "ops"),
    Kind("name", "letters, digits and . @ _ -"),
]
_READ_SHA256: Final = _text(_SHA256, "a SHA-256 in hex", "`sidecar token new` prints one: 64 of 0-9, a-f", quote=False)
Sha256 = Annotated[
    str,
    _reading(lambda value: MASK if value == MASK else _READ_SHA256(value)),
    WithJsonSchema({"type": "string", "pattern": rf"^({_SHA256.pattern}|\(hidden\))$"}),
    Kind("SHA-256", "64 hex digits"),
]
Method = Annotated[
    str,
    _reading(_text(re.compile(r"[A-Z][A-Z0-9_-]{0,31}", re.ASCII), "a method", "write it in capitals, as GET or POST")),
    _schema("[A-Z][A-Z0-9_-]*", "GET"),
    Kind("method", "GET, POST, …"),
]
FilePath = Annotated[
    str,
    _reading(_text(re.compile(r"[^\x00-\x1f\x7f]{1,4096}"), "a path", "write the path of a file")),
    WithJsonSchema({"type": "string", "minLength": 1}),
    Kind("path"),
]


def _host(value: object) -> str:
    if not isinstance(value, str):
        raise UnitError(f"{shown(value)} is not a host", f'put it in quotes: "{shown(value)}"')
    if re.fullmatch(r".+:[0-9]+", value) and value.count(":") == 1:
        raise UnitError(f"{shown(value)} has a port", "write the host alone: routes match on it whatever the port")
    return units.parse_host(value.strip("[]"))


Host = Annotated[str, _reading(_host), _schema("[^/ ]+", "api.example.com"), Kind("host")]


def _route_path(value: object) -> str:
    if not isinstance(value, str) or not _PATH.fullmatch(value):
        raise UnitError(f"{shown(value)} is not a path pattern", "begin with / and leave out query and spaces")
    segments = value[1:].split("/")
    for segment in segments:
        if segment in (".", ".."):
            raise UnitError(f"{shown(value)} has a dot segment", "write the path as it looks after resolving it")
        if "*" in segment and segment not in ("*", "**"):
            raise UnitError(f"{shown(segment)} mixes * with text", "* stands for one whole segment: /api/*/items")
    if "**" in segments[:-1]:
        raise UnitError(f"{shown(value)} has ** before its end", "** comes last: /api/**")
    return value


RoutePath = Annotated[
    str,
    _reading(_route_path),
    _schema(r"/[^?# ]*", "/api/checkout/**", "/api/*/items"),
    Kind("path pattern", "* is one segment, ** any rest"),
]


def _client_key(value: object) -> str:
    text = value if isinstance(value, str) else ""
    if text == "address":
        return text
    name = text.removeprefix("header:")
    if name == text or not _TOKEN.fullmatch(name):
        raise UnitError(f"{shown(value)} is not a client key", 'write address, or "header:NAME" as "header:x-api-key"')
    return text.lower()


ClientKey = Annotated[
    str,
    _reading(_client_key),
    _schema(r"address|[hH][eE][aA][dD][eE][rR]:.+|header:.+", "address", "header:x-api-key"),
    Kind("client key", "address or header:NAME"),
]


def _network(value: object) -> str:
    try:
        return str(ipaddress.ip_network(value if isinstance(value, str) else ""))
    except ValueError:
        pass
    try:
        better = f"its host bits are set: write {ipaddress.ip_network(value, strict=False)}"  # type: ignore[arg-type]
    except (ValueError, TypeError):
        better = "write an address or a CIDR range, as 10.0.0.0/8 or 2001:db8::/32"
    raise UnitError(f"{shown(value)} is not a network", better)


Network = Annotated[str, _reading(_network), _schema("[0-9a-fA-F.:]+(/[0-9]+)?", "10.0.0.0/8"), Kind("network", "CIDR")]


def _webhook_url(value: object) -> str:
    text = value if isinstance(value, str) else ""
    scheme, found, rest = text.partition("://")
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if not found or scheme not in ("http", "https") or not host or not text.isprintable() or " " in text:
        raise UnitError("this is not the URL of a webhook", "write https://HOST/PATH")
    if "@" in host:
        raise UnitError("a URL with credentials would be shown to everybody", "sign with secret_file instead")
    try:
        units.split_host_port(host if re.search(r":[0-9]*\Z", host.rpartition("]")[2]) else f"{host}:443", lowest_port=1)
    except UnitError as error:
        raise UnitError(f"the URL's host is wrong: {error.problem}", error.hint) from None
    return text


WebhookUrl = Annotated[str, _reading(_webhook_url), _schema("https?://.+", "https://alerts.example.com/hook"), Kind("URL")]


def _statuses(value: object) -> list[int]:
    if not isinstance(value, list) or not value:
        raise UnitError(f"{shown(value)} is not a list of statuses", "write [500, 502-599]")
    found: set[int] = set()
    for item in value:
        low, _, high = str(item).partition("-")
        ends = [int(end) for end in (low, high or low) if re.fullmatch(r"[1-5][0-9][0-9]", end, re.ASCII)]
        if len(ends) != 2 or isinstance(item, bool) or not 400 <= ends[0] <= ends[1] <= 599:
            raise UnitError(f"{shown(item)} is not a status that can mean failure", "write 400 to 599, or 502-599")
        found.update(range(ends[0], ends[1] + 1))
    return sorted(found)


def _write_statuses(statuses: Iterable[int]) -> list[int | str]:
    runs: list[list[int]] = []
    for status in sorted(statuses):
        if runs and runs[-1][-1] == status - 1:
            runs[-1].append(status)
        else:
            runs.append([status])
    return [run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]


Statuses = Annotated[
    list[int],
    _reading(_statuses),
    PlainSerializer(_write_statuses, return_type=list[int | str]),
    WithJsonSchema({
        "type": "array", "minItems": 1,
        "items": {"anyOf": [{"type": "integer", "minimum": 400, "maximum": 599},
                            {"type": "string", "pattern": "^[45][0-9][0-9](-[45][0-9][0-9])?$"}]},
    }),
    Kind("list of statuses", "[500, 502-599]"),
]  # fmt: skip


def _ramp(value: object) -> list[float]:
    if not isinstance(value, list) or not value:
        raise UnitError(f"{shown(value)} is not a list of shares", "write them ascending: [5%, 25%, 50%, 100%]")
    steps = [step if isinstance(step, float) else units.parse_ratio(step) for step in value]
    if steps[-1] != 1.0:
        raise UnitError(f"the ramp ends at {units.format_ratio(steps[-1])}", "end it with 100%")
    for before, after in zip([0.0, *steps], steps, strict=False):
        if after <= before:
            raise UnitError(f"the step {units.format_ratio(after)} is not above the one before", "ascend to 100%")
    return steps


Ramp = Annotated[
    list[float],
    _reading(_ramp),
    PlainSerializer(lambda steps: [units.format_ratio(step) for step in steps], return_type=list[str]),
    WithJsonSchema({"type": "array", "minItems": 1, "items": {"type": ["string", "number"]}}),
    Kind("list of ratios", "[25%, 50%, 100%]"),
]


def _workers(value: object) -> int:
    if value == "auto":
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 256:
        raise UnitError(f"{shown(value)} is not a number of workers", "write 1 to 256, or auto for one per core")
    return value


Workers = Annotated[
    int,
    _reading(_workers),
    PlainSerializer(lambda count: count or "auto", return_type=int | str),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": 256}]}),
    Kind("integer or auto"),
]


def count(low: int, high: int, *, kind: str = "integer") -> Any:
    """Return the kind of a whole number from *low* to *high*."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise UnitError(f"{shown(value)} is not a whole number", f"write a number from {low} to {high}, unquoted")
        if not low <= value <= high:
            raise UnitError(f"{value} is out of range", f"write a number from {low} to {high}")
        return value

    schema = WithJsonSchema({"type": "integer", "minimum": low, "maximum": high})
    return Annotated[int, _reading(read), schema, Kind(kind, f"{low} to {high}")]


def choice(values: type[StrEnum], *, without: tuple[str, ...] = ()) -> Any:
    """Return the kind of one word of *values*."""
    words = [word.value for word in values if word.value not in without]

    def read(value: object) -> StrEnum:
        if isinstance(value, str) and value in words:
            return values(value)
        near = meant(str(value), words)
        hint = f"did you mean {near}?" if near else f"write {' or '.join(words)}"
        raise UnitError(f"{shown(value)} is not one of {', '.join(words)}", hint)

    serializer = PlainSerializer(lambda word: word.value, return_type=str)
    return Annotated[values, _reading(read), serializer, WithJsonSchema({"enum": words}), Kind("word", " | ".join(words))]


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    yes, no = ("yes", "on", "True", "TRUE", "y"), ("no", "off", "False", "FALSE", "n")
    better = "true" if value in yes else "false" if value in no else "true or false"
    raise UnitError(f"{shown(value)} is neither true nor false", f"write {better}")


Switch = Annotated[bool, _reading(_switch), WithJsonSchema({"type": "boolean"}), Kind("true or false")]

# Annotated types made by a call are no types in mypy's eyes: each gets the type that its values have.
GlobalMode: TypeAlias = Annotated[Mode, choice(Mode, without=("off",))]
ControlMode: TypeAlias = Annotated[Mode, choice(Mode)]
LimitModeWord: TypeAlias = Annotated[LimitMode, choice(LimitMode)]
SensitivityWord: TypeAlias = Annotated[Sensitivity, choice(Sensitivity)]
ResponseWord: TypeAlias = Annotated[Response, choice(Response)]
LadderWord: TypeAlias = Annotated[LadderStep, choice(LadderStep)]
RollbackWord: TypeAlias = Annotated[RollbackMode, choice(RollbackMode)]
