"""
The connections to the API: which endpoint is next, and which idle connection serves.

Theory
------
Taking an idle connection is synchronous: no waiter, no lock, no task, so a keep-alive request never leaves the call
stack of the read that brought it. Only a new connection needs a task (`dial.py`). Connections wait in a stack: the last
one used is the next one used, so a falling load lets the others expire. How many requests run at once is the guards'
part; the pool bounds what is idle.

Who may be chosen changes rarely, so the turns of those that are in service are worked out when that changes
(`turns.py`), and a choice only walks on. Time acts four times a second (`turn`): rests end, slow starts grow.

Tables
------
    endpoints                                     are chosen
    the only one                                  always, unless an operator isolated it
    in service (`standing.py`)                    by weight, the less loaded one of two
    none is in service                            all in turn as if they were, but those that an operator isolated
    isolated by an operator (`endpoint:` scope)   never; when all are, requests are refused
    throttled by an operator                      by that share of their weight

What can go wrong
-----------------
* An idle connection that the API closed: `Upstream.is_fresh` sees it before use. It is a system call of 4 µs, so a
  request that may be repeated skips it on a connection that served another one in the last `HOT_S`: what closed
  in between is seen when it is used, and the request is repeated on a new connection. One that must not be repeated asks
  always.
* A config change removes an endpoint, or a name loses an address: idle connections to it are closed, those in use end
  with their request.
* Automation never ejects the last endpoint in service, nor more than a part of all (`ejection.max_ejected`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from sidecar import clock
from sidecar.config.policies import Endpoint, UpstreamPolicy
from sidecar.facts import Action, Directive, Mode, ScopeKind
from sidecar.proxy.alerts import Complain, unheard
from sidecar.proxy.deadline import Wheel
from sidecar.proxy.dial import Dial, Dialler
from sidecar.proxy.names import Names
from sidecar.proxy.room import ANY, Room
from sidecar.proxy.standing import Stand, Standing
from sidecar.proxy.turns import pairs
from sidecar.proxy.upstream import Home, Upstream
from sidecar.proxy.upstream_tls import UpstreamTls
from sidecar.reasons import Reason, Refusal

HOT_S: Final = 0.1
_OUTLIER: Final = 2.0
_LEAST_SHARE: Final = 0.01


class Backend:
    """
    One endpoint with its connections and its standing.

    Attributes:
        authority: Host for a request that names none.
        watched: The outcomes of its requests are judged: there are others that could serve in its place.
        dialling: Connections that are being made.
        weight: Its part of the requests now.
    """

    __slots__ = ("_pool", "authority", "closed", "dialling", "endpoint", "idle", "label", "open", "standing", "watched", "weight")  # fmt: skip

    def __init__(self, endpoint: Endpoint, pool: Pool, now: float) -> None:
        self.endpoint = endpoint
        self.label = str(endpoint)
        self.authority = b"localhost" if endpoint.path else self.label.encode("ascii")
        self.idle: list[Upstream] = []
        self.open: set[Upstream] = set()
        self.closed = False
        self.dialling = 0
        self.standing = Standing(pool.policy.ejection, f"{pool.seed}|endpoint:{self.label}", now)
        self.watched = False
        self.weight = 1.0
        self._pool = pool

    def __repr__(self) -> str:
        return f"<Backend {self.label} {len(self.open)} open {len(self.idle)} idle {self.standing!r}>"

    @property
    def in_flight(self) -> int:
        """Count the requests that it works on, and those that wait for a connection to it."""
        return len(self.open) - len(self.idle) + self.dialling

    def new(self) -> Upstream:
        """Return a connection that is to be made."""
        return Upstream(self, self._pool.wheel)

    async def open_connection(self, address: str) -> Upstream:
        """Return a new connection to *address*, one of its host's."""
        loop, endpoint = self._pool.loop, self.endpoint
        if endpoint.tls:
            upstream = await self._pool.tls.connect(self.new, endpoint, address)
        elif endpoint.path:
            _, upstream = await loop.create_unix_connection(self.new, endpoint.path)
        else:
            _, upstream = await loop.create_connection(self.new, address, endpoint.port)
        self.open.add(upstream)
        return upstream

    def take(self, hot_after: float) -> Upstream | None:
        """
        Return the idle connection that was used last; None when there is none that still stands.

        Args:
            hot_after: One that was given back after this moment is taken unasked (see the essay).
        """
        idle = self.idle
        while idle:
            upstream = idle.pop()
            if upstream.idle_since > hot_after or upstream.is_fresh():
                return upstream
            upstream.drop()
        return None

    def give(self, upstream: Upstream, now: float) -> None:
        """Keep *upstream* for the next request, when there is room."""
        policy = self._pool.policy
        if self.closed or upstream.retired or len(self.idle) >= policy.pool:
            upstream.drop()
        else:
            self.idle.append(upstream)
            upstream.idle_since = now
            upstream.timer.set(now + policy.idle_timeout_s)

    def lost(self, upstream: Upstream) -> None:
        """Forget a connection that is gone."""
        self.open.discard(upstream)
        if upstream in self.idle:
            self.idle.remove(upstream)

    def judge(self, now: float, *, failed: bool) -> None:
        """Learn what a request came to."""
        if self.standing.ended(now, failed=failed):
            self._pool.suspect(self, now)

    def reached(self, now: float) -> None:
        """Learn that a connection was made."""
        if self.standing.reached(now):
            self._pool.arrange(now)

    def unreached(self, now: float) -> None:
        """Learn that a connection could not be made."""
        self.standing.unreached(now)
        self._pool.arrange(now)

    def moved(self, addresses: Sequence[str]) -> None:
        """Let go of the connections to addresses that the host has no longer."""
        for upstream in tuple(self.open):
            peer = upstream.transport.get_extra_info("peername")
            if peer and peer[0] not in addresses:
                self._retire(upstream)

    def renew(self) -> None:
        """Let go of all connections: others are to be made in their place."""
        for upstream in tuple(self.open):
            self._retire(upstream)

    def _retire(self, upstream: Upstream) -> None:
        upstream.retired = True
        if upstream in self.idle:
            upstream.drop()

    def close(self) -> None:
        """End what is idle, and let what is in use end with its request."""
        self.closed = True
        while self.idle:
            self.idle.pop().drop()


