"""
All detectors of all routes: seconds in, signals out.

Theory
    A detector sees nothing but `RouteSecond`s, in order, once a second, and answers with every claim that stands now.
    It is pure and causal: the same seconds give the same signals, live, in a test and over a tape. Routes are
    independent; a route that sees less than one request a minute cannot be judged alone in any useful time, so such
    quiet routes are summed and judged as one, at their parent, and what is found there is of scope `service`.

Tables
    a route's rate                          errors, latency and traffic are judged
    watched for less than 10 min            alone
    < 1 a minute                            in the pool, and alone again from 1.5 a minute on
    else                                    alone
    (refusals and trips: always alone; an alarm stands until it closes, wherever it was found)

    detector                   may act      claims
    errors, latency            yes          `errors.py`, `latency.py`
    trip                       yes          `trip.py`
    surge, silence             advisory     `traffic.py`
    refusals                   advisory     `refusals.py`
    burn                       advisory     `burn.py`, of routes with an objective
    drift                      advisory     `drift.py`, once a minute

What can go wrong
    A missing second is a gap, not a silence: when no route at all was reported, no time passes for any detector. A route
    that is missing among reported ones was idle. A second that is not newer than its route's last one is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sidecar.detect.keep import Document
from sidecar.detect.policies import DetectPolicy
from sidecar.detect.refusals import RefusalsDetector, refused
from sidecar.detect.tuning import SERVICE, Tuning
from sidecar.detect.watch import LONGEST_STEP_S, Watch
from sidecar.facts import Detector, Mode, RouteSecond, Scope, Signal
from sidecar.measure.histogram import merge

POOL: Final = ":pool"  # no route can be called so
QUIET_PER_S: Final = 1 / 60
LOUD_PER_S: Final = 1.5 / 60
QUIET_AFTER_S: Final = 600.0
ALWAYS_ALONE: Final = (Detector.REFUSALS, Detector.TRIP)


@dataclass(frozen=True, slots=True)
class Control:
    """
    One row of the inventory.

    Attributes:
        name: `detect.errors` and the like.
        route: The route's name.
        state: `off`, `observe`, `enforce` or `cannot run`.
        why: What is missing, or how the route is judged; may be empty.
    """

    name: str
    route: str
    state: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Rebaselined:
    """A lasting shift became normal by age; people are told."""

    route: str
    detector: Detector
    at: float


class Bank:
    """
    The detectors of every route.

    Attributes:
        frozen: Routes whose baselines learn nothing for now (a drill, an override, an isolation).
        quiet: Routes that are judged in the pool.
    """

    def __init__(self, policy: DetectPolicy, routes: Sequence[str], now: float) -> None:
        self._policy = policy
        self._watches = {name: Watch(Scope.route(name), policy.of(name), now) for name in routes}
        self._pool = Watch(Scope.service(), policy, now)
        self._service = RefusalsDetector(policy, now)
        self._rebaselined: list[Rebaselined] = []
        self._tuning = Tuning()
        self._at = now
        self.frozen: frozenset[str] = frozenset()
        self.quiet: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"<Bank {len(self._watches)} routes, {len(self.signals())} signals>"

    def observe(self, seconds: Sequence[RouteSecond], now: float) -> tuple[Signal, ...]:
        """
        Take one second of all routes and return every signal that stands.

        Args:
            seconds: One row a route; routes that the config does not know are left out.
            now: Monotonic seconds; the end of the second for a route without a row.
        """
        if self._policy.mode is Mode.OFF or not seconds:
            return self.signals()
        given = {row.route: row for row in seconds}
        rows = [given.get(name) or RouteSecond(name, now) for name in self._watches]
        for row, (name, watch) in zip(rows, self._watches.items(), strict=True):
            watch.observe(row, frozen=name in self.frozen)
            self._note(name, watch, now)
        self._observe_together(rows, now)
        self._at = max(self._at, now)
        return self.signals()

    def _observe_together(self, rows: Sequence[RouteSecond], now: float) -> None:
        elapsed_s = min(now - self._at, LONGEST_STEP_S)
        if elapsed_s <= 0:
            return
        if self._service.watching or len(rows) > 1:
            self._service.observe(sum(row.arrivals for row in rows), sum(map(refused, rows)), now, elapsed_s)
        self.quiet = frozenset(name for name, watch in self._watches.items() if self._is_quiet(name, watch))
        if self.quiet:
            pooled = [row for row in rows if row.route in self.quiet]
            self._pool.observe(_sum(pooled, now), frozen=bool(self.quiet & self.frozen))
            self._note(POOL, self._pool, now)
        else:
            self._pool.at = now

    def _is_quiet(self, name: str, watch: Watch) -> bool:
        limit = LOUD_PER_S if name in self.quiet else QUIET_PER_S
        return watch.age_s >= QUIET_AFTER_S and watch.rate_per_s < limit

    def _note(self, name: str, watch: Watch, now: float) -> None:
        for detector in watch.take_rebaselined():
            self._rebaselined.append(Rebaselined(name, detector, now))

    def signals(self) -> tuple[Signal, ...]:
        """Return every signal that stands, in the routes' order, the service's last."""
        if self._policy.mode is Mode.OFF:
            return ()
        found: list[Signal] = []
        for name, watch in self._watches.items():
            alone = name not in self.quiet
            found += [signal for signal in watch.signals() if alone or signal.detector in ALWAYS_ALONE]
        refusing = sum(signal.detector is Detector.REFUSALS for signal in found)
        together = self._service.signal(Scope.service())
        if together is not None and refusing >= 2:
            found.append(together)
        if self.quiet:
            found += [signal for signal in self._pool.signals() if signal.detector not in ALWAYS_ALONE]
        return tuple(found)

    def freeze(self, routes: Collection[str]) -> None:
        """Learn nothing from *routes* (exactly these) until told otherwise."""
        self.frozen = frozenset(routes)

    def version_applied(self, at: float, version: int) -> None:
        """Hold the refused share of the last 60 s against what follows: config *version* went live at *at*."""
        for watch in self._watches.values():
            watch.refusals.version_applied(at, version)
        self._service.version_applied(at, version)

    def accept(self, route: str, detector: Detector) -> None:
        """
        Take the present of *route* as normal: an operator said `benign`.

        An empty *route* means the service: the pool of quiet routes. An unknown one changes nothing.
        """
        watch = self._watches.get(route) if route else self._pool
        if watch is not None:
            watch.accept(detector)
        if not route and detector is Detector.REFUSALS:
            self._service.accept()

    def take_rebaselined(self) -> tuple[Rebaselined, ...]:
        """Return the shifts that became normal by age since the last call, once."""
        taken = tuple(self._rebaselined)
        self._rebaselined.clear()
        return taken

    def apply(self, policy: DetectPolicy, routes: Sequence[str], now: float) -> None:
        """Judge by *policy* from now on; routes that stay keep what they learnt."""
        self._policy = policy
        known = self._watches
        self._watches = {name: known.get(name) or Watch(Scope.route(name), policy.of(name), now) for name in routes}
        self._bind()
        self.quiet &= frozenset(self._watches)

    def tune(self, tuning: Tuning) -> None:
        """Fire where *tuning* says from now on."""
        self._tuning = tuning
        self._bind()

    def _bind(self) -> None:
        for name, watch in self._watches.items():
            watch.apply(self._tuned(self._policy.of(name), name))
        whole = self._tuned(self._policy, SERVICE)
        self._pool.apply(whole)
        self._service.apply(whole)

    def _tuned(self, policy: DetectPolicy, route: str) -> DetectPolicy:
        offsets = self._tuning.offsets(route)
        return replace(policy, offsets=offsets) if offsets else policy

    def inventory(self) -> tuple[Control, ...]:
        """Return one row for each detector of each route."""
        return tuple(
            self._control(name, detector, watch.cold().get(detector, ""))
            for name, watch in self._watches.items()
            for detector in watch.states()
        )

    def _control(self, route: str, detector: Detector, why: str) -> Control:
        mode = self._policy.mode
        if mode is Mode.OFF:
            return Control(f"detect.{detector.value}", route, mode.value)
        if route in self.quiet and detector not in ALWAYS_ALONE:
            why = "below 1 request a minute: judged together with the other quiet routes"
            return Control(f"detect.{detector.value}", route, mode.value, why)
        return Control(f"detect.{detector.value}", route, "cannot run" if why else mode.value, why)

    def scores(self) -> Mapping[tuple[str, Detector], float]:
        """Return each statistic as a part of its threshold: 1 is where it fires."""
        return {
            (name, detector): score
            for name, watch in self._watches.items()
            for detector, score in watch.scores().items()
        }

    def states(self) -> Mapping[tuple[str, Detector], str]:
        """Return where each detector stands: learning, normal, suspect, alarm or recovering."""
        return {
            (name, detector): state.value
            for name, watch in self._watches.items()
            for detector, state in watch.states().items()
        }

    def snapshot(self, routes: Collection[str] | None = None) -> Mapping[str, Document]:
        """Return the memory, one JSON object a route: of all, or of these *routes* and the pool."""
        saved: Document = {"saved_at": self._at}
        watches = [(name, watch) for name, watch in self._watches.items() if routes is None or name in routes]
        documents = {name: {**saved, **watch.snapshot()} for name, watch in watches}
        documents[POOL] = {**saved, **self._pool.snapshot(), "service": self._service.snapshot()}
        documents[POOL]["quiet"] = sorted(self.quiet)
        return documents

    def restore(self, documents: Mapping[str, Mapping[str, Any]], now: float) -> tuple[str, ...]:
        """
        Put snapshots back; the time since they were saved counts for nothing.

        Returns:
            The routes whose document could not be read; they start cold.
        """
        return tuple(name for name, document in documents.items() if not self._restore(name, document, now))

    def _restore(self, name: str, document: Mapping[str, Any], now: float) -> bool:
        watch = self._pool if name == POOL else self._watches.get(name)
        if watch is None:
            return True  # a route that the config no longer has
        try:
            shift_s = now - document["saved_at"]
            watch.restore(document, shift_s)
            if name == POOL:
                self._service.restore(document["service"], shift_s)
                self.quiet = frozenset(document["quiet"]) & frozenset(self._watches)
                self._at = now
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            self._forget(name, now)
            return False
        return True

    def _forget(self, name: str, now: float) -> None:
        if name == POOL:
            self._pool = Watch(Scope.service(), self._policy, now)
            self._service = RefusalsDetector(self._policy, now)
        else:
            self._watches[name] = Watch(Scope.route(name), self._policy.of(name), now)


def _sum(rows: Sequence[RouteSecond], now: float) -> RouteSecond:
    """Return *rows* as one second of the pool."""
    return RouteSecond(
        POOL,
        now,
        arrivals=sum(row.arrivals for row in rows),
        successes=sum(row.successes for row in rows),
        failures=sum(row.failures for row in rows),
        latency=merge(*(row.latency for row in rows)),
        waiting=merge(*(row.waiting for row in rows)),
    )
