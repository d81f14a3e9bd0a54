"""
A route that shapes: what exceeds its limit waits for a token, for a bounded time in a bounded queue, fairly by client.

Theory
    The guard decides, and knows the time of the next token exactly; it cannot wait. So a request that it refuses for a
    limit of the route is parked here, and asked again when its turn comes. Two clocks pace the turns: aiolimiter's leaky
    bucket lets one go after the other at the route's rate, and the guard's own Retry-After says when a client's next token
    comes. The guard has the last word, so shaping can only delay, never exceed a limit.

    Each client has a lane of its own, and lanes take turns. A client that sends a hundred requests waits behind itself:
    another one that sends its first is next. While somebody waits for the route's tokens nobody passes by.

Tables
    comes            when                                                       then
    parked           refused by `limit` or `limit.per_client`, or others wait   waits in its client's lane
    refused at once  its turn would come after `max_wait`; the guard refuses    as without shaping; Retry-After says when
                     for any other reason
                     `max_queue` wait, and no lane is longer than its own
    makes room       `max_queue` wait, and another client's lane is longer      the newest of the longest lane is refused

    leaves the queue by
    its turn         the guard admits it                                        it goes on to the API
                     the guard refuses for another reason (breaker, …)          refused with that
    its time         `max_wait` is over                                         refused, 429
    its client       gone, or failed to send its body                           its place is free at once
    the worker       drains; the route shapes no more                           503; its turn, at once

What can go wrong
    A limit that changes while requests wait: the guard is asked anew at each turn, and the pace follows its rate. A guard
    that refuses a turn although its time has come (another worker's share grew): the turn comes again after the
    Retry-After. An exception in one exchange: it ends that one; the queue goes on. A burst of one: a timer that is a
    millisecond late loses that millisecond, so above 100/s a burst should hold 10 ms of the rate; the default holds a second.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from aiolimiter import AsyncLimiter

from sidecar import clock
from sidecar.guard.guard import RouteGuard, Ticket
from sidecar.guard.limit import CLIENT, ROUTE, RULES
from sidecar.guard.policies import LimitPolicy
from sidecar.reasons import Reason, Refusal

if TYPE_CHECKING:
    from sidecar.proxy.plane import Route

_SHAPED: Final = (RULES[ROUTE], RULES[CLIENT])
_LEAVING: Final = Refusal(Reason.DRAINING, 1.0, "drain", "the sidecar is shutting down")
_AHEAD_S: Final = 0.01  # timers are late by up to this; the pace makes good for it
_FEWEST: Final = 2.0  # requests that the pace can make good for at least
_STEADY: Final = 0.01  # a change of the rate below this is none


class Waits(Protocol):
    """What waits."""

    route: Route
    """Where it counts; whoever holds it may set another (`Route.counting`)."""

    def admitted(self, ticket: Ticket, now: float) -> None:
        """Go on with *ticket*."""

    def refuse(self, refusal: Refusal, now: float) -> None:
        """End with *refusal*."""

    def broken(self, error: Exception) -> None:
        """End because of a fault of our own."""


class Waiting(Protocol):
    """What a request is told that waits."""

    def leave(self) -> None:
        """Give it up: the client is gone."""


class Parks(Protocol):
    """Who lets a refused request wait."""

    def park(self, waits: Waits, client: str, refusal: Refusal, now: float) -> Waiting | Refusal:
        """Take *waits* in, or answer why not."""


class Place:
    """One place in the queue."""

    __slots__ = ("_shaper", "client", "timer", "waits")

    def __init__(self, shaper: Shaper, client: str, waits: Waits) -> None:
        self._shaper = shaper
        self.client = client
        self.waits = waits
        self.timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Place of {self.client}>"

    def leave(self) -> None:
        """Give the place up: the client is gone."""
        self._shaper.left(self)


class _Lane:
    """What waits of one client."""

    __slots__ = ("places", "ready_at")

    def __init__(self) -> None:
        self.places: deque[Place] = deque()
        self.ready_at = 0.0


class Shaper:
    """
    The queue of one route in one worker.

    Args:
        loop: The worker's event loop.
        guard: The route's; has the last word.
        policy: The route's limit, of mode `shape`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, guard: RouteGuard, policy: LimitPolicy) -> None:
        self._loop = loop
        self._guard = guard
        self._lanes: dict[str, _Lane] = {}  # in the order of their turns
        self._waiting = 0
        self._route_waits = self._leaving = False
        self._pace: AsyncLimiter | None = None
        self._paced_s = 0.0
        self._pump: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self.apply(policy)

    def __repr__(self) -> str:
        return f"<Shaper {self._guard.name} {self._waiting}/{self._max_queue} in {len(self._lanes)} lanes>"

    @property
    def waiting(self) -> int:
        """Count the requests that wait."""
        return self._waiting

    def apply(self, policy: LimitPolicy) -> None:
        """Go on with other bounds; what waits keeps its time."""
        self._max_wait_s, self._max_queue = policy.max_wait_s, policy.max_queue

    # --- in -------------------------------------------------------------------------------------------------------

    def admit(self, client: str, now: float) -> Ticket | Refusal:
        """Ask the guard, unless others wait for the same tokens; stands in for `RouteGuard.admit`."""
        if self._lanes and (self._route_waits or client in self._lanes):
            rule = RULES[ROUTE if self._route_waits else CLIENT]
            return Refusal(Reason.RATE_LIMITED, 0.0, rule, f"{self._waiting} requests wait")
        return self._guard.admit(client, now)

    def park(self, waits: Waits, client: str, refusal: Refusal, now: float) -> Place | Refusal:
        """Let *waits* wait for what *refusal* refused; return its place, or why it may not wait."""
        if refusal.reason is not Reason.RATE_LIMITED or refusal.rule not in _SHAPED:
            return refusal
        if self._leaving:
            return _LEAVING
        wait_s = self._expected_s(client, now)
        if wait_s > self._max_wait_s or not self._has_room(client, now):
            return Refusal(Reason.RATE_LIMITED, wait_s, refusal.rule, refusal.detail)
        place = Place(self, client, waits)
        place.timer = self._loop.call_later(self._max_wait_s, self._expire, place)
        lane = self._lanes.get(client)
        if lane is None:
            lane = self._lanes[client] = _Lane()
            if refusal.rule == RULES[CLIENT]:
                lane.ready_at = now + refusal.retry_after_s
        lane.places.append(place)
        self._waiting += 1
        self._route_waits = self._route_waits or refusal.rule == RULES[ROUTE]
        self._news.set()
        if self._pump is None:
            self._pump = self._loop.create_task(self._run(), name=f"shaper of {self._guard.name}")
        return place

    def _expected_s(self, client: str, now: float) -> float:
        """Return how long a newcomer would wait: for the next token, and behind its own lane with all lanes taking turns."""
        limits = self._guard.limits
        first = limits.refusal(client, now) if limits is not None else None
        lane, lanes = self._lanes.get(client), len(self._lanes)
        ahead = len(lane.places) if lane is not None else 0
        route_s, client_s = self._spacing_s(client)
        turns = ahead * lanes if lane is not None else lanes
        behind_s = max(route_s * turns if self._route_waits else 0.0, client_s * ahead)
        return behind_s + (first.retry_after_s if first is not None else 0.0)

    def _spacing_s(self, client: str) -> tuple[float, float]:
        limits = self._guard.limits
        return (0.0, 0.0) if limits is None else limits.spacing_s(client)

    def _has_room(self, client: str, now: float) -> bool:
        if self._waiting < self._max_queue:
            return True
        own = len(self._lanes[client].places) if client in self._lanes else 0
        longest = max(self._lanes.values(), key=lambda lane: len(lane.places), default=None)
        if longest is None or len(longest.places) <= own + 1:
            return False
        self._refuse_late(longest.places[-1], now)
        return True

    # --- out ------------------------------------------------------------------------------------------------------

    def left(self, place: Place) -> None:
        """Free the place of one that waits no more."""
        if place.timer is None:
            return
        place.timer.cancel()
        place.timer = None
        lane = self._lanes[place.client]
        lane.places.remove(place)
        self._waiting -= 1
        if not lane.places:
            del self._lanes[place.client]
        if not self._lanes:
            self._route_waits = False
            self._news.set()  # the pump ends

    def _expire(self, place: Place) -> None:
        self._refuse_late(place, clock.now())

    def _refuse_late(self, place: Place, now: float) -> None:
        self.left(place)
        limits = self._guard.limits
        refusal = limits.refusal(place.client, now) if limits is not None else None
        if refusal is None:
            again_s = max(self._spacing_s(place.client))
            refusal = Refusal(Reason.RATE_LIMITED, again_s, RULES[ROUTE], "waited in vain")
        self._end(place, refusal, now)

    def drain(self, now: float) -> None:
        """Refuse everybody who waits, and let nobody wait any more: the worker leaves."""
        self._leaving = True
        for place in self._places():
            self.left(place)
            self._end(place, _LEAVING, now)

    def close(self, now: float) -> None:
        """Let everybody have the turn at once: the route shapes no more."""
        for place in self._places():
            self.left(place)
            self._try(place, self._guard.admit(place.client, now), now)

    def _places(self) -> list[Place]:
        return [place for lane in self._lanes.values() for place in lane.places]

    def _try(self, place: Place, answer: Ticket | Refusal, now: float) -> None:
        if isinstance(answer, Refusal):
            self._end(place, answer, now)
            return
        try:
            place.waits.admitted(answer, now)
        except Exception as error:  # one exchange's fault must not cost the others their turn
            place.waits.broken(error)

    def _end(self, place: Place, refusal: Refusal, now: float) -> None:
        try:
            place.waits.refuse(refusal, now)
        except Exception as error:  # as above
            place.waits.broken(error)

    # --- turns ----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Give turns as long as somebody waits."""
        paced = False  # what the pace allowed and nobody used is not lost
        try:
            while self._lanes:
                wait_s = self._until_ready(clock.now())
                if wait_s <= 0.0:
                    if not paced:
                        await self._paced()
                    wait_s = self._turn(clock.now())
                    paced = wait_s > 0.0
                if wait_s > 0.0:
                    await self._sleep(wait_s)
        finally:
            self._pump = None

    def _until_ready(self, now: float) -> float:
        """Return the seconds until some client has its token."""
        return min((lane.ready_at for lane in self._lanes.values()), default=0.0) - now

    async def _paced(self) -> None:
        route_s, _ = self._spacing_s("")
        if route_s <= 0.0:
            self._pace = None
            return
        if self._pace is None or abs(route_s - self._paced_s) > _STEADY * self._paced_s:
            ahead = max(_FEWEST, _AHEAD_S / route_s)
            self._pace, self._paced_s = AsyncLimiter(ahead, ahead * route_s), route_s
        await self._pace.acquire()

    async def _sleep(self, seconds: float) -> None:
        """Wait for a time, or until somebody comes whose turn may be earlier."""
        self._news.clear()
        try:
            await asyncio.wait_for(self._news.wait(), seconds)
        except TimeoutError:
            pass

    def _turn(self, now: float) -> float:
        """Give one turn to the first lane that can use it; return the seconds until there is sense in another one."""
        for client, lane in list(self._lanes.items()):
            if lane.ready_at > now:
                continue
            answer = self._guard.admit(client, now)
            if isinstance(answer, Refusal) and answer.reason is Reason.RATE_LIMITED and answer.rule in _SHAPED:
                if answer.rule == RULES[ROUTE]:
                    self._route_waits = True
                    return answer.retry_after_s
                lane.ready_at = now + answer.retry_after_s
                continue
            place = lane.places[0]
            self.left(place)
            if client in self._lanes:
                self._lanes[client] = self._lanes.pop(client)  # to the end: the others are next
            self._try(place, answer, now)
            return 0.0
        # All wait for tokens of their own: who comes with one may pass by.
        self._route_waits = False
        return self._until_ready(now)