class Pool:
    """All connections of one worker to the API; `asked` counts the choices made, `room` is what descriptors allow."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        wheel: Wheel,
        policy: UpstreamPolicy,
        seed: str = "",
        complain: Complain = unheard,
        room: Room = ANY,
    ) -> None:
        now = clock.now()
        self.room = room
        self.tls = UpstreamTls(loop, policy, complain)
        self.policy = policy
        self.wheel = wheel
        self.loop = loop
        self.seed = seed
        self.asked = 0
        self.names = Names(loop, policy.resolve_s, self._moved, complain)
        self.backends: tuple[Backend, ...] = tuple(Backend(endpoint, self, now) for endpoint in policy.endpoints)
        self._unhealthy: Mapping[str, float] = {}
        self._directives: tuple[Directive, ...] = ()
        self._only: Backend | None = None
        self._turns: list[tuple[Backend, Backend]] = []
        self._turn = 0
        self._stands: tuple[Stand, ...] = ()
        self._starting = False
        self.arrange(now)

    def __repr__(self) -> str:
        return f"<Pool {list(self.backends)}>"

    # --- the request's side ------------------------------------------------------------------------------------------

    def choose(self) -> Backend | None:
        """Return the endpoint whose turn it is; None when an operator isolated them all."""
        self.asked += 1
        turns = self._turns
        if not turns:
            return self._only
        self._turn = turn = self._turn + 1 if self._turn + 1 < len(turns) else 0
        one, two = turns[turn]
        of_one, of_two = (
            len(one.open) - len(one.idle) + one.dialling,
            len(two.open) - len(two.idle) + two.dialling,
        )  # in_flight, without a call
        return two if of_two * one.weight < of_one * two.weight else one

    def others(self, than: Home, now: float) -> list[Backend]:
        """Return who may serve in the place of *than*, those in service first, the least loaded one first."""
        found = [backend for backend in self._allowed() if backend is not than]
        found.sort(key=lambda each: (each.standing.stand(now) is not Stand.UP, each.in_flight / each.weight))
        serving = [backend for backend in found if backend.standing.stand(now) is Stand.UP]
        return serving or found

    def again(self, than: Home, now: float) -> Backend | None:
        """Return who serves a request that *than* has failed: another one, when there is one."""
        others = self.others(than, now)
        return others[0] if others else self.choose()

    def refusal(self, now: float) -> Refusal:
        """Say why no endpoint may be chosen."""
        first_end_at = min((item.end_at for item in self._directives), default=now)
        detail = "every endpoint is isolated: see `sidecar override list`"
        return Refusal(Reason.OVERRIDDEN, max(0.0, first_end_at - now), "override-endpoint", detail)

    def dial(self, backend: Backend, dialler: Dialler) -> Dial:
        """Make a new connection for *dialler*, to *backend* first."""
        return Dial(self, backend, dialler)

    # --- who is in service -------------------------------------------------------------------------------------------

    def suspect(self, backend: Backend, now: float) -> None:
        """Eject *backend* when it does clearly worse than the others, and enough of them are left."""
        policy = self.policy.ejection
        failures, judged = backend.standing.failures(now)
        others = [each.standing.failures(now) for each in self.backends if each is not backend]
        their_failures, their_judged = sum(row[0] for row in others), sum(row[1] for row in others)
        if their_judged and their_failures / their_judged * _OUTLIER > failures / max(1, judged):
            return
        stands = [each.standing.stand(now) for each in self.backends]
        ejected, serving = stands.count(Stand.EJECTED), stands.count(Stand.UP)
        most = max(1, int(policy.max_ratio * len(self.backends)))
        if policy.mode is Mode.ENFORCE and (ejected >= most or serving <= 1):
            return
        backend.standing.eject(now)
        self.arrange(now)

    def direct(self, directives: Sequence[Directive], now: float) -> None:
        """Take the full set of directives in force; those about endpoints rule here."""
        self._directives = tuple(item for item in directives if item.scope.kind is ScopeKind.ENDPOINT)
        self.arrange(now)

    def check(self, unhealthy: Mapping[str, float], now: float) -> None:
        """Take the endpoints that failed their health checks, each with the moment until which that counts."""
        self._unhealthy = unhealthy
        self.arrange(now)

    def turn(self, now: float) -> None:
        """Let time act: about four times a second."""
        self.names.turn(now)
        if self._starting or tuple(each.standing.stand(now) for each in self.backends) != self._stands:
            self.arrange(now)
        elif any(item.end_at <= now for item in self._directives):
            self.direct([item for item in self._directives if item.end_at > now], now)

    def arrange(self, now: float) -> None:
        """Work out the turns anew."""
        for backend in self.backends:
            self._look(backend, now)
        stands = tuple(backend.standing.stand(now) for backend in self.backends)
        for backend, stand, before in zip(self.backends, stands, self._stands, strict=False):
            if stand is Stand.UP and before in (Stand.EJECTED, Stand.UNHEALTHY, Stand.ISOLATED):
                backend.standing.came_back(now)
        self._stands = stands
        serving = [backend for backend, stand in zip(self.backends, stands, strict=True) if stand is Stand.UP]
        starts = [backend.standing.start_ratio(self.policy.slow_start_s, now) for backend in serving]
        self._starting = len(serving) > 1 and min(starts) < 1.0
        for backend, start in zip(serving, starts, strict=True):
            backend.weight *= start
        self._take_turns(serving or self._allowed())

    def states(self, now: float) -> dict[str, tuple[str, int, int]]:
        """Return (standing, requests in flight, ejections so far) of each endpoint."""
        return {
            each.label: (each.standing.stand(now).value, each.in_flight, each.standing.ejections)
            for each in self.backends
        }

    def _look(self, backend: Backend, now: float) -> None:
        """Let what others say of *backend* reach its standing."""
        standing = backend.standing
        standing.checked(self._unhealthy.get(backend.label))
        mine = [item for item in self._directives if item.scope.name == backend.label and item.end_at > now]
        ruling = mine[-1] if mine else None
        standing.isolated = ruling is not None and ruling.action is Action.ISOLATE
        throttled = ruling is not None and ruling.action is Action.THROTTLE and ruling.share_ratio is not None
        share = max(_LEAST_SHARE, ruling.share_ratio or 0.0) if ruling is not None and throttled else 1.0
        backend.weight = backend.endpoint.weight * share
        spared = ruling is not None and ruling.action in (Action.ALLOW, Action.OBSERVE)
        backend.watched = len(self.backends) > 1 and self.policy.ejection.mode is not Mode.OFF and not spared

    def _allowed(self) -> list[Backend]:
        return [backend for backend in self.backends if not backend.standing.isolated]

    def _take_turns(self, serving: Sequence[Backend]) -> None:
        if len(serving) < 2:
            self._only, self._turns = serving[0] if serving else None, []
            return
        made = pairs([backend.weight for backend in serving], self.seed)
        self._turns = [(serving[one], serving[two]) for one, two in made]

    # --- changes -----------------------------------------------------------------------------------------------------

    def apply(self, policy: UpstreamPolicy) -> None:
        """Run with *policy* from now on; connections to endpoints that stay are kept, and so is what is known of them."""
        now = clock.now()
        known = {backend.endpoint.place: backend for backend in self.backends}
        if self.tls.apply(policy):  # before all else: its files may be refused
            for backend in self.backends:
                if backend.endpoint.tls:
                    backend.renew()
        self.policy = policy
        self.names.refresh_s = policy.resolve_s
        self.backends = tuple(
            known.get(endpoint.place) or Backend(endpoint, self, now) for endpoint in policy.endpoints
        )
        for backend, endpoint in zip(self.backends, policy.endpoints, strict=True):
            backend.endpoint = endpoint
            backend.standing.apply(policy.ejection, now)
        for backend in set(known.values()).difference(self.backends):
            backend.close()
        self.names.keep(frozenset(endpoint.host for endpoint in policy.endpoints))
        self._stands = ()
        self.arrange(now)

    def resolve(self) -> None:
        """Look up the endpoints' names before the first request, so that a wrong one is known at once."""
        self.names.expect(backend.endpoint.host for backend in self.backends)

    def close(self) -> None:
        """End all connections that are idle, and wait for no name."""
        self.names.close()
        for backend in self.backends:
            backend.close()

    def _moved(self, name: str, addresses: Sequence[str]) -> None:
        for backend in self.backends:
            if backend.endpoint.host == name:
                backend.moved(addresses)
