"""
Injects a drill's fault behind the guards of one route, in one worker.

Theory
    A route's `admit` and `shaper` are what an exchange asks; while a drill runs they are these. So a request meets every
    guard as always, and only then the fault; and without a drill nothing of this is on the path of a request.

Tables
    kind       what a request that passed the guards meets                       the guards are told
    errors     503, reason `drill`, at once                                      a failure
    latency    it waits `delay_s`, then goes on to the API                       what the API makes of it, and its age
    hang       nothing, until the response timeout (503) or the drill's end      a failure, or what the API makes of it

    Whatever it is, `/metrics` and the detectors' own counts see it as `ignored`; what the drill made of it is counted
    apart (`RouteCounters.drilled`), for those who judge the drill.

What can go wrong
    The client leaves while its request is held: the ticket goes back as neutral. The drill ends: what hangs goes on to
    the API in the order in which it came, spread over a moment, for a herd at the API's door would be an incident of its
    own; what is delayed waits for its own end. The worker is told of no end (the controller died): `end_at` ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from sidecar import clock
from sidecar.facts import Fault, Outcome
from sidecar.guard.guard import Ticket
from sidecar.measure.counters import Kind, RouteCounters
from sidecar.proxy.plane import Route
from sidecar.proxy.shaper import Waiting, Waits
from sidecar.reasons import Reason, Refusal, Would

_MET: Final = Refusal(Reason.DRILL, 1.0, "drill", "a drill injects this failure")
_QUICK_S: Final = 0.001
SPREAD_S: Final = 5.0  # what hung goes on within this time, ...
STEP_S: Final = 0.05  # ... or faster when there is little of it
_WHOLE: Final = 1.0 - 1e-9


class _Counters(RouteCounters):
    """Counts a request that a drill delayed in its route's counters: as ignored, and apart as what the API made of it."""

    __slots__ = ("_counters", "_delay_s")

    def __init__(self, counters: RouteCounters, delay_s: float) -> None:
        super().__init__()
        self._counters = counters
        self._delay_s = delay_s

    def __repr__(self) -> str:
        return f"<_Counters {self._counters!r}>"

    def arrive(self, client: str, now: float) -> None:
        """Count an arrival."""
        self._counters.arrive(client, now)

    def rearrived(self) -> None:
        """Count a re-arrival."""
        self._counters.rearrived()

    def would(self, observed: Iterable[Would]) -> None:
        """Count what observe mode would have refused."""
        self._counters.would(observed)

    def end(
        self, client: str, kind: Kind, duration_s: float,
        latency_s: float | None, slow: bool, directive: str | None,  # noqa: FBT001  RouteCounters.end
    ) -> None:  # fmt: skip
        """Count an end."""
        del slow
        method, status, _, outcome, endpoint, path = kind
        spoilt = method, status, Reason.DRILL, Outcome.IGNORED, endpoint, path
        self._counters.end(client, spoilt, duration_s, None, False, None)
        age_s = self._delay_s + (latency_s or 0.0)
        self._counters.drilled(outcome, age_s, directive)


class Held:
    """One request that waits because of a drill."""

    __slots__ = ("_saboteur", "ticket", "timer", "waits")

    def __init__(self, saboteur: Saboteur, waits: Waits, ticket: Ticket) -> None:
        self._saboteur = saboteur
        self.waits = waits
        self.ticket = ticket
        self.timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Held {self.ticket!r}>"

    def leave(self) -> None:
        """Give the ticket back: the client is gone."""
        self._saboteur.left(self)


