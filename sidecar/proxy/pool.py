"""
The connections to the API: which endpoint is next, which idle connection serves, and how a new one is made.

Theory
------
Taking an idle connection is synchronous: no waiter, no lock, no task, so a keep-alive request never leaves the call
stack of the read that brought it. Only a new connection needs a task (`Dial`), which belongs to one exchange and ends
with it. Connections wait in a stack: the last one used is the next one used, so a falling load lets the others expire.
How many requests run at once is the guards' part; the pool bounds what is idle.

Tables
------
    endpoint           is chosen
    healthy            in turn
    failed recently    not before `skip_until` (1 s, doubling to 30 s), unless all failed: then in turn, as if healthy
    the only one       always

    a new connection                     then
    stands                               the endpoint is healthy; the exchange has it
    refused, unreachable, name unknown   the next endpoint is tried; at the end 502 upstream_connect_failed
    not in `connect_timeout`             the next endpoint is tried; at the end 504 upstream_connect_timeout
    the client left                      the attempt is cancelled

What can go wrong
-----------------
* An idle connection that the API closed: `Upstream.is_fresh` sees it before use. It is a system call of 4 µs, so a
  request that may be repeated skips it on a connection that served another one in the last `HOT_S`: what closed
  in between is seen when it is used, and the request is repeated on a new connection. One that must not be repeated asks
  always.
* A config change removes an endpoint: its idle connections are closed, those in use end with their request.
* Trying the next endpoint is safe for every method: not one byte was sent.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from sidecar import clock
from sidecar.config.policies import Endpoint, UpstreamPolicy
from sidecar.proxy.deadline import Wheel
from sidecar.proxy.names import Names
from sidecar.proxy.upstream import Upstream
from sidecar.reasons import Reason

HOT_S: Final = 0.1
_FIRST_SKIP_S: Final = 1.0
_LONGEST_SKIP_S: Final = 30.0


class Dialler(Protocol):
    """Who waits for a new connection."""

    def connected(self, upstream: Upstream, now: float) -> None:
        """Take the connection."""

    def broken(self, error: Exception) -> None:
        """Learn that we failed ourselves."""

    def not_connected(self, reason: Reason, detail: str, now: float) -> None:
        """Learn that no endpoint could be reached."""


class Backend:
    """One endpoint with its idle connections and its recent failures."""

    __slots__ = ("_failures", "_pool", "closed", "endpoint", "idle", "label", "open", "skip_until")

    def __init__(self, endpoint: Endpoint, pool: Pool) -> None:
        self.endpoint = endpoint
        self.label = str(endpoint)
        self.idle: list[Upstream] = []
        self.open: set[Upstream] = set()
        self.closed = False
        self.skip_until = 0.0
        self._failures = 0
        self._pool = pool

    def __repr__(self) -> str:
        return f"<Backend {self.label} {len(self.open)} open {len(self.idle)} idle {self._failures} failures>"

    def new(self) -> Upstream:
        """Return a connection that is to be made."""
        return Upstream(self, self._pool.wheel)

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
        if self.closed or len(self.idle) >= policy.pool:
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

    def reached(self) -> None:
        """Learn that a connection was made."""
        self._failures = 0
        self.skip_until = 0.0

    def failed(self, now: float) -> None:
        """Learn that a connection could not be made."""
        self.skip_until = now + min(_LONGEST_SKIP_S, _FIRST_SKIP_S * 2**self._failures)
        self._failures = min(self._failures + 1, 10)

    def close(self) -> None:
        """End what is idle, and let what is in use end with its request."""
        self.closed = True
        while self.idle:
            self.idle.pop().drop()


class Pool:
    """All connections of one worker to the API."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wheel: Wheel, policy: UpstreamPolicy) -> None:
        self.policy = policy
        self.wheel = wheel
        self.loop = loop
        self.names = Names(loop)
        self.backends: tuple[Backend, ...] = tuple(Backend(endpoint, self) for endpoint in policy.endpoints)
        self.asked = 0
        self._turn = 0

    def __repr__(self) -> str:
        return f"<Pool {list(self.backends)}>"

    def apply(self, policy: UpstreamPolicy) -> None:
        """Run with *policy* from now on; connections to endpoints that stay are kept."""
        known = {backend.endpoint: backend for backend in self.backends}
        self.policy = policy
        self.backends = tuple(known.get(endpoint) or Backend(endpoint, self) for endpoint in policy.endpoints)
        for backend in set(known.values()).difference(self.backends):
            backend.close()

    def choose(self, now: float) -> Backend:
        """Return the endpoint whose turn it is."""
        self.asked += 1
        backends = self.backends
        count = len(backends)
        if count == 1:
            return backends[0]
        first = self._turn = (self._turn + 1) % count
        for step in range(count):
            backend = backends[(first + step) % count]
            if backend.skip_until <= now:
                return backend
        return backends[first]

    def dial(self, backend: Backend, dialler: Dialler) -> Dial:
        """Make a new connection for *dialler*, to *backend* first."""
        return Dial(self, backend, dialler)

    def close(self) -> None:
        """End all connections that are idle, and wait for no name."""
        self.names.close()
        for backend in self.backends:
            backend.close()


