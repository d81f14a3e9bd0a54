"""
Tapes: recorded traffic as JSON Lines, one route and second a line, in time order.

Tables (the fields of a line; the first four are needed)

    t           Unix seconds, or an offset
    route       its name
    requests    that arrived in this second, refused ones included
    failures    of those that ended in it
    ignored     ended with a 4xx, or left: they say nothing about the API
    latency     [[seconds, count], …] until the first byte of the answer
    refused     by limits and other guards; {reason: count} where it is known which
    in_flight   between admission and end, at the end of the second
    waiting     [[age in seconds, count], …] of those without a first byte
    clients     {key: [requests, failures]}, the heaviest
    slow        {key: count}, of the clients' requests those that were slow
    turned      {key: count}, of the clients' requests those that a guard refused
    methods, statuses, endpoints, paths    {name: [requests, failures]}

    Beyond the contract's fields a recording also holds `waiting`, the last six, and reasons in `refused`; a reader that
    does not know them loses nothing but attribution below the route.

What can go wrong
    A line is no line: `TapeError` says which one, what is wrong with it, and what to write instead. A field that nobody
    knows is left out and told, once a name. A blank line is no line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from sidecar.facts import RouteSecond
from sidecar.measure import histogram

Pair = tuple[int, int]
NEEDED: Final = ("t", "route", "requests", "failures")
TABLES: Final = ("methods", "statuses", "endpoints", "paths")
KNOWN: Final = (*NEEDED, "ignored", "latency", "refused", "in_flight", "waiting", "clients", "slow", "turned", *TABLES)
EXAMPLE: Final = '{"t": 12.0, "route": "checkout", "requests": 41, "failures": 2}'
MOST: Final = 10**10  # a `t` until the year 2286, and a count of one second
_ROUTE: Final = re.compile(r"[a-z0-9_-]+")
_NOTHING: Final[Mapping[Any, Any]] = {}


class TapeError(ValueError):
    """
    A tape that cannot be read.

    Attributes:
        line: The line's number, from 1.
        problem: What is wrong with it.
        hint: What to write instead.
    """

    def __init__(self, line: int, problem: str, hint: str) -> None:
        super().__init__(f"line {line}: {problem}")
        self.line = line
        self.problem = problem
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Line:
    """
    One line, checked.

    Attributes:
        number: Its place in the tape, from 1.
        latency: Bucket of `measure/histogram.py` → count.
        refused: By reason; the reason is empty where the tape does not say it.
        in_flight: None when the tape does not say it.
        waiting: Bucket of the age → count; None when the tape does not say it.
        clients: Key → (requests, failures); None when the tape does not say it.
        slow, turned: Key → slow, and refused requests; `turned` is None when the tape does not say it.
        tables: `methods`, `statuses`, `endpoints`, `paths`, those that are given.
    """

    number: int
    t: float
    route: str
    requests: int
    failures: int
    ignored: int = 0
    latency: Mapping[int, int] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    in_flight: int | None = None
    waiting: Mapping[int, int] | None = None
    clients: Mapping[str, Pair] | None = None
    slow: Mapping[str, int] = field(default_factory=dict)
    turned: Mapping[str, int] | None = None
    tables: Mapping[str, Mapping[str, Pair]] = field(default_factory=dict)


def read(texts: Iterable[str], tell: Callable[[str], None] = lambda _: None) -> Iterator[Line]:
    """
    Yield the lines of a tape.

    Args:
        texts: Its lines of text.
        tell: Told of each unknown field, once a name.

    Raises:
        TapeError: at the first line that is none, or that comes before its predecessor.
    """
    last, told = float("-inf"), set[str]()
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        row = _object(number, text)
        for name in row.keys() - told - _KNOWN:
            told.add(name)
            tell(f"line {number}: the field '{name}' is left out; a tape has {', '.join(KNOWN)}")
        line = _line(number, row)
        if line.t < last:
            _fail(number, f"t {line.t:g} comes after {last:g}", "sort the lines by t: sort -s -n by it, or record anew")
        last = line.t
        yield line


_KNOWN: Final = frozenset(KNOWN)


def _fail(number: int, problem: str, hint: str) -> NoReturn:
    raise TapeError(number, problem, hint)


def _object(number: int, text: str) -> dict[str, Any]:
    try:
        row = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise TapeError(number, f"no JSON: {what}", f"write one JSON object a line, such as {EXAMPLE}") from error
    if not isinstance(row, dict):
        _fail(number, "not a JSON object", f"write one JSON object a line, such as {EXAMPLE}")
    return row


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _line(number: int, row: Mapping[str, Any]) -> Line:
    for name in NEEDED:
        if name not in row:
            _fail(number, f"'{name}' is missing", f"a line has at least {', '.join(NEEDED)}, such as {EXAMPLE}")
    t, route = row["t"], row["route"]
    if type(t) not in (int, float) or not -MOST <= t <= MOST:
        _fail(
            number,
            f"t is {str(t)[:40]!r}, not seconds",
            "write Unix seconds or an offset, such as 12.0, and no milliseconds",
        )
    if not isinstance(route, str) or _ROUTE.fullmatch(route) is None:
        _fail(number, f"route is {route!r}, not a route's name", 'use a-z, 0-9, _ and -, such as "checkout"')
    if len(row) == len(NEEDED):
        return Line(number, float(t), route, _count(number, row, "requests"), _count(number, row, "failures"))
    return Line(
        number,
        float(t),
        route,
        _count(number, row, "requests"),
        _count(number, row, "failures"),
        _count(number, row, "ignored"),
        _histogram(number, row, "latency") or _NOTHING,
        _refused(number, row),
        _count(number, row, "in_flight") if row.get("in_flight") is not None else None,
        _histogram(number, row, "waiting"),
        _pairs(number, row, "clients"),
        _counts(number, row, "slow"),
        _counts(number, row, "turned") if "turned" in row else None,
        {name: pairs for name in TABLES if (pairs := _pairs(number, row, name))},
    )


def _count(number: int, row: Mapping[str, Any], name: str) -> int:
    value = row.get(name, 0)
    if type(value) is int and 0 <= value <= MOST:
        return value
    if type(value) is float and 0 <= value <= MOST and value.is_integer():
        return int(value)
    return _fail(
        number,
        f"{name} is {json.dumps(value)[:40]}, not a count",
        f'write a whole number from 0 on, such as "{name}": 3',
    )


def _refused(number: int, row: Mapping[str, Any]) -> Mapping[str, int]:
    if isinstance(row.get("refused"), dict):
        return _counts(number, row, "refused")
    count = _count(number, row, "refused")
    return {"": count} if count else _NOTHING


def _counts(number: int, row: Mapping[str, Any], name: str) -> Mapping[str, int]:
    table = row.get(name, _NOTHING)
    if not isinstance(table, Mapping):
        _fail(number, f"{name} is not a table of counts", f'write it as "{name}": {{"k1": 3}}')
    return {key: _count(number, table, key) for key in table}


def _histogram(number: int, row: Mapping[str, Any], name: str) -> Mapping[int, int] | None:
    rows = row.get(name)
    if rows is None:
        return None
    counts: dict[int, int] = {}
    try:
        sound = all(type(count) is int and count >= 0 and seconds >= 0 for seconds, count in rows)
        for seconds, count in rows if sound else ():
            i = histogram.index(seconds)
            counts[i] = counts.get(i, 0) + count
    except (TypeError, ValueError):
        sound = False
    if not sound:
        _fail(number, f"{name} is not a list of [seconds, count]", f'write it as "{name}": [[0.012, 30], [0.05, 11]]')
    return counts


def _pairs(number: int, row: Mapping[str, Any], name: str) -> Mapping[str, Pair] | None:
    table = row.get(name)
    if table is None:
        return None
    try:
        pairs = {key: (requests, failures) for key, (requests, failures) in table.items()}
        sound = all(type(n) is int and type(k) is int and 0 <= k <= n for n, k in pairs.values())
    except (AttributeError, TypeError, ValueError):
        pairs, sound = {}, False
    if not sound:
        hint = f'write it as "{name}": {{"{_EXAMPLES.get(name, "k1")}": [20, 0]}}: all of them, then those that failed'
        _fail(number, f"{name} is not a table of [requests, failures]", hint)
    return pairs


_EXAMPLES: Final = {"methods": "POST", "statuses": "200", "endpoints": "10.0.0.1:80", "paths": "/x/{id}"}


# --- the other way ---------------------------------------------------------------------------------------------------


def write(second: RouteSecond, t: float) -> str:
    """Return *second* as a line of a tape, without a line feed; what is zero or empty is left out."""
    row: dict[str, Any] = {
        "t": t, "route": second.route, "requests": second.arrivals, "failures": second.failures,
        "ignored": second.ignored, "latency": _seconds(second.latency), "refused": dict(second.refused),
    }  # fmt: skip
    row = {name: value for name, value in row.items() if value or name in NEEDED}
    row["in_flight"] = second.in_flight
    tables: dict[str, Mapping[str, Pair]] = {
        "clients": {key: (c.requests + c.refused, c.failures) for key, c in second.clients.items()},
        "methods": second.methods, "statuses": second.statuses, "endpoints": second.endpoints, "paths": second.paths,
    }  # fmt: skip
    row["waiting"] = _seconds(second.waiting)
    for name, of in (("slow", "slow"), ("turned", "refused")):
        counts = {key: getattr(client, of) for key, client in second.clients.items() if getattr(client, of)}
        row |= {name: counts} if counts or (name == "turned" and second.refused) else {}
    row |= {name: {key: list(pair) for key, pair in table.items()} for name, table in tables.items() if table}
    return json.dumps(row, separators=(",", ":"))


def _seconds(buckets: Mapping[int, int]) -> list[list[float]]:
    return [[float(f"{histogram.MIDDLE_S[i]:.4g}"), buckets[i]] for i in sorted(buckets)]
