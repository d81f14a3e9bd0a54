"""
What all connections of one worker share: the policy in force, the pool, the timers, the counters.

The policy is swapped as a whole (`Live`): an exchange keeps the one that it began with, so a live apply drops no
request and no request sees half of each. Guards and counters outlive it, because they are bound by name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from operator import attrgetter
from typing import TYPE_CHECKING, Final, Protocol

from sidecar.config.policies import Compiled, Match, ProxyPolicy, RouteRule
from sidecar.facts import Directive, Mode, Outcome
from sidecar.guard.guard import Guard, RouteGuard
from sidecar.guard.policies import LimitMode
from sidecar.measure.classify import classify
from sidecar.measure.counters import Meter, RouteCounters
from sidecar.proxy.alerts import Complain, unheard
from sidecar.proxy.deadline import Wheel
from sidecar.proxy.framing import RequestHead
from sidecar.proxy.hop import Hop, Peer
from sidecar.proxy.memory import Memory
from sidecar.proxy.outbox import Outbox
from sidecar.proxy.pool import Pool
from sidecar.proxy.retry import RetryBudget
from sidecar.proxy.room import ANY, Room
from sidecar.proxy.route import Router
from sidecar.proxy.shaper import Parks, Shaper
from sidecar.proxy.storm import Storm
from sidecar.proxy.tap import Samples, Tap
from sidecar.proxy.tunnel import Tunnels
from sidecar.proxy.witness import Witness
from sidecar.reasons import Reason, Refusal

if TYPE_CHECKING:
    from sidecar.proxy.exchange import Exchange

UNROUTED: Final = "_none"  # the route of requests that reached none: malformed ones, and those that none matches
_NEVER_SLOW: Final = float("inf")
_REMEMBERED_LINES: Final = 1024


class Client(Protocol):
    """The client's side of one connection, as an exchange sees it."""

    peer: Peer
    queued_in: int
    transport: asyncio.Transport
    blocked: bool
    requests: int

    def hold(self, *, held: bool) -> None:
        """Read no more of the request's body, or go on."""

    def done(self, exchange: Exchange, keep: bool, now: float) -> None:  # noqa: FBT001 - hot path: positional
        """Go on with the next request, or close, now that the answer is written."""

    def cut(self, exchange: Exchange, *, delimited: bool) -> None:
        """End the connection so that the client sees an incomplete answer."""

    def detach(self) -> bytes | None:
        """Give the transport away; return what the client has sent already, or None when it sends no more."""


class Connection(Protocol):
    """The client's side of one connection, as the worker sees it."""

    active_at: float

    @property
    def idle(self) -> bool:
        """Tell whether no request is under way, nor has one begun to arrive."""

    def leave(self, now: float) -> None:
        """End with the request under way, or now when there is none."""

    def look(self, now: float) -> None:
        """See whether the client left while nothing was read from it."""

    def abort(self) -> None:
        """End at once."""


@dataclass(frozen=True, slots=True)
class Install:
    """
    What tells this install from every other one.

    Attributes:
        pseudonym: Its token in Via (RFC 9110, section 7.6.3).
        key: The secret behind the client keys that come from a header; the same in all workers and over restarts.
    """

    pseudonym: str
    key: bytes


class Route:
    """One route, bound to its guards and counters."""

    __slots__ = (
        "_rule", "admit", "by_address", "client_key", "counters", "failure_statuses", "guard", "marked", "max_body_bytes", "name",
        "outcomes", "response_timeout_s", "samples", "shaper", "slow_s", "upgrades",
    )  # fmt: skip

    def __init__(
        self,
        rule: RouteRule,
        guard: RouteGuard,
        counters: RouteCounters,
        samples: Samples,
        response_timeout_s: float,
        slow_s: float = _NEVER_SLOW,
        shaper: Shaper | None = None,
    ) -> None:
        self._rule = rule
        self.name = rule.name
        self.guard = guard
        self.shaper: Parks | None = shaper
        self.admit = guard.admit if shaper is None else shaper.admit
        self.counters = counters
        self.samples = samples
        self.client_key = rule.client_key
        self.by_address = rule.client_key == "address"
        self.max_body_bytes = rule.max_body_bytes
        self.failure_statuses = rule.failure_statuses
        self.outcomes: dict[int, Outcome] = {}
        self.response_timeout_s = response_timeout_s
        self.upgrades = frozenset(word.encode("ascii") for word in rule.upgrades)
        self.slow_s = slow_s
        self.marked: Reason | None = None

    def __repr__(self) -> str:
        return f"<Route {self.name}>"

    def counting(self, counters: RouteCounters, reason: Reason) -> Route:
        """Return the same route for a request that was admitted, is counted by *counters*, and told of with *reason*."""
        other = Route(self._rule, self.guard, counters, self.samples, self.response_timeout_s, self.slow_s)
        other.marked = reason
        return other

    def outcome_of(self, status: int) -> Outcome:
        """Return what a whole answer of *status* means; kept in `outcomes`."""
        found = self.outcomes[status] = classify(None, status, self.failure_statuses)
        return found


