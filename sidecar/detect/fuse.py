"""
From claims to findings: what is wrong, with whom, and is it enough to act on?

Theory
    Every claim is attributed first (`attribute.py`), and claims about the same scope become one finding. Size is judged
    on that scope, not on the route's average: one client of four that always fails is a quarter of its route and all of
    itself. Two *different* witnesses make an action safe at an effect where one alone might be wrong: the errors and
    the latency of the same requests, or errors that are connection failures, or the breaker's own trip.

Tables
    word        holds when                                                                                by
    severe      ≥ 50 % failed of at least 20 requests of the scope, or a trip                             errors, trip
    material    score ≥ h + 3 and (ratio ≥ max(5 %, 10·p̂), or p95 ≥ 2× and ≥ +50 ms), enough requests    errors, latency, trip
    agreeing    the witnesses among errors, latency, connection_failures, trip, in_flight                 all

    `surge`, `silence`, `refusals`, `burn` and `drift` raise and are never severe, material or agreeing: no isolation comes from them.

What can go wrong
    The scope of a claim may change from second to second while counts are small; the engine holds on to a scope once it
    acted. Latency has no counts by route in attribution: it belongs to the service when ≥ 80 % of the routes with
    traffic claim it at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from sidecar.detect import inflight
from sidecar.detect.attribute import LEAST_ROUTES, ROUTE_REQUESTS, Attribution, Scene, attribute
from sidecar.detect.census import Census
from sidecar.detect.errors import MATERIAL_SCORE, SEVERE_RATIO, SEVERE_REQUESTS, material_ratio
from sidecar.detect.policies import DetectPolicy
from sidecar.detect.series import RECENT_S, Series
from sidecar.facts import Detector, Scope, ScopeKind, Signal
from sidecar.measure.parts import EXPLAINS

CONNECTION_FAILURES: Final = "connection_failures"
IN_FLIGHT: Final = "in_flight"
ACTING: Final = (Detector.ERRORS, Detector.LATENCY, Detector.TRIP)
BEFORE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Finding:
    """
    All claims about one scope.

    Attributes:
        scope: The narrowest that explains them.
        signals: The claims, restated for the scope: its own value, sample and flags.
        attribution: Of the claim with the highest score above its threshold, those that may act first.
        severe: Enough to act on without a second witness.
        material: Large enough to act on.
        agreeing: The different witnesses, by name.
        stuck: Requests without an answer, where most of them have none: they rest on no judged one.
    """

    scope: Scope
    signals: tuple[Signal, ...]
    attribution: Attribution
    severe: bool
    material: bool
    agreeing: tuple[str, ...]
    stuck: int = 0

    @property
    def sample(self) -> int:
        """Count the requests that it rests on."""
        return self.attribution.requests + self.stuck

    @property
    def actionable(self) -> bool:
        """Tell whether automation may isolate for it, the blast-radius budget aside."""
        return self.material and (self.severe or len(self.agreeing) >= 2)


def fuse(signals: Sequence[Signal], series: Series, policy: DetectPolicy, now: float) -> tuple[Finding, ...]:
    """
    Return one finding for each scope, the widest last, in a fixed order.

    Args:
        signals: What the bank says now.
        series: The rows of the last minutes of all routes.
        policy: Smallest sample to act on.
        now: Monotonic seconds.
    """
    if not signals:
        return ()
    groups: dict[Scope, list[tuple[Signal, Attribution]]] = {}
    hanging: dict[Scope, list[int]] = {}
    scenes = _Scenes(series, policy, now)
    everywhere = _everywhere(signals, series, now)
    for signal in signals:
        attribution = attribute(scenes.of(signal), signal)
        if signal.detector not in ACTING:
            attribution = replace(attribution, scope=signal.scope, share_ratio=1.0)
        if signal.detector in everywhere:
            attribution = replace(attribution, scope=Scope.service(), share_ratio=1.0)
        restated = _restated(signal, attribution, policy)
        groups.setdefault(attribution.scope, []).append((restated, attribution))
        if signal.detector is Detector.LATENCY:
            hanging.setdefault(attribution.scope, []).append(_stuck(signal, series, policy, now))
    order = list(ScopeKind)
    ranked = sorted(groups.items(), key=lambda item: (order.index(item[0].kind), str(item[0])))
    return tuple(_finding(scope, claims, stuck=_of_most(hanging.get(scope, ()))) for scope, claims in ranked)


class _Scenes:
    """The scenes of one second, by onset: claims of one onset share theirs."""

    def __init__(self, series: Series, policy: DetectPolicy, now: float) -> None:
        self._series = series
        self._least = policy.min_requests
        self._now = now
        self._censuses: dict[tuple[float, float], Census] = {}
        self._scenes: dict[tuple[int, int], Scene] = {}

    def of(self, signal: Signal) -> Scene:
        """
        Return the seconds that *signal* is judged on: the last 30 s of it, or all when these are too few requests.

        They are too few, too, where most requests are held back: the trials of an isolation add up until they show who it is.
        """
        onset_at, now = signal.since_at, self._now
        window = self._census(max(onset_at, now - RECENT_S), now)
        few = window.of(signal.scope)[0] < self._least or window.held_ratio(signal.scope) > 0.5
        if onset_at < now - RECENT_S and few:
            window = self._census(onset_at, now)
        before = self._census(onset_at - BEFORE_S, onset_at)
        return self._scenes.setdefault((id(window), id(before)), Scene(window, before))

    def _census(self, after: float, until: float) -> Census:
        found = self._censuses.get((after, until))
        if found is None:
            found = self._censuses[after, until] = Census(self._series.between(after, until))
        return found


def _everywhere(signals: Sequence[Signal], series: Series, now: float) -> frozenset[Detector]:
    """Return the detectors without counts by route that claim most routes with traffic at the same time."""
    judged: dict[str, int] = {}
    for row in series.between(now - RECENT_S, now):
        judged[row.route] = judged.get(row.route, 0) + row.judged + sum(row.waiting.values())
    active = {route for route, requests in judged.items() if requests >= ROUTE_REQUESTS}
    claimed = {s.scope.name for s in signals if s.detector is Detector.LATENCY and s.scope.kind is ScopeKind.ROUTE}
    most = len(claimed) >= LEAST_ROUTES and len(claimed & active) >= EXPLAINS * len(active)
    return frozenset({Detector.LATENCY}) if most else frozenset()


def _restated(signal: Signal, attribution: Attribution, policy: DetectPolicy) -> Signal:
    """Return *signal* as it looks on the attributed scope."""
    scope, requests = attribution.scope, attribution.requests
    if scope.kind is ScopeKind.CLIENT:
        signal = replace(signal, excess=attribution.share_ratio * signal.excess)
    match signal.detector:
        case Detector.ERRORS:
            enough = requests >= policy.min_requests
            return replace(
                signal,
                scope=scope,
                value=attribution.ratio,
                sample=requests,
                material=enough
                and signal.score >= signal.threshold + MATERIAL_SCORE
                and attribution.ratio >= material_ratio(signal.baseline),
                severe=enough and requests >= SEVERE_REQUESTS and attribution.ratio >= SEVERE_RATIO,
            )
        case Detector.LATENCY | Detector.TRIP:
            return replace(signal, scope=scope)
        case _:
            return replace(signal, material=False, severe=False)


def _of_most(routes: Sequence[int]) -> int:
    """Return how many requests are stuck on the routes that a claim is about; 0 unless they are on most of them."""
    return sum(routes) if sum(map(bool, routes)) >= EXPLAINS * len(routes) else 0


def _stuck(signal: Signal, series: Series, policy: DetectPolicy, now: float) -> int:
    """Return how many requests of the route whose latency is claimed are stuck, if most of them are."""
    since_at = max(signal.since_at, now - inflight.bound_s(signal.baseline) - inflight.WINDOW_S)
    return inflight.stuck(series.between(since_at, now, signal.scope.name), signal.baseline, policy.min_requests, now)


def _finding(scope: Scope, claims: Sequence[tuple[Signal, Attribution]], *, stuck: int) -> Finding:
    acting = [claim for claim in claims if claim[0].detector in ACTING]
    _, attribution = max(acting or claims, key=lambda claim: claim[0].score / max(claim[0].threshold, 1e-9))
    signals = tuple(signal for signal, _ in claims)
    return Finding(
        scope=scope,
        signals=signals,
        attribution=attribution,
        severe=any(signal.severe for signal in signals),
        material=any(signal.material for signal in signals),
        agreeing=(*_witnesses(acting), *((IN_FLIGHT,) if stuck else ())),
        stuck=stuck,
    )


def _witnesses(claims: Sequence[tuple[Signal, Attribution]]) -> tuple[str, ...]:
    names = [detector.value for detector in ACTING if any(signal.detector is detector for signal, _ in claims)]
    if any(_disconnected(signal, attribution) for signal, attribution in claims):
        names.append(CONNECTION_FAILURES)
    return tuple(names)


def _disconnected(signal: Signal, attribution: Attribution) -> bool:
    """Tell whether failures to get any answer are themselves far above normal."""
    if signal.detector is not Detector.ERRORS:
        return False
    return attribution.connection_ratio >= material_ratio(attribution.connection_baseline_ratio)
