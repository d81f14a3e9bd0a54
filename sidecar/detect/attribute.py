"""
Who is it? The narrowest scope that explains at least 80 % of a change.

Theory
    Of a part c of the traffic (a client, a method, …) with n requests and k bad ones in the window, excess = k − n·b,
    where b is that part's own bad ratio before the onset (shrunk towards the whole's, worth 20 requests). Its share of
    the change is its excess of the sum of all positive ones. A part that merely carries most of the traffic has most of
    the excess too, so a share is not enough: what is left without it must look normal. Both together are "explains".

Tables: candidates in this order; the first that holds is the scope

    scope       holds when
    client      it explains the change of its route (≥ 80 % of the excess, and the other clients fail at most a quarter
                as often), and no path, method or endpoint is a likelier cause
    endpoint    it explains the change of the service, and ≥ 80 % of the routes that use it are bad on it
    service     at least two routes, ≥ 80 % of those with 5 requests or more, are bad, none of them by one client
    route       else

    Of several parts that explain a change the likeliest cause is the one whose split of the requests into its own and
    the rest has the highest likelihood, Σ k·ln(k/n) + (n − k)·ln(1 − k/n) over both: it separates bad from good best.

    A path, method, endpoint or client that explains the change of its scope, the likeliest one, is its `narrowest` part:
    told to people, but a scope only as above.

    How many others are enough to tell by: `measure/parts.py`.

What can go wrong
    With a single client (a load test, one gateway in front) nothing is left to compare with: the answer is the route,
    because nothing speaks for the client's fault. Only the heaviest clients are known one by one; when many light ones
    fail, the answer is the route too. A path that breaks fails for the client that asks for it most, and both
    explain the change: the likelihood tells them apart, by what that client asks for beside it.
    After a long incident no seconds before it are at hand: then b is the detector's baseline.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import log
from typing import Final

from sidecar.detect.census import DIMENSIONS, Census, Counts, Table
from sidecar.facts import OVERFLOW, Detector, Scope, ScopeKind, Signal
from sidecar.measure.parts import EXPLAINS, rest_is_well

ROUTE_REQUESTS: Final = 5
LEAST_ROUTES: Final = 2
BAD_RATIO: Final = 0.05  # a route counts as bad from here on, or at ten times what it was
BAD_FACTOR: Final = 10.0
NORMAL_RATIO: Final = 0.001  # of a route whose seconds before the onset are not at hand
SLOW_RATIO: Final = 0.01  # normally slow requests
PRIOR_REQUESTS: Final = 20.0
BETTER: Final = 2.0  # nats that a path, method or endpoint must be more likely than a client
TOP: Final = 5
PARTS: Final = ("client", "path", "endpoint", "method")


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
class Part:
    """A part of the traffic that explains a change: its `dimension` and its `share` there."""

    dimension: str
    share: Share


@dataclass(frozen=True, slots=True)
class Attribution:
    """
    The scope that a change belongs to, judged on itself.

    Attributes:
        scope: `client:ROUTE:KEY`, `endpoint:HOST:PORT`, `route:X` or `service`.
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
    connection_ratio: float
    connection_baseline_ratio: float
    dimensions: Dimensions = field(compare=False)

    @property
    def narrowest(self) -> Part | None:
        """Return the part that explains the change, the likeliest cause; None when nothing narrower than the scope does."""
        return self.dimensions.narrowest


