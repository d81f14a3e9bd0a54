"""
What the config's guards and the isolations in force let pass of a recorded second, and what became of it.

Theory
    A tape says what arrived and how it ended; which of it *would* have passed is worked out here, in the order of the
    live stack: isolation → limits → breaker. Requests are parted into cohorts: one for each client that the line names,
    and the rest. A guard passes a part f of a cohort, and what passes fares as the cohort was recorded to: the same
    ratio of failures, the same latencies. Nothing is drawn at random: whole numbers are made of fractions with a phase
    that walks through 0..1 in steps of the golden ratio, so a share of 10 % of 5 requests passes one every other second
    and the mean is right.

Tables
    recorded as refused                            here
    by a limit (`rate_limited`)                    arrives at this config's limits like any other
    by an isolation or a breaker                   the same; the isolations and breakers are this replay's own
    for another reason (draining, concurrency …)   stays refused
    the tape does not say by what                  stays refused; where the line names clients and this config limits
                                                   the route or its clients, it arrives at the limits instead

    of a cohort of which nothing reached the API when it was recorded, nobody knows how it would fare: what passes of it
    now counts as `ignored`

What can go wrong
    The API's failure may depend on its load: a replay that refuses more than was refused live does not see it recover
    earlier, and one that passes more does not see it break. Concurrency limits and queues are not modelled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sidecar.config.policies import Compiled
from sidecar.facts import ClientSecond, Directive, Mode, RouteSecond, Scope, ScopeKind
from sidecar.guard.breaker import TripEvent
from sidecar.measure.histogram import UPPER_S
from sidecar.reasons import Reason
from sidecar.replay.limits import Limits
from sidecar.replay.reflex import Passed, Reflex
from sidecar.replay.seconds import InFlight
from sidecar.replay.tape import Line

GOLDEN: Final = 0.618_033_988_749_895
SAMPLE_EVERY: Final = 10.0  # as guard/gate.py: of ten requests, or of a second's, one passes
REPLAYED: Final = frozenset(
    (Reason.RATE_LIMITED, Reason.CLIENT_THROTTLED, Reason.ISOLATED, Reason.BREAKER_OPEN)
)  # decided anew
_REST: Final = ""
_NO_PAIRS: Final[Mapping[str, tuple[int, int]]] = {}


@dataclass(slots=True)
class Cohort:
    """
    Requests of one client, or of all that the line does not name.

    Attributes:
        arrived: That are not refused for a reason that stands.
        through: Of them, those that reached the API when the tape was recorded.
        good, bad, other: How those that reached the API ended.
        passing: Of `arrived`, what the guards so far let pass.
    """

    key: str
    arrived: float
    through: float
    good: float = 0.0
    bad: float = 0.0
    other: float = 0.0
    passing: float = 0.0

    @property
    def part(self) -> float:
        """Return what passes now of what reached the API then; above 1 where more passes."""
        return self.passing / self.through if self.through else 0.0


@dataclass(slots=True)
class Crossing:
    """One route's second on its way through the guards."""

    line: Line
    cohorts: list[Cohort]
    ended: float
    refused: dict[str, float] = field(default_factory=dict)
    held: dict[str, float] = field(default_factory=dict)
    trials: dict[str, list[Cohort]] = field(default_factory=dict)
    covered: bool = False

    @property
    def passing(self) -> float:
        """Count what passes so far."""
        return sum(cohort.passing for cohort in self.cohorts)


class Share:
    """What one directive lets pass on one route: its share, and at least a sample."""

    __slots__ = ("_credit", "_since", "_waited_s")

    def __init__(self) -> None:
        self._credit = 1.0  # the first request is a trial
        self._since = 0.0
        self._waited_s = 0.0

    def take(self, directive: Directive, asked: float) -> float:
        """Return how many of a second's *asked* pass."""
        wanted = directive.rate_per_s if directive.share_ratio is None else directive.share_ratio * asked
        self._credit = min(self._credit + (wanted or 0.0), max(asked, 1.0))
        passed = min(float(int(self._credit + 1e-9)), asked)
        self._since += asked
        self._waited_s += 1.0
        if passed < 1.0 <= asked and self._since >= SAMPLE_EVERY and self._waited_s >= 1.0:
            passed = 1.0
        if passed:
            self._since = self._waited_s = 0.0
            self._credit = max(0.0, self._credit - passed)
        return passed


