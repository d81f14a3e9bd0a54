"""The kinds of value that the keys of a config have; see `kinds.py` for what a row says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Annotated, Final

from sidecar.config import units
from sidecar.config.kinds import Kind, choice, text_schema
from sidecar.config.policies import Explain, LogFormat
from sidecar.config.units import UnitError, shown
from sidecar.decide.policies import LadderStep, Response, RollbackMode
from sidecar.detect.policies import Sensitivity
from sidecar.facts import Mode
from sidecar.guard.policies import LimitMode, Priority

MASK: Final = "(hidden)"  # what stands for a hash in every shown text; see mask.py

_NAME: Final = re.compile(r"[a-z0-9_-]{1,64}", re.ASCII)
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}", re.ASCII)  # RFC 9110, section 5.6.2
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PATH: Final = re.compile(r"/[A-Za-z0-9._~!$&'()+,;=:@%*/-]*", re.ASCII)
_NUMBER: Final = r"[0-9]+(\.[0-9]+)?"
_LONGEST_S: Final = 366 * 86400.0


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


# --- quantities


def _bounded(
    parse: Callable[[object], float], low: float, high: float, write: Callable[[float], str]
) -> Callable[[object], float]:
    def read(value: object) -> float:
        number = parse(value)
        if not low <= number <= high:
            raise UnitError(f"{shown(value)} is out of range", f"write {write(low)} to {write(high)}")
        return number

    return read


def _duration(name: str, shortest_s: float) -> Kind[float]:
    read = _bounded(units.parse_duration, shortest_s, _LONGEST_S, units.format_duration)
    schema = text_schema(_NUMBER + "(ms|s|m|h|d)", "250ms", "10s", "5m")
    return Kind(name, units.DURATIONS, read, schema, units.format_duration)


def _share(name: str, lowest: float, highest: float) -> Kind[float]:
    def read(value: object) -> float:
        ratio = units.parse_ratio(value)
        if not lowest <= ratio <= highest:
            ends = f"write {units.format_ratio(lowest)} to {units.format_ratio(highest)}"
            raise UnitError(f"{shown(value)} is out of range", ends)
        return ratio

    text = {"type": "string", "pattern": f"^{_NUMBER}%?$"}
    schema = {"anyOf": [text, {"type": "number", "minimum": 0, "maximum": 1}], "examples": ["50%", 0.5]}
    return Kind(name, units.RATIOS, read, schema, units.format_ratio)


Duration = Annotated[float, _duration("duration", 0.001)]
DurationOrZero = Annotated[float, _duration("duration or 0s", 0.0)]
Rate = Annotated[
    float,
    Kind(
        "rate",
        units.RATES,
        _bounded(units.parse_rate, 1 / 3600, 1e9, units.format_rate),
        text_schema(_NUMBER + "/[smh]", "100/s", "600/m"),
        units.format_rate,
    ),
]
Size = Annotated[
    int,
    Kind(
        "size", units.SIZES, units.parse_size, text_schema(_NUMBER + "([KMG]iB|B)", "64KiB", "10MiB"), units.format_size
    ),
]
Ratio = Annotated[float, _share("ratio", 0.0, 1.0)]
RatioAboveZero = Annotated[float, _share("ratio above 0%", 0.0001, 1.0)]
Fraction = Annotated[float, _share("ratio between 0% and 100%", 0.0001, 0.999999)]

# --- words


def _text(pattern: re.Pattern[str], what: str, hint: str, *, quote: bool = True) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str):
            if isinstance(value, list | dict) or not quote:
                raise UnitError(f"this is not {what}", hint)
            written = {True: "true", False: "false"}.get(value, value) if isinstance(value, bool) else value
            raise UnitError(f"{written} is not a text here", f'put it in quotes: "{written}"')
        if not pattern.fullmatch(value):
            raise UnitError(f"{shown(value) if quote else 'this'} is not {what}", hint)
        return value

    return read


Name = Annotated[
    str,
    Kind(
        "name",
        "1 to 64 of a-z, 0-9, _ and -",
        _text(_NAME, "a name", "use 1 to 64 of a-z, 0-9, _ and -"),
        text_schema(_NAME.pattern, "checkout"),
    ),
]
TokenName = Annotated[
    str,
    Kind(
        "name",
        "letters, digits and . @ _ -",
        _text(re.compile(r"[\w.@-]{1,64}", re.ASCII), "a name", "use 1 to 64 letters, digits and . @ _ -"),
        text_schema(r"[A-Za-z0-9_.@-]{1,64}", "ops"),
    ),
]
_READ_SHA256: Final = _text(
    _SHA256, "a SHA-256 in hex", "write 64 of 0-9 and a-f: printf %s TOKEN | sha256sum", quote=False
)
Sha256 = Annotated[
    str,
    Kind(
        "SHA-256",
        "64 hex digits",
        lambda value: MASK if value == MASK else _READ_SHA256(value),
        {"type": "string", "pattern": rf"^({_SHA256.pattern}|\(hidden\))$"},
    ),
]
Method = Annotated[
    str,
    Kind(
        "method",
        "GET, POST, …",
        _text(re.compile(r"[A-Z][A-Z0-9_-]{0,31}", re.ASCII), "a method", "write it in capitals, as GET or POST"),
        text_schema("[A-Z][A-Z0-9_-]*", "GET"),
    ),
]


def _protocol(value: object) -> str:
    word = _READ_PROTOCOL(value)
    if word in ("h2c", "h2", "http") or word.startswith("tls"):
        raise UnitError(f"{word} would carry requests past all guards", "name a protocol like websocket")
    return word


_READ_PROTOCOL: Final = _text(
    re.compile(r"[a-z0-9!#$%&'*+.^_`|~/-]{1,64}", re.ASCII), "a protocol", "write it in lower case, as websocket"
)
Protocol = Annotated[
    str,
    Kind("protocol", "as in the field Upgrade", _protocol, text_schema(r"[^\sA-Z,]+", "websocket")),
]
FilePath = Annotated[
    str,
    Kind(
        "path",
        "of a file or folder",
        _text(re.compile(r"[^\x00-\x1f\x7f]{1,4096}"), "a path", "write the path of a file"),
        {"type": "string", "minLength": 1},
    ),
]


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


def _client_key(value: object) -> str:
    text = value if isinstance(value, str) else ""
    if text == "address":
        return text
    kind, _, name = text.partition(":")
    if kind.lower() != "header" or not _TOKEN.fullmatch(name):
        raise UnitError(f"{shown(value)} is not a client key", 'write address, or "header:NAME" as "header:x-api-key"')
    return text.lower()


TargetPath = Annotated[
    str,
    Kind(
        "path",
        "with a query, if any",
        _text(re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]{0,1023}", re.ASCII), "a path", "begin with /, as /healthz"),
        text_schema(r"/\S*", "/healthz"),
    ),
]
RoutePath = Annotated[
    str,
    Kind(
        "path pattern",
        "* is one segment, ** at the end any rest",
        _route_path,
        text_schema(r"/[^?# ]*", "/api/checkout/**", "/api/*/items"),
    ),
]
ClientKey = Annotated[
    str,
    Kind(
        "client key",
        "address or header:NAME",
        _client_key,
        text_schema(r"address|[hH][eE][aA][dD][eE][rR]:.+", "address", "header:x-api-key"),
    ),
]

# --- lists that are read as a whole


def _statuses(value: object) -> frozenset[int]:
    if not isinstance(value, list) or not value:
        raise UnitError(f"{shown(value)} is not a list of statuses", "write [500, 502-599]")
    found: set[int] = set()
    for item in value:
        low, _, high = str(item).partition("-")
        ends = [int(end) for end in (low, high or low) if re.fullmatch(r"[1-5][0-9][0-9]", end, re.ASCII)]
        if len(ends) != 2 or isinstance(item, bool) or not 400 <= ends[0] <= ends[1] <= 599:
            raise UnitError(f"{shown(item)} is not a status that can mean failure", "write 400 to 599, or 502-599")
        found.update(range(ends[0], ends[1] + 1))
    return frozenset(found)


def _write_statuses(statuses: Iterable[int]) -> list[int | str]:
    runs: list[list[int]] = []
    for status in sorted(statuses):
        if runs and runs[-1][-1] == status - 1:
            runs[-1].append(status)
        else:
            runs.append([status])
    return [run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]


def _ramp(value: object) -> tuple[float, ...]:
    if not isinstance(value, list) or not value:
        raise UnitError(f"{shown(value)} is not a list of shares", "write them ascending: [5%, 25%, 50%, 100%]")
    steps = tuple(units.parse_ratio(step) for step in value)
    if steps[-1] != 1.0:
        raise UnitError(f"the ramp ends at {units.format_ratio(steps[-1])}", "end it with 100%")
    for before, after in zip((0.0, *steps), steps, strict=False):
        if after <= before:
            raise UnitError(f"the step {units.format_ratio(after)} is not above the one before", "ascend to 100%")
    return steps


def _workers(value: object) -> int:
    if value == "auto":
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 256:
        raise UnitError(f"{shown(value)} is not a number of workers", "write 1 to 256, or auto for one per core")
    return value


_STATUS_ITEM: Final = {
    "anyOf": [
        {"type": "integer", "minimum": 400, "maximum": 599},
        {"type": "string", "pattern": "^[45][0-9][0-9](-[45][0-9][0-9])?$"},
    ]
}
Statuses = Annotated[
    frozenset[int],
    Kind(
        "list of statuses",
        "[500, 502-599]",
        _statuses,
        {"type": "array", "minItems": 1, "items": _STATUS_ITEM},
        _write_statuses,
    ),
]
Ramp = Annotated[
    tuple[float, ...],
    Kind(
        "list of ratios",
        "ascending to 100%",
        _ramp,
        {"type": "array", "minItems": 1, "items": {"type": ["string", "number"]}, "examples": [["25%", "50%", "100%"]]},
        lambda steps: [units.format_ratio(step) for step in steps],
    ),
]
Workers = Annotated[
    int,
    Kind(
        "integer or auto",
        "1 to 256; auto is one per core",
        _workers,
        {"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": 256}]},
        lambda count: count or "auto",
    ),
]


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    yes, no = ("yes", "on", "True", "TRUE", "y"), ("no", "off", "False", "FALSE", "n")
    better = "true" if value in yes else "false" if value in no else "true or false"
    raise UnitError(f"{shown(value)} is neither true nor false", f"write {better}")


Switch = Annotated[bool, Kind("switch", "true or false", _switch, {"type": "boolean"})]

GlobalMode = Annotated[Mode, choice(Mode, without=("off",))]
ControlMode = Annotated[Mode, choice(Mode)]
LimitModeWord = Annotated[LimitMode, choice(LimitMode)]
BucketModeWord = Annotated[LimitMode, choice(LimitMode, without=("shape",))]
PriorityWord = Annotated[Priority, choice(Priority)]
SensitivityWord = Annotated[Sensitivity, choice(Sensitivity)]
ResponseWord = Annotated[Response, choice(Response)]
LadderWord = Annotated[LadderStep, choice(LadderStep)]
RollbackWord = Annotated[RollbackMode, choice(RollbackMode)]
RoleWord = Annotated[Role, choice(Role)]
ReceiverWord = Annotated[ReceiverType, choice(ReceiverType)]
LogFormatWord = Annotated[LogFormat, choice(LogFormat)]
ExplainWord = Annotated[ExplainLevel, choice(ExplainLevel)]