class Scene:
    """
    The seconds since an onset and those before it; what is common to all claims of that onset is found once.

    Args:
        now: From the onset on, all routes.
        was: Before it; may be empty.
    """

    def __init__(self, now: Census, was: Census) -> None:
        self.now = now
        self.was = was

    def __repr__(self) -> str:
        return f"<Scene of {self.now!r}>"

    @cached_property
    def bad_routes(self) -> frozenset[str]:
        """Return the routes that fail as a whole: far more than before, and not by one client."""
        was = self.was.routes
        bad = [
            name
            for name, (n, k) in self.now.routes.items()
            if n >= ROUTE_REQUESTS
            and k >= BAD_RATIO * n
            and k >= BAD_FACTOR * _shrunk(was.get(name, (0, 0)), NORMAL_RATIO) * n
        ]
        if len(bad) < LEAST_ROUTES:
            return frozenset(bad)
        return frozenset(name for name in bad if self.client(Scope.route(name), NORMAL_RATIO) is None)

    @cached_property
    def service(self) -> bool:
        """Tell whether most routes are bad at the same time."""
        active = sum(n >= ROUTE_REQUESTS for n, _ in self.now.routes.values())
        return len(self.bad_routes) >= LEAST_ROUTES and len(self.bad_routes) >= EXPLAINS * active

    @cached_property
    def endpoint(self) -> Share | None:
        """Return the endpoint that fails, whatever route it serves, while the others do not."""
        table = self.now.table(Scope.service(), "endpoint")
        if len(table) < 2:
            return None
        found = self.explaining(Scope.service(), "endpoint", NORMAL_RATIO)
        if found is None:
            return None
        used = [self.now.table(Scope.route(name), "endpoint").get(found.name, (0, 0)) for name in self.now.routes]
        asked = [k / n >= BAD_RATIO for n, k in used if n >= ROUTE_REQUESTS]
        return found if sum(asked) >= EXPLAINS * len(asked) else None

    def shares(self, scope: Scope, dimension: str, normal: float, *, slow: bool = False) -> tuple[Share, ...]:
        """Return every value's part of the excess on *scope*, the largest first; names break ties."""
        if dimension == "route":
            return _shares(self.now.routes, self.was.routes, normal)
        now, was = (census.table(scope, dimension, slow=slow) for census in (self.now, self.was))
        return _shares(now, was, normal, (0, 0) if slow else self.now.of(scope))

    def explaining(self, scope: Scope, dimension: str, normal: float, *, slow: bool = False) -> Share | None:
        """Return the value of *dimension* that explains the change of *scope*, if the rest looks well without it."""
        first = next(iter(self.shares(scope, dimension, normal, slow=slow)), None)
        if first is None or first.name == OVERFLOW or not first.failures:
            return None
        table, (judged, failed) = self.now.table(scope, dimension, slow=slow), self.now.of(scope)
        bad = sum(k for _, k in table.values()) if slow else failed
        rest = max(judged, sum(n for n, _ in table.values())) - first.requests
        own, others = (first.requests, first.failures), (rest, max(bad - first.failures, 0))
        return first if first.share_ratio >= EXPLAINS and rest_is_well(own, others) else None

    def client(self, scope: Scope, normal: float, *, slow: bool = False) -> Share | None:
        """Return the client that the change of a route is due to, unless another part explains it better."""
        if scope.kind is not ScopeKind.ROUTE or (not slow and not self.now.heaviest_sinner(scope.name)):
            return None
        found = self.explaining(scope, "client", normal, slow=slow)
        if found is None or slow:
            return found
        whole = self.now.of(scope)
        to_beat = _likelihood(found, whole) + BETTER
        if to_beat >= 0:  # no split is better than one into all bad and all good
            return found
        rivals = (self.explaining(scope, dimension, normal) for dimension in PARTS[1:])
        return None if any(r is not None and _likelihood(r, whole) > to_beat for r in rivals) else found


class Dimensions(Mapping[str, tuple[Share, ...]]):
    """The top shares of one claim by dimension, added up when they are asked for."""

    def __init__(self, scene: Scene, scope: Scope, normal: float, *, slow: bool) -> None:
        self._scene = scene
        self._scope = scope
        self._normal = normal
        self._slow = slow

    def __repr__(self) -> str:
        return f"<Dimensions of {self._scope}>"

    def __getitem__(self, name: str) -> tuple[Share, ...]:
        if name != "route" and name not in DIMENSIONS:
            raise KeyError(name)
        return self._scene.shares(self._scope, name, self._normal, slow=self._slow)[:TOP]

    def __iter__(self) -> Iterator[str]:
        return iter((*DIMENSIONS, "route"))

    def __len__(self) -> int:
        return len(DIMENSIONS) + 1

    @cached_property
    def narrowest(self) -> Part | None:
        """Return the part that explains the change, of several the likeliest cause."""
        names = PARTS[:1] if self._slow else PARTS
        found = [
            Part(name, share)
            for name in names
            if (share := self._scene.explaining(self._scope, name, self._normal, slow=self._slow)) is not None
        ]
        whole = self._scene.now.of(self._scope)
        return max(found, key=lambda part: _likelihood(part.share, whole), default=None)