class Guards:
    """All guards of one config."""

    def __init__(self, compiled: Compiled, now: float) -> None:
        self._limits = Limits(compiled.guard, now)
        self._reflexes = {
            name: Reflex(name, route.breaker, now)
            for name, route in compiled.guard.routes.items()
            if route.breaker is not None and Mode.ENFORCE is route.breaker.mode is compiled.guard.mode
        }
        self._slow = {name: route.breaker.slow_s for name, route in compiled.guard.routes.items() if route.breaker}
        self._flights: dict[str, InFlight] = {}
        self._shares: dict[tuple[str, str], Share] = {}
        self._directives: tuple[Directive, ...] = ()
        self._turn = 0
        self._step_s = 1.0

    def __repr__(self) -> str:
        return f"<Guards {self._limits} {len(self._directives)} directives>"

    def direct(self, directives: Sequence[Directive]) -> None:
        """Take the full set of isolations in force."""
        self._directives = tuple(directives)
        ids = {directive.id for directive in directives}
        self._shares = {key: share for key, share in self._shares.items() if key[0] in ids}

    def take(
        self, lines: Mapping[str, Line], at: float, step_s: float = 1.0
    ) -> tuple[list[RouteSecond], list[TripEvent]]:
        """
        Let one second of all routes pass, or a step of *step_s* seconds that ends at *at*.

        Returns:
            It as detection sees it, and the breakers that tripped.
        """
        self._turn += 1
        self._step_s = step_s
        crossings = []
        for route, line in lines.items():
            flight = self._flights.get(route)
            if flight is None:
                flight = self._flights[route] = InFlight()
            crossing = self._arrive(line, flight)
            self._isolate(crossing, at)
            self._limit(crossing, at)
            crossings.append(crossing)
        for route, flight in self._flights.items():
            if route not in lines:
                flight.idle()
        self._limit_service(crossings, at)
        rows = [self._end(crossing, at) for crossing in crossings]
        trips = [trip for reflex in self._reflexes.values() for trip in reflex.trips]
        for reflex in self._reflexes.values():
            reflex.trips.clear()
        return rows, trips

    # --- arrivals ------------------------------------------------------------------------------------------------

    def _arrive(self, line: Line, flight: InFlight) -> Crossing:
        refused = sum(line.refused.values())
        stands = self._stands(line)
        admitted = max(line.requests - refused, 0)
        ended = flight.ended(line, admitted)
        good = max(ended - line.failures - line.ignored, 0)
        arrived = max(line.requests - sum(stands.values()), 0)
        made = Crossing(line, [], float(good + line.failures + line.ignored))
        made.refused = {reason or Reason.RATE_LIMITED.value: float(count) for reason, count in stands.items()}
        if line.clients:
            made.cohorts = _cohorts(line, arrived, admitted, good)
        else:
            ends = float(good), float(line.failures), float(line.ignored)
            made.cohorts = [Cohort(_REST, float(arrived), float(admitted), *ends)]
        for cohort in made.cohorts:
            cohort.passing = cohort.arrived
        return made

    def _stands(self, line: Line) -> Mapping[str, int]:
        """Return what was refused for a reason that this replay does not decide anew."""
        if not line.refused:
            return line.refused
        limits = self._limits.route(line.route)
        judged = line.clients is not None and (limits.by_client or limits.shared or self._limits.service) is not None
        return {
            reason: count
            for reason, count in line.refused.items()
            if reason not in REPLAYED and not (reason == "" and judged)
        }

    # --- isolation -----------------------------------------------------------------------------------------------

    def _isolate(self, crossing: Crossing, at: float) -> None:
        if not self._directives:
            return
        route = crossing.line.route
        live = [directive for directive in self._directives if directive.end_at > at]
        mine = {d.scope.key: d for d in live if d.scope.kind is ScopeKind.CLIENT and d.scope.name == route}
        whole = [d for d in live if d.scope.kind is ScopeKind.SERVICE]
        wide = next((d for d in live if d.scope == Scope.route(route)), whole[0] if whole else None)
        crossing.covered = wide is not None and wide.bypass_breaker
        for key, directive in mine.items():
            self._hold(crossing, directive, [c for c in crossing.cohorts if c.key == key], Reason.CLIENT_THROTTLED)
        if wide is not None:
            self._hold(crossing, wide, [c for c in crossing.cohorts if c.key not in mine], Reason.ISOLATED)

    def _hold(self, crossing: Crossing, directive: Directive, cohorts: list[Cohort], reason: Reason) -> None:
        asked = sum(cohort.passing for cohort in cohorts)
        if not asked:
            return
        share = self._shares.setdefault((directive.id, crossing.line.route), Share())
        passed = share.take(directive, asked)
        for cohort in cohorts:
            cohort.passing *= passed / asked
        crossing.held[directive.id] = asked - passed
        crossing.refused[reason.value] = crossing.refused.get(reason.value, 0.0) + asked - passed
        crossing.trials[directive.id] = cohorts

    # --- limits --------------------------------------------------------------------------------------------------

    def _limit(self, crossing: Crossing, at: float) -> None:
        limits = self._limits.route(crossing.line.route)
        before = crossing.passing
        if limits.by_client and crossing.line.clients is not None:
            asked = {cohort.key: cohort.passing for cohort in crossing.cohorts if cohort.key}
            for key, passing in limits.of_clients(asked, at, self._step_s).items():
                next(c for c in crossing.cohorts if c.key == key).passing = passing
        if limits.shared is not None:
            _shrink(crossing.cohorts, limits.shared.refill(at, self._step_s))
        _refuse(crossing, Reason.RATE_LIMITED, before - crossing.passing)

    def _limit_service(self, crossings: Sequence[Crossing], at: float) -> None:
        service = self._limits.service
        if service is not None:
            costs = [self._limits.route(crossing.line.route).cost for crossing in crossings]
            asked = sum(crossing.passing * cost for crossing, cost in zip(crossings, costs, strict=True))
            left = service.refill(at, self._step_s)
            if asked > left:
                for crossing in crossings:
                    before = crossing.passing
                    _shrink(crossing.cohorts, before * left / asked)
                    _refuse(crossing, Reason.RATE_LIMITED, before - crossing.passing)
            service.charge(min(asked, left))
        for crossing in crossings:
            passed = {cohort.key: cohort.passing for cohort in crossing.cohorts if cohort.key}
            self._limits.route(crossing.line.route).charge(passed, crossing.passing)

    # --- what becomes of it --------------------------------------------------------------------------------------

    def _end(self, crossing: Crossing, at: float) -> RouteSecond:
        line = crossing.line
        phase = (self._turn * GOLDEN) % 1.0
        good = bad = other = 0.0
        for cohort in crossing.cohorts:
            part = cohort.part if cohort.through or cohort.arrived else 1.0  # what came earlier ends all the same
            good, bad, other = good + cohort.good * part, bad + cohort.bad * part, other + cohort.other * part
            other += 0.0 if cohort.through else cohort.passing
        passed = Passed(_whole(good, phase), _whole(bad, phase + 0.5), _whole(other, phase + 0.25))
        passed, trips = self._ask_breaker(crossing, passed, at)
        total = passed.total
        factor = min(total / crossing.ended, 1.0) if crossing.ended else 1.0
        flight = self._flights[line.route]
        waiting = flight.waiting(line)
        refused = {reason: n for reason, part in crossing.refused.items() if (n := _whole(part, phase + 0.75))}
        return RouteSecond(
            route=line.route,
            at=at,
            arrivals=line.requests,
            successes=passed.good,
            failures=passed.bad,
            ignored=passed.other,
            cancelled=sum(refused.values()),
            refused=refused,
            latency=line.latency if factor == 1.0 else _thin(line.latency, factor, phase),
            waiting=waiting if factor == 1.0 else _thin(waiting, factor, phase),
            in_flight=_whole((line.in_flight or 0) * factor, phase),
            clients=_clients(crossing, phase),
            trips=trips,
            passed_trials={key: _trials(cohorts, phase) for key, cohorts in crossing.trials.items()},
            held={key: _whole(count, phase + 0.75) for key, count in crossing.held.items()},
            methods=line.tables.get("methods", _NO_PAIRS),
            statuses=line.tables.get("statuses", _NO_PAIRS),
            endpoints=line.tables.get("endpoints", _NO_PAIRS),
            paths=line.tables.get("paths", _NO_PAIRS),
        )

    def _ask_breaker(self, crossing: Crossing, passed: Passed, at: float) -> tuple[Passed, int]:
        reflex = self._reflexes.get(crossing.line.route)
        if reflex is None:
            return passed, 0
        before = len(reflex.trips)
        slow = min(self._slow_of(crossing.line), passed.good)
        after = reflex.take(passed.good, passed.bad, passed.other, slow, at, self._step_s, trials=crossing.covered)
        turned = passed.total - after.total
        if turned:
            _refuse(crossing, Reason.BREAKER_OPEN, float(turned))
            part = after.total / passed.total
            for cohort in crossing.cohorts:
                cohort.passing *= part
        return after, len(reflex.trips) - before

    def _slow_of(self, line: Line) -> int:
        limit = self._slow.get(line.route)
        if limit is None:
            return 0
        return sum(count for i, count in line.latency.items() if UPPER_S[i - 1 if i else 0] >= limit)