class Saboteur:
    """
    The fault of one route.

    Args:
        loop: The worker's event loop.
        route: As the plane bound it; it is asked while the fault lasts.
        fault: What happens.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, route: Route, fault: Fault) -> None:
        self._loop = loop
        self.route = route
        self._admit, self._shaper = route.admit, route.shaper
        self._credit = 1.0 - fault.share_ratio  # the first request meets it
        self._taken: Ticket | None = None
        self._held: dict[Held, None] = {}
        self.fault = fault

    def __repr__(self) -> str:
        return f"<Saboteur {self.route.name} {self.fault.kind}, {len(self._held)} held>"

    def begin(self) -> None:
        """Stand before the route's guards."""
        self.route.admit = self.admit
        self.route.shaper = self

    def end(self) -> None:
        """Step aside, and let what is held go on."""
        self.route.admit, self.route.shaper = self._admit, self._shaper
        if self.fault.kind != "hang" or not self._held:
            return
        waiting = list(self._held)
        step_s = min(STEP_S, SPREAD_S / len(waiting))
        for place, held in enumerate(waiting):
            if held.timer is not None:
                held.timer.cancel()
            held.timer = self._loop.call_later(place * step_s, self._go_on, held)

    # --- what an exchange asks --------------------------------------------------------------------------------------

    def admit(self, client: str, now: float) -> Ticket | Refusal:
        """Ask the guards; who passes them meets the fault, as `_MET` says."""
        ticket = self._admit(client, now)
        if isinstance(ticket, Refusal) or now >= self.fault.end_at:
            return ticket
        self._credit += self.fault.share_ratio
        if self._credit < _WHOLE:
            return ticket
        self._credit = min(self._credit - 1.0, 1.0)
        self._taken = ticket
        return _MET

    def park(self, waits: Waits, client: str, refusal: Refusal, now: float) -> Waiting | Refusal:
        """Do to a request what the fault says; one that the guards refused is theirs."""
        ticket, self._taken = self._taken, None
        if refusal is not _MET or ticket is None:
            return refusal if self._shaper is None else self._shaper.park(waits, client, refusal, now)
        guard = self.route.guard
        guard.sent(ticket, now)
        if self.fault.kind == "errors":
            self._fail(ticket, now, _QUICK_S)
            return _MET
        held = Held(self, waits, ticket)
        self._held[held] = None
        if self.fault.kind == "latency":
            waits.route = self._marked()
            held.timer = self._loop.call_later(self.fault.delay_s, self._go_on, held)
        else:
            held.timer = self._loop.call_later(self.route.response_timeout_s, self._time_out, held)
        return held

    # --- what becomes of what is held ---------------------------------------------------------------------------------

    def _go_on(self, held: Held) -> None:
        if self._take_out(held):
            try:
                held.waits.admitted(held.ticket, clock.now())
            except Exception as error:  # one exchange's fault must not end the drill for others
                held.waits.broken(error)

    def _time_out(self, held: Held) -> None:
        if self._take_out(held):
            now = clock.now()
            self._fail(held.ticket, now, self.route.response_timeout_s)
            held.waits.refuse(_MET, now)

    def left(self, held: Held) -> None:
        """Give back what a client left behind."""
        if self._take_out(held):
            self.route.guard.settle(held.ticket, Outcome.IGNORED, clock.now())

    def _take_out(self, held: Held) -> bool:
        if held not in self._held:
            return False
        del self._held[held]
        if held.timer is not None:
            held.timer.cancel()
        return True

    def _fail(self, ticket: Ticket, now: float, latency_s: float) -> None:
        self.route.guard.settle(ticket, Outcome.FAILURE, now, latency_s=latency_s)
        self.route.counters.drilled(Outcome.FAILURE, latency_s, ticket.directive)

    def _marked(self) -> Route:
        counters = _Counters(self.route.counters, self.fault.delay_s)
        return self.route.counting(counters, Reason.DRILL)


class Saboteurs:
    """
    All faults of one worker.

    Args:
        loop: The worker's event loop.
        routes: Returns the routes of the config in force, by name.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, routes: Callable[[], Mapping[str, Route]]) -> None:
        self._loop = loop
        self._routes = routes
        self._wanted: tuple[Fault, ...] = ()
        self._running: dict[str, Saboteur] = {}

    def __repr__(self) -> str:
        return f"<Saboteurs {list(self._running.values())}>"

    def take(self, items: Sequence[Sequence[Any]], now: float) -> None:
        """Inject exactly these faults from now on, each as the fields of `Fault`."""
        self._wanted = tuple(Fault(*fields) for fields in items)
        self.look(now)

    def look(self, now: float) -> None:
        """End what is over; begin anew where another config is in force (about once a second, and at each of these)."""
        routes = self._routes()
        wanted = {fault.route: fault for fault in self._wanted if fault.end_at > now and fault.route in routes}
        for name, saboteur in list(self._running.items()):
            if wanted.get(name) != saboteur.fault or saboteur.route is not routes.get(name):
                self._running.pop(name).end()
        for name, fault in wanted.items():
            if name not in self._running:
                made = self._running[name] = Saboteur(self._loop, routes[name], fault)
                made.begin()