class Dial:
    """One exchange's attempt to get a new connection."""

    __slots__ = ("_dialler", "_first", "_late", "_pool", "_task", "_timer")

    def __init__(self, pool: Pool, first: Backend, dialler: Dialler) -> None:
        self._pool = pool
        self._first = first
        self._dialler: Dialler | None = dialler
        self._late = False
        self._timer = pool.wheel.timer(self._expired)
        self._task = pool.loop.create_task(self._run(), name=f"dial {first.label}")

    def __repr__(self) -> str:
        return f"<Dial {self._first.label}{' late' if self._late else ''}>"

    def cancel(self) -> None:
        """Give up: nobody waits any more."""
        self._dialler = None
        self._timer.stop()
        self._task.cancel()

    async def _run(self) -> None:
        reason, detail = Reason.UPSTREAM_CONNECT_FAILED, "no endpoint"
        for backend in self._candidates():
            try:
                upstream = await self._connect(backend)
            except TimeoutError:
                reason = Reason.UPSTREAM_CONNECT_TIMEOUT
                detail = f"{backend.label} did not accept within {self._pool.policy.connect_timeout_s:g} s"
            except OSError as error:
                reason = Reason.UPSTREAM_CONNECT_FAILED
                detail = f"{backend.label}: {error.strerror or error}"
            else:
                backend.reached()
                self._done(upstream)
                return
            backend.failed(clock.now())
            self._pool.names.failed(backend.endpoint.host)
        if self._dialler is not None:
            self._dialler.not_connected(reason, detail, clock.now())

    def _done(self, upstream: Upstream) -> None:
        dialler, now = self._dialler, clock.now()
        if dialler is None:
            upstream.home.give(upstream, now)
            return
        try:
            dialler.connected(upstream, now)
        except Exception as error:  # nobody waits for this task: the exchange must hear of it
            dialler.broken(error)

    def _candidates(self) -> tuple[Backend, ...]:
        now = clock.now()
        others = tuple(b for b in self._pool.backends if b is not self._first and b.skip_until <= now)
        return (self._first, *others)

    async def _connect(self, backend: Backend) -> Upstream:
        self._late = False
        self._timer.set(clock.now() + self._pool.policy.connect_timeout_s)
        try:
            return await self._try_addresses(backend)
        except asyncio.CancelledError:
            if not self._late or self._dialler is None:
                raise
            self._task.uncancel()
            raise TimeoutError from None
        finally:
            self._timer.stop()

    async def _try_addresses(self, backend: Backend) -> Upstream:
        failure = OSError("no address")
        for address in await self._pool.names.addresses(backend.endpoint.host):
            try:
                _, upstream = await self._pool.loop.create_connection(backend.new, address, backend.endpoint.port)
            except OSError as error:
                failure = error
            else:
                backend.open.add(upstream)
                return upstream
        raise failure

    def _expired(self, now: float) -> None:  # noqa: ARG002  the moment is in the deadline
        self._late = True
        self._task.cancel()