class Live:
    """One config version in force."""

    def __init__(
        self,
        compiled: Compiled,
        version: int,
        install: Install,
        guard: Guard,
        meter: Meter,
        tap: Tap,
        shapers: Mapping[str, Shaper],
    ) -> None:
        proxy = compiled.proxy
        self.policy: ProxyPolicy = proxy
        self.version = version
        self.hop = Hop(
            pseudonym=install.pseudonym, install_key=install.key, trusted=proxy.trusted, tracing=proxy.tracing
        )
        self._router = Router(proxy.routes)
        self._routes = {
            rule.name: _bind(rule, compiled, guard, meter, tap, shapers.get(rule.name)) for rule in proxy.routes
        }
        self._lines: Memory[bytes, Route] = Memory(_REMEMBERED_LINES)

    def __repr__(self) -> str:
        return f"<Live v{self.version} {list(self._routes)}>"

    @property
    def routes(self) -> dict[str, Route]:
        """Return all routes by name."""
        return self._routes

    def route_of(self, head: RequestHead) -> Route | Refusal:
        """Return whose rules *head* meets. Where hosts make no difference a short request line says it, so it is remembered."""
        found = self._lines.kept.get(head.line)
        if found is not None and not head.readings:
            return found
        rule = self._router.route(head)
        if isinstance(rule, Refusal):
            return rule
        route = self._routes[rule.name]
        if head.regular and not (head.readings or self._router.asks_host):
            self._lines.keep(head.line, route)
        return route

    def key_of(self, route: Route, peer: Peer, head: RequestHead) -> str:
        """Return who the client of *head* is on *route*."""
        if route.by_address and not peer.trusted:
            return peer.key
        return self.hop.client_key(route.client_key, peer, head)


