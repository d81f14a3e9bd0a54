"""
Who is it? The narrowest scope that explains at least 80 % of a change.

Theory
    Of a part c of the traffic (a client, a method, …) with n requests and k bad ones in the window, excess = k − n·b,
    where b is that part's own bad ratio before the onset (shrunk towards the whole's, worth 20 requests). Its share of
    the change is its excess of the sum of all positive ones. A part that merely carries most of the traffic has most of
    the excess too, so a share is not enough: what is left without it must look normal.

Tables: candidates from narrow to wide; the first that holds is the answer

    scope       holds when
    client      ≥ 80 % of the excess, and the other clients, with at least 10 requests, fail at most a quarter as often
    service     at least two routes, ≥ 80 % of those with 5 requests or more, are bad, none of them by one client
    route       else

    method, status, endpoint and path are no scopes; their shares go into the evidence.

What can go wrong
    With a single client (a load test, one gateway in front) nothing is left to compare with: the answer is the route,
    because nothing speaks for the client's fault. Only the heaviest clients are known one by one; when many light ones
    fail, the answer is the route too. After a long incident no seconds before it are at hand: then b is the detector's
    baseline.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sidecar.facts import OVERFLOW, Detector, RouteSecond, Scope, ScopeKind, Signal

EXPLAINS: Final = 0.8
REST_REQUESTS: Final = 10
REST_FACTOR: Final = 0.25
ROUTE_REQUESTS: Final = 5
LEAST_ROUTES: Final = 2
BAD_RATIO: Final = 0.05  # a route counts as bad from here on, or at ten times what it was
BAD_FACTOR: Final = 10.0
PRIOR_REQUESTS: Final = 20.0
TOP: Final = 5
CONNECTION_STATUSES: Final = ("refused", "reset", "timeout")

Counts = tuple[int, int]  # (requests, bad)
Table = Mapping[str, Counts]


@dataclass(frozen=True, slots=True)
class Share:
    """
    One value's part of the change in one dimension.

    Attributes:
        name: The value, as `POST`, `503` or a client key.
        share_ratio: Its part of the excess of bad requests.
        requests, failures: In the window; `failures` are slow requests where the signal is about latency.
    """

    name: str
    share_ratio: float
    requests: int
    failures: int


@dataclass(frozen=True, slots=True)
class Attribution:
    """
    The scope that a change belongs to, judged on itself.

    Attributes:
        scope: `client:ROUTE:KEY`, `route:X` or `service`.
        share_ratio: The part of the change that it explains.
        requests, failures: Judged requests of the scope in the window.
        ratio: failures / requests; 0 without any.
        baseline_ratio: The same ratio before the onset.
        traffic_ratio: The scope's part of all judged requests of the service.
        connection_ratio: Part of the requests of the signal's routes that got no answer (refused, reset, timeout).
        connection_baseline_ratio: The same before the onset.
        dimensions: `client`, `method`, `status`, `endpoint`, `path`, `route` → the top shares, largest first.
    """

    scope: Scope
    share_ratio: float
    requests: int
    failures: int
    ratio: float
    baseline_ratio: float
    traffic_ratio: float
    connection_ratio: float = 0.0
    connection_baseline_ratio: float = 0.0
    dimensions: Mapping[str, tuple[Share, ...]] = field(default_factory=dict)


def attribute(window: Sequence[RouteSecond], before: Sequence[RouteSecond], signal: Signal) -> Attribution:
    """
    Return the narrowest scope that explains at least 80 % of the change that *signal* claims.

    Args:
        window: Rows of all routes from the signal's onset on.
        before: Rows of all routes from before it; may be empty.
        signal: The claim; its scope is a route, or the service for pooled routes.
    """
    slow = signal.detector is Detector.LATENCY
    normal = 0.01 if slow or signal.unit != "ratio" else min(max(signal.baseline, 0.0), 1.0)
    routes, routes_before = _judged(window), _judged(before)
    own = _of(window, signal.scope)
    own_before = _of(before, signal.scope)
    tables = {name: _table(own, name, slow=slow) for name in DIMENSIONS}
    shares = {name: _shares(table, _table(own_before, name, slow=slow), normal) for name, table in tables.items()}
    shares["route"] = _shares(routes, routes_before, normal)
    culprit = (
        _client(tables["client"], shares["client"], own, slow=slow) if signal.scope.kind is ScopeKind.ROUTE else None
    )
    if culprit is not None:
        scope = Scope.client(signal.scope.name, culprit.name)
        requests, failures = _table(own, "client", slow=False).get(culprit.name, (0, 0))
        was = _table(own_before, "client", slow=False).get(culprit.name, (0, 0))
    else:
        bad = _bad_routes(window, routes, routes_before, normal)
        scope = _wide(routes, bad, shares["route"], signal.scope)
        requests, failures = _sum(routes, scope)
        was = _sum(routes_before, scope)
    everything = sum(n for n, _ in routes.values())
    return Attribution(
        scope=scope,
        share_ratio=culprit.share_ratio if culprit is not None else _share_of(shares["route"], scope),
        requests=requests,
        failures=failures,
        ratio=min(failures / requests, 1.0) if requests else 0.0,
        baseline_ratio=_shrunk(was, normal if not slow else 0.0),
        traffic_ratio=min(requests / everything, 1.0) if everything else 0.0,
        connection_ratio=_connection_ratio(own),
        connection_baseline_ratio=_connection_ratio(own_before),
        dimensions={name: rows[:TOP] for name, rows in shares.items()},
    )


DIMENSIONS: Final = ("client", "method", "status", "endpoint", "path")


def _of(rows: Iterable[RouteSecond], scope: Scope) -> list[RouteSecond]:
    return [row for row in rows if scope.kind is ScopeKind.SERVICE or row.route == scope.name]


def _judged(rows: Iterable[RouteSecond]) -> dict[str, Counts]:
    sums: dict[str, Counts] = {}
    for row in rows:
        n, k = sums.get(row.route, (0, 0))
        sums[row.route] = (n + row.judged, k + row.failures)
    return sums


def _table(rows: Iterable[RouteSecond], dimension: str, *, slow: bool) -> dict[str, Counts]:
    """Sum one dimension over *rows*; slow requests are known by client only."""
    sums: dict[str, Counts] = {}
    for row in rows:
        for name, (requests, bad) in _counts(row, dimension, slow=slow):
            n, k = sums.get(name, (0, 0))
            sums[name] = (n + requests, k + bad)
    return sums


def _counts(row: RouteSecond, dimension: str, *, slow: bool) -> Iterable[tuple[str, Counts]]:
    match dimension:
        case "client":
            return [(key, (c.requests, c.slow if slow else c.failures)) for key, c in row.clients.items()]
        case "method":
            return row.methods.items()
        case "status":
            return row.statuses.items()
        case "endpoint":
            return row.endpoints.items()
        case _:
            return row.paths.items()


def _shrunk(counts: Counts, normal: float) -> float:
    n, k = counts
    return (k + PRIOR_REQUESTS * normal) / (n + PRIOR_REQUESTS)


def _shares(now: Table, was: Table, normal: float) -> tuple[Share, ...]:
    """Return every value's part of the excess, the largest first; names break ties."""
    excess = {name: max(k - n * _shrunk(was.get(name, (0, 0)), normal), 0.0) for name, (n, k) in now.items()}
    total = sum(excess.values())
    shares = [Share(name, excess[name] / total if total else 0.0, *counts) for name, counts in now.items()]
    return tuple(sorted(shares, key=lambda share: (-share.share_ratio, -share.requests, share.name)))