def attribute(scene: Scene, signal: Signal) -> Attribution:
    """
    Return the narrowest scope that explains at least 80 % of the change that *signal* claims.

    Args:
        scene: The seconds around the signal's onset.
        signal: The claim; its scope is a route, or the service for pooled routes.
    """
    slow = signal.detector is Detector.LATENCY
    normal = SLOW_RATIO if slow or signal.unit != "ratio" else min(max(signal.baseline, 0.0), 1.0)
    culprit = scene.client(signal.scope, normal, slow=slow)
    if culprit is not None:
        scope, share_ratio = Scope.client(signal.scope.name, culprit.name), culprit.share_ratio
        tables = (census.table(signal.scope, "client") for census in (scene.now, scene.was))
        (requests, failures), was = (table.get(culprit.name, (0, 0)) for table in tables)
    else:
        scope, share_ratio = _wide(scene, signal.scope, normal, slow=slow)
        (requests, failures), was = (_counted(census, scope) for census in (scene.now, scene.was))
    everything = scene.now.of(Scope.service())[0]
    about = Scope.service() if scope.kind in (ScopeKind.SERVICE, ScopeKind.ENDPOINT) else signal.scope
    return Attribution(
        scope=scope,
        share_ratio=share_ratio,
        requests=requests,
        failures=failures,
        ratio=min(failures / requests, 1.0) if requests else 0.0,
        baseline_ratio=_shrunk(was, normal if not slow else 0.0),
        traffic_ratio=min(requests / everything, 1.0) if everything else 0.0,
        connection_ratio=scene.now.unanswered_ratio(signal.scope),
        connection_baseline_ratio=scene.was.unanswered_ratio(signal.scope),
        dimensions=Dimensions(scene, about, normal, slow=slow),
    )


def _wide(scene: Scene, claimed: Scope, normal: float, *, slow: bool) -> tuple[Scope, float]:
    """Return the endpoint, the service when most routes are bad at the same time, else the one route; and its share."""
    endpoint = None if slow else scene.endpoint
    if endpoint is not None and (claimed.kind is ScopeKind.SERVICE or _suffers(scene, claimed, endpoint)):
        return Scope(ScopeKind.ENDPOINT, endpoint.name), endpoint.share_ratio
    if scene.service:
        return Scope.service(), 1.0
    shares = scene.shares(claimed, "route", normal)
    if claimed.kind is ScopeKind.ROUTE:
        return claimed, next((share.share_ratio for share in shares if share.name == claimed.name), 0.0)
    if shares and shares[0].share_ratio >= EXPLAINS and len(shares) > 1:
        return Scope.route(shares[0].name), shares[0].share_ratio
    return claimed, 1.0


def _suffers(scene: Scene, route: Scope, endpoint: Share) -> bool:
    """Tell whether most failures of *route* came from *endpoint*."""
    _, failed = scene.now.table(route, "endpoint").get(endpoint.name, (0, 0))
    return failed > 0 and failed >= EXPLAINS * scene.now.of(route)[1]


def _counted(census: Census, scope: Scope) -> Counts:
    if scope.kind is ScopeKind.ENDPOINT:
        return census.table(Scope.service(), "endpoint").get(scope.name, (0, 0))
    return census.of(scope)


def _likelihood(part: Share, whole: Counts) -> float:
    """Return the log-likelihood of *whole* split into *part* and the rest, each with its own failure ratio; at most 0."""
    rest = max(whole[0] - part.requests, 0)
    return _entropy(part.requests, part.failures) + _entropy(rest, min(max(whole[1] - part.failures, 0), rest))


def _entropy(n: int, k: int) -> float:
    return k * log(k / n) + (n - k) * log(1 - k / n) if 0 < k < n else 0.0


def _shrunk(counts: Counts, normal: float) -> float:
    n, k = counts
    return (k + PRIOR_REQUESTS * normal) / (n + PRIOR_REQUESTS)


def _shares(now: Table, was: Table, normal: float, whole: Counts = (0, 0)) -> tuple[Share, ...]:
    """Return the shares of the values in a table; it may hold the heaviest ones only of *whole*, the rest counts too."""
    excess = {name: max(k - n * _shrunk(was.get(name, (0, 0)), normal), 0.0) for name, (n, k) in now.items()}
    unknown = max(whole[0] - sum(n for n, _ in now.values()), 0), whole[1] - sum(k for _, k in now.values())
    total = sum(excess.values()) + max(unknown[1] - unknown[0] * normal, 0.0)
    shares = [Share(name, excess[name] / total if total else 0.0, *counts) for name, counts in now.items()]
    return tuple(sorted(shares, key=lambda share: (-share.share_ratio, -share.requests, share.name)))
