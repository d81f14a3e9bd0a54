"""
The ordered stack that every request meets, and the ticket that it leaves with.

Order (one literal list, here and nowhere else)
    override → isolation → limit (client, then route, then service) → concurrency → breaker

    The first refusal names the reason. What holds scarce permits stands last. A refusal leaves no trace in the members
    before it: gates are charged only after the last member passed, tokens are given back.

Tickets
    admit → [sent → [first_byte]] → settle, exactly once, whatever happened. A second settle changes nothing and is
    counted in `Guard.faults`. After all tickets ended, `in_flight` and probes are 0.

Observing
    `mode: observe` (a control's or all) and the `observe` override let a request pass and note in `Ticket.would` what
    would have refused it. An observed control keeps its own state as if it had refused, and leaves that of enforced
    ones alone. An operator's override acts in `mode: observe` too: it outranks the config. Isolations then only count.

Live changes
    `apply`, `direct`, `open_breaker` and `reset_breaker` mutate what a `RouteGuard` holds: who bound one keeps it.
    Keys, breakers and tickets in flight stay.
"""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.facts import Directive, RouteGauges
from sidecar.guard.breaker import Breaker, TripEvent
from sidecar.guard.leased import Shares
from sidecar.guard.policies import GuardPolicy, RoutePolicy
from sidecar.guard.route import RouteGuard
from sidecar.guard.shared import Shared
from sidecar.guard.ticket import Ticket

__all__ = ["Guard", "RouteGuard", "Shares", "Ticket", "TripEvent"]


class Guard:
    """All guards of one worker."""

    def __init__(self, policy: GuardPolicy, now: float) -> None:
        self._shared = Shared(policy, now)
        self._routes: dict[str, RouteGuard] = {}
        self._asked_at = now
        self.apply(policy, now)

    def __repr__(self) -> str:
        return f"<Guard {list(self._routes.values())} in_flight={self._shared.concurrency.in_flight}>"

    @property
    def policy(self) -> GuardPolicy:
        """The policy in force."""
        return self._shared.policy

    @property
    def in_flight(self) -> int:
        """Count the requests between admission and end."""
        return self._shared.concurrency.in_flight

    @property
    def faults(self) -> int:
        """Count the tickets that were settled more than once: faults of our own."""
        return self._shared.faults

    def route(self, name: str) -> RouteGuard:
        """Return the stack of route *name*; one that no policy names has the service's limits alone."""
        found = self._routes.get(name)
        if found is None:
            found = self._routes[name] = RouteGuard(name, self._shared)
            found.apply(self.policy.routes.get(name, RoutePolicy(name)), self._shared.now)
            found.direct(self._shared.directives)
        return found

    def apply(self, policy: GuardPolicy, now: float) -> None:
        """Go on under *policy*: keys, breakers and tickets in flight stay."""
        self._shared.apply(policy, now)
        for name in {**policy.routes, **self._routes}:
            self.route(name).apply(policy.routes.get(name, RoutePolicy(name)), now)

    def direct(self, directives: Sequence[Directive], now: float) -> None:
        """
        Take the full set of directives in force, in the order in which they began; what is not in it has ended.

        Scopes of endpoints are not the guard's: it does not know yet where a request will go.
        """
        self._shared.direct(directives, now)
        for route in self._routes.values():
            route.direct(self._shared.directives)

    def share(self, shares: Shares, now: float) -> None:
        """Go on under these parts of the limits, which several workers share."""
        self._shared.share(shares, now)
        for route in self._routes.values():
            route.share(self._shared.now)

    def asked(self, now: float) -> tuple[float, dict[str, float]]:
        """
        Return the seconds since the last call and what was asked of each bucket in them.

        As parts of what all workers together may pass: 1.0 is what one worker with the whole limit could just meet.
        """
        span_s, self._asked_at = now - self._asked_at, now
        asked: dict[str, float] = {}
        for route in self._routes.values():
            for name, tokens, pool in route.asked():
                asked[name] = asked.get(name, 0.0) + tokens / pool
        return span_s, {name: part / span_s for name, part in asked.items() if part > 0.0} if span_s > 0.0 else {}

    def open_breaker(self, route: str, until_at: float, detail: str, now: float) -> None:
        """Open the breaker of *route*, as another worker's tripped for *detail*; until *until_at* at least."""
        breaker = self._breaker(route)
        if breaker is not None:
            breaker.open_until(until_at, detail, now)

    def reset_breaker(self, route: str, now: float) -> None:
        """Close the breaker of *route* by hand, without a ramp."""
        breaker = self._breaker(route)
        if breaker is not None:
            breaker.reset(now)

    def _breaker(self, route: str) -> Breaker | None:
        return self._routes[route].breaker if route in self._routes else None

    def take_trips(self) -> list[TripEvent]:
        """Return the trips since the last call; the caller tells the other workers at once."""
        taken = self._shared.trips[:]
        self._shared.trips.clear()
        return taken

    def tick(self, now: float) -> list[TripEvent]:
        """Let time act on every route, about four times a second; return the trips since the last call."""
        now = self._shared.now = max(now, self._shared.now)
        if self._shared.ended(now):
            self.direct(self._shared.directives, now)
        self._shared.concurrency.tick(now)
        for route in self._routes.values():
            route.tick(now)
        return self.take_trips()

    def gauges(self, route: str, now: float) -> RouteGauges:
        """Return what the guard of *route* says of itself."""
        return self.route(route).gauges(now)