def _client(table: Table, shares: Sequence[Share], rows: Sequence[RouteSecond], *, slow: bool) -> Share | None:
    """Return the client that explains the change, if the rest of its route looks well without it."""
    first = shares[0] if shares else None
    if first is None or first.name == OVERFLOW or not first.failures:
        return None
    judged = sum(row.judged for row in rows)
    bad = sum(k for _, k in table.values()) if slow else sum(row.failures for row in rows)
    # The table holds the heaviest clients only, so the share is taken of all that is bad on the route.
    share = min(first.share_ratio, first.failures / bad if bad else 0.0)
    rest, rest_bad = judged - first.requests, max(bad - first.failures, 0)
    if share < EXPLAINS or rest < REST_REQUESTS:
        return None
    own_ratio = first.failures / max(first.requests, 1)
    return first if rest_bad / rest <= REST_FACTOR * own_ratio else None


def _bad_routes(window: Sequence[RouteSecond], now: Table, was: Table, normal: float) -> set[str]:
    """Return the routes that fail as a whole: far more than before, and not by one client."""
    bad = {
        name
        for name, (n, k) in now.items()
        if n >= ROUTE_REQUESTS and k / n >= max(BAD_RATIO, BAD_FACTOR * _shrunk(was.get(name, (0, 0)), normal))
    }
    if len(bad) < LEAST_ROUTES:
        return bad
    rows: dict[str, list[RouteSecond]] = {name: [] for name in bad}
    for row in window:  # once, not once a route: with 50 routes down this is what a second costs
        if row.route in rows:
            rows[row.route].append(row)
    return {name for name in bad if not _by_client(rows[name], normal)}


def _by_client(rows: Sequence[RouteSecond], normal: float) -> bool:
    table = _table(rows, "client", slow=False)
    return _client(table, _shares(table, {}, normal), rows, slow=False) is not None


def _wide(now: Table, bad: Collection[str], shares: Sequence[Share], claimed: Scope) -> Scope:
    """Return the service when most routes are bad at the same time, else the one route."""
    active = sum(n >= ROUTE_REQUESTS for n, _ in now.values())
    if len(bad) >= LEAST_ROUTES and len(bad) >= EXPLAINS * active:
        return Scope.service()
    if claimed.kind is ScopeKind.SERVICE and shares and shares[0].share_ratio >= EXPLAINS and len(now) > 1:
        return Scope.route(shares[0].name)
    return claimed


def _sum(routes: Table, scope: Scope) -> Counts:
    if scope.kind is ScopeKind.SERVICE:
        return sum(n for n, _ in routes.values()), sum(k for _, k in routes.values())
    return routes.get(scope.name, (0, 0))


def _share_of(shares: Sequence[Share], scope: Scope) -> float:
    if scope.kind is ScopeKind.SERVICE:
        return 1.0
    return next((share.share_ratio for share in shares if share.name == scope.name), 0.0)


def _connection_ratio(rows: Sequence[RouteSecond]) -> float:
    lost = sum(row.statuses.get(status, (0, 0))[0] for row in rows for status in CONNECTION_STATUSES)
    judged = sum(row.judged for row in rows)
    return lost / judged if judged else 0.0
