"""
All detectors of all routes: seconds in, signals out.

Theory
    A detector sees nothing but `RouteSecond`s, in order, once a second, and answers with every claim that stands now.
    It is pure and causal: the same seconds give the same signals, live, in a test and over a tape. Routes are
    independent; a route that sees less than one request a minute cannot be judged alone in any useful time, so such
    quiet routes are summed and judged as one, at their parent, and what is found there is of scope `service`.

Tables
    a route's rate                          judged
    cold baseline                           alone
    < 1 a minute, seen for 10 min           in the pool (and alone again from 1.5 a minute on)
    else                                    alone
    with an alarm that stands               where it was found, until it closes

    detector                   may act      claims
    errors, latency            yes          `errors.py`, `latency.py`
    trip                       yes          `trip.py`
    surge, silence             advisory     `traffic.py`
    refusals                   advisory     `refusals.py`

What can go wrong
    A missing second is a gap, not a silence: when no route at all was reported, no time passes for any detector. A route
    that is missing among reported ones was idle. A second that is not newer than its route's last one is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sidecar.detect.keep import Document
from sidecar.detect.policies import DetectPolicy
from sidecar.detect.watch import Watch
from sidecar.facts import Detector, Mode, RouteSecond, Scope, Signal

POOL: Final = ":pool"  # no route can be called so


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
    """

    def __init__(self, policy: DetectPolicy, routes: Sequence[str], now: float) -> None:
        self._policy = policy
        self._watches = {name: Watch(Scope.route(name), policy, now) for name in routes}
        self._rebaselined: list[Rebaselined] = []
        self._at = now
        self.frozen: frozenset[str] = frozenset()

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
        self._at = now
        rows = {row.route: row for row in seconds}
        for name, watch in self._watches.items():
            row = rows.get(name)
            watch.observe(row if row is not None else RouteSecond(name, now), frozen=name in self.frozen)
            self._note(name, watch, now)
        return self.signals()

    def _note(self, name: str, watch: Watch, now: float) -> None:
        self._rebaselined += [Rebaselined(name, detector, now) for detector in watch.take_rebaselined()]

    def signals(self) -> tuple[Signal, ...]:
        """Return every signal that stands, in the routes' order."""
        if self._policy.mode is Mode.OFF:
            return ()
        return tuple(signal for watch in self._watches.values() for signal in watch.signals())

    def freeze(self, routes: Collection[str]) -> None:
        """Learn nothing from *routes* (exactly these) until told otherwise."""
        self.frozen = frozenset(routes)

    def version_applied(self, at: float, version: int) -> None:
        """Hold the refused share of the last 60 s against what follows: a config version went live."""

    def accept(self, route: str, detector: Detector) -> None:
        """Take the present of *route* as normal: an operator said `benign`. An unknown route changes nothing."""
        watch = self._watches.get(route)
        if watch is not None:
            watch.accept(detector)

    def take_rebaselined(self) -> tuple[Rebaselined, ...]:
        """Return the shifts that became normal by age since the last call, once."""
        taken = tuple(self._rebaselined)
        self._rebaselined.clear()
        return taken

    def apply(self, policy: DetectPolicy, routes: Sequence[str], now: float) -> None:
        """Judge by *policy* from now on; routes that stay keep what they learnt."""
        self._policy = policy
        known = self._watches
        self._watches = {name: known.get(name) or Watch(Scope.route(name), policy, now) for name in routes}
        for watch in self._watches.values():
            watch.apply(policy)

    def inventory(self) -> tuple[Control, ...]:
        """Return one row for each detector of each route."""
        return tuple(
            self._control(name, detector, watch.cold().get(detector, ""))
            for name, watch in self._watches.items()
            for detector in watch.states()
        )

    def _control(self, route: str, detector: Detector, why: str) -> Control:
        mode = self._policy.mode
        state = "cannot run" if why and mode is not Mode.OFF else mode.value
        return Control(f"detect.{detector.value}", route, state, why if mode is not Mode.OFF else "")

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

    def snapshot(self) -> Mapping[str, Document]:
        """Return the memory, one JSON object a route."""
        return {name: {"saved_at": self._at, **watch.snapshot()} for name, watch in self._watches.items()}

    def restore(self, documents: Mapping[str, Mapping[str, Any]], now: float) -> tuple[str, ...]:
        """
        Put snapshots back; the time since they were saved counts for nothing.

        Returns:
            The routes whose document could not be read; they start cold.
        """
        unread = []
        for name, document in documents.items():
            if name in self._watches:
                try:
                    self._watches[name].restore(document, now - document["saved_at"])
                except (KeyError, TypeError, ValueError, IndexError):
                    self._watches[name] = Watch(Scope.route(name), self._policy, now)
                    unread.append(name)
        return tuple(unread)