class Plane:
    """The data plane of one worker."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        install: Install,
        compiled: Compiled,
        version: int,
        tap: Tap,
        now: float,
        seed: str = "",
        room: Room = ANY,
        complain: Complain = unheard,
    ) -> None:
        self.loop = loop
        self.room = room
        self.wheel = Wheel(loop)
        self.outbox = Outbox(loop)
        self.guard = Guard(compiled.guard, now)
        self.meter = Meter()
        self.storm = Storm()
        self.storm.advises = compiled.guard.rearrivals is Mode.ENFORCE
        self.tap = tap
        self.witness = Witness(tap.send)
        self.draining = False
        self.emptied = asyncio.Event()
        self.connections: set[Connection] = set()
        self.tunnels = Tunnels(self)
        self.held: set[Connection] = set()
        self._install = install
        self.answered = 0
        self._shapers: dict[str, Shaper] = {}
        self._shape(compiled)
        self.live = Live(compiled, version, install, self.guard, self.meter, tap, self._shapers)
        self.pool = Pool(loop, self.wheel, compiled.proxy.upstream, seed or install.pseudonym, complain, room)
        self.retries = RetryBudget(now)
        nowhere = RouteRule(UNROUTED, Match())
        self.unrouted = Route(
            nowhere,
            self.guard.route(UNROUTED),
            self.meter.route(UNROUTED),
            tap.samples(UNROUTED),
            response_timeout_s=0.0,
        )

    def __repr__(self) -> str:
        return f"<Plane {self.live!r} {len(self.connections)} connections{' draining' if self.draining else ''}>"

    @property
    def in_flight(self) -> int:
        """Count the requests between admission and end."""
        return self.guard.in_flight

    def apply(self, compiled: Compiled, version: int, now: float) -> None:
        """
        Serve new requests under *compiled* from now on; those under way end under what they began with.

        Raises:
            CertificateError: when files for TLS to the API cannot be used; nothing is changed then.
        """
        self.pool.apply(compiled.proxy.upstream)
        self.guard.apply(compiled.guard, now)
        self.storm.advises = compiled.guard.rearrivals is Mode.ENFORCE
        gone = self._shape(compiled)
        self.live = Live(compiled, version, self._install, self.guard, self.meter, self.tap, self._shapers)
        for shaper in gone:
            shaper.close(now)

    def _shape(self, compiled: Compiled) -> list[Shaper]:
        """Have a queue for each route that shapes; return those that are needed no more."""
        wanted = {
            name: route.limit
            for name, route in compiled.guard.routes.items()
            if route.limit is not None and route.limit.mode is LimitMode.SHAPE
        }
        for name, limit in wanted.items():
            if name in self._shapers:
                self._shapers[name].apply(limit)
            else:
                self._shapers[name] = Shaper(self.loop, self.guard.route(name), limit)
        return [self._shapers.pop(name) for name in set(self._shapers) - set(wanted)]

    def left(self, connection: Connection) -> None:
        """Forget a connection that is gone."""
        self.connections.discard(connection)
        self.held.discard(connection)
        if self.draining and not self.connections:
            self.emptied.set()

    def drain(self, now: float) -> None:
        """Let every connection end with the request that it carries, those that carry none at once; then `emptied`."""
        self.draining = True
        self.emptied.clear()  # it may have been empty for a moment before it was to stay so
        if not self.connections:
            self.emptied.set()
        for shaper in self._shapers.values():
            shaper.drain(now)
        for connection in tuple(self.connections):
            connection.leave(now)

    def welcome(self, connection: Connection, descriptor: int) -> Refusal | None:
        """
        Count a new connection; when too many stand and none of them is idle, say why it must end.

        One that got one of the last descriptors must end in any case; idle ones make room for the next.
        """
        most = self.room.most(self.live.policy.downstream.max_connections)
        standing, scarce = len(self.connections), descriptor >= self.room.last
        full = (standing >= most or scarce) and (not self._make_room() or scarce)
        self.connections.add(connection)
        detail = "no descriptors are left" if scarce else f"{most} stand"
        return Refusal(Reason.CONCURRENCY_LIMITED, 1.0, "max_connections", detail) if full else None

    def crowded(self, descriptor: int) -> bool:
        """Tell whether a connection that was not welcome must end at once."""
        most = self.room.most(self.live.policy.downstream.max_connections)
        return self.room.crowded(len(self.connections), most, descriptor)

    def _make_room(self) -> bool:
        """Close the connections that are idle for longest, one in a hundred; False when none is idle."""
        count = max(1, len(self.connections) // 100)
        idle = nsmallest(count, (it for it in self.connections if it.idle), key=attrgetter("active_at"))
        for connection in idle:
            connection.abort()
        return bool(idle)

    def direct(self, directives: Sequence[Directive], now: float) -> None:
        """Take the full set of directives in force: those about endpoints are the pool's, all others the guard's."""
        self.guard.direct(directives, now)
        self.pool.direct(directives, now)
        self.tunnels.direct(tuple(directives), end=self.live.policy.end_tunnels)

    def second(self, now: float) -> None:
        """Let time act on what is shared (about once a second)."""
        self.retries.note(self.pool.asked, now)
        routes = self.live.routes.items()
        self.storm.second({name: (it.counters.arrivals, it.counters.again) for name, it in routes}, now)
        self.pool.tls.turn()

    def look_at_held(self, now: float) -> None:
        """Find the clients that left while we did not read from them (about twice a second)."""
        for connection in tuple(self.held):
            connection.look(now)

    def close(self) -> None:
        """End everything at once."""
        for connection in tuple(self.connections):
            connection.abort()
        self.pool.close()


def _bind(rule: RouteRule, compiled: Compiled, guard: Guard, meter: Meter, tap: Tap, shaper: Shaper | None) -> Route:
    policy = compiled.guard.routes.get(rule.name)
    breaker = policy.breaker if policy is not None else None
    return Route(
        rule,
        guard.route(rule.name),
        meter.route(rule.name),
        tap.samples(rule.name),
        rule.response_timeout_s or compiled.proxy.upstream.response_timeout_s,
        _NEVER_SLOW if breaker is None or breaker.slow_s is None else breaker.slow_s,
        shaper,
    )