def _cohorts(line: Line, arrived: int, admitted: int, good: int) -> list[Cohort]:
    assert line.clients is not None
    named = sum(requests for requests, _ in line.clients.values())
    standing = arrived / line.requests if line.requests else 1.0
    through = admitted / line.requests if line.requests else 1.0
    cohorts, reached_named, bad_named = [], 0.0, 0
    for key, (requests, failures) in line.clients.items():
        turned = line.turned.get(key, 0) if line.turned is not None else requests * (1.0 - through)
        reached = max(requests - turned, failures)
        cohorts.append(Cohort(key, requests * standing, reached, good=reached - failures, bad=float(failures)))
        reached_named, bad_named = reached_named + reached, bad_named + failures
    rest = max(arrived - named * standing, 0.0)
    bad_rest = float(max(line.failures - bad_named, 0))
    reached_rest = max(admitted - reached_named, bad_rest, 0.0)
    cohorts.append(Cohort(_REST, rest, reached_rest, good=reached_rest - bad_rest, bad=bad_rest))
    return _shared_out(cohorts, good, line)


def _shared_out(cohorts: list[Cohort], good: int, line: Line) -> list[Cohort]:
    """Give each cohort its part of the good and of the neutral ends, by what of it did not fail."""
    weights = sum(cohort.good for cohort in cohorts)
    bad = sum(cohort.bad for cohort in cohorts)
    for cohort in cohorts:
        part = cohort.good / weights if weights else 1.0 / len(cohorts)
        cohort.good, cohort.other = good * part, line.ignored * part
        cohort.bad = cohort.bad * line.failures / bad if bad else 0.0
    return cohorts


def _shrink(cohorts: list[Cohort], most: float) -> None:
    total = sum(cohort.passing for cohort in cohorts)
    whole = float(int(most + 1e-9))
    if total > whole:
        for cohort in cohorts:
            cohort.passing *= whole / total


def _refuse(crossing: Crossing, reason: Reason, count: float) -> None:
    if count > 1e-9:
        crossing.refused[reason.value] = crossing.refused.get(reason.value, 0.0) + count


def _whole(count: float, phase: float) -> int:
    return int(count + min(phase % 1.0, 0.999))


def _thin(counts: Mapping[int, int], factor: float, phase: float) -> dict[int, int]:
    made = ((i, _whole(count * factor, phase + i * GOLDEN)) for i, count in counts.items())
    return {i: count for i, count in made if count}


def _trials(cohorts: Sequence[Cohort], phase: float) -> tuple[int, int]:
    good = sum(cohort.good * cohort.part for cohort in cohorts)
    bad = sum(cohort.bad * cohort.part for cohort in cohorts)
    return _whole(good, phase), _whole(bad, phase + 0.5)


def _clients(crossing: Crossing, phase: float) -> dict[str, ClientSecond]:
    line, rows = crossing.line, dict[str, ClientSecond]()
    for place, cohort in enumerate(crossing.cohorts):
        if not cohort.key:
            continue
        turn = phase + place * GOLDEN
        bad = _whole(cohort.bad * cohort.part, turn + 0.5)
        requests = max(_whole(cohort.passing, turn), bad)
        refused = _whole(max(cohort.arrived - cohort.passing, 0.0), turn + 0.75)
        if requests or refused:
            rows[cohort.key] = ClientSecond(requests, bad, min(line.slow.get(cohort.key, 0), requests), refused)
    return rows
