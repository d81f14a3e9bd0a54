"""
How a new connection to the API is made: endpoint after endpoint, address after address, within one bounded time.

Theory.   Only a new connection needs a task; it belongs to one exchange and ends with it. Trying the next endpoint is safe for every
          method: not one byte was sent. All attempts together have 1.25 times `connect_timeout`, so that "down" is said in a
          bounded time however many endpoints there are; each has half of what is left while another one waits for its turn, and
          never more than `connect_timeout`.

Tables.   a new connection                     then
          stands                               the exchange has it
          refused, unreachable, name unknown   the next one is tried; at the end 502 upstream_connect_failed
          no TLS comes of it                   the next one is tried; at the end 502 upstream_tls_failed
          not in its time                      the next one is tried; at the end 504 upstream_connect_timeout
          no descriptor is left, or but few    503 concurrency_limited: the fault is ours, and the endpoint's standing stays
          the client left                      the attempt is cancelled
"""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, Final, Protocol

from sidecar import clock
from sidecar.proxy.alerts import UpstreamTlsError
from sidecar.proxy.upstream import Upstream
from sidecar.reasons import Reason

if TYPE_CHECKING:
    from sidecar.proxy.pool import Backend, Pool

MOST_ENDPOINTS: Final = 4
ALL_ATTEMPTS: Final = 1.25
_EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_LAST_S: Final = 0.05


class Dialler(Protocol):
    """Who waits for a new connection."""

    def connected(self, upstream: Upstream, now: float) -> None:
        """Take the connection."""

    def broken(self, error: Exception) -> None:
        """Learn that we failed ourselves."""

    def not_connected(self, reason: Reason, detail: str, now: float) -> None:
        """Learn that no endpoint could be reached."""


class Dial:
    """One exchange's attempt to get a new connection."""

    __slots__ = ("_counted", "_dialler", "_first", "_late", "_pool", "_task", "_timer")

    def __init__(self, pool: Pool, first: Backend, dialler: Dialler) -> None:
        self._pool = pool
        self._first = first
        self._dialler: Dialler | None = dialler
        self._late = False
        self._timer = pool.wheel.timer(self._expired)
        self._counted: Backend | None = None
        self._count(first)
        self._task = pool.loop.create_task(self._run(), name=f"dial {first.label}")

    def __repr__(self) -> str:
        return f"<Dial {self._first.label}{' late' if self._late else ''}>"

    def cancel(self) -> None:
        """Give up: nobody waits any more."""
        self._dialler = None
        self._timer.stop()
        self._count(None)
        self._task.cancel()

    def _count(self, backend: Backend | None) -> None:
        """Be one of the requests that *backend* works on, from the moment of the choice: the next one falls in the same turn."""
        if self._counted is not None:
            self._counted.dialling -= 1
        self._counted = backend
        if backend is not None:
            backend.dialling += 1

    async def _run(self) -> None:
        try:
            await self._try()
        except Exception as error:  # nobody waits for this task: the exchange must hear of it
            if self._dialler is not None:
                self._dialler.broken(error)
        finally:
            self._count(None)

    async def _try(self) -> None:
        reason, detail = Reason.UPSTREAM_CONNECT_FAILED, "no endpoint"
        due_at = clock.now() + ALL_ATTEMPTS * self._pool.policy.connect_timeout_s
        backends = (self._first, *self._pool.others(self._first, clock.now())[: MOST_ENDPOINTS - 1])
        for waiting, backend in zip(range(len(backends) - 1, -1, -1), backends, strict=True):
            try:
                upstream = await self._reach(backend, due_at, waiting)
            except TimeoutError:
                reason = Reason.UPSTREAM_CONNECT_TIMEOUT
                detail = f"{backend.label} did not accept a connection in time"
            except UpstreamTlsError as error:
                reason = Reason.UPSTREAM_TLS_FAILED
                detail = f"{backend.label}: {error}"
                self._pool.tls.say(backend.label, error)
            except OSError as error:
                reason = Reason.UPSTREAM_CONNECT_FAILED
                detail = f"{backend.label}: {error.strerror or error}"
                if error.errno in _EXHAUSTED:
                    reason = Reason.CONCURRENCY_LIMITED
                    break
            else:
                backend.reached(clock.now())
                self._count(None)
                self._done(upstream)
                return
            backend.unreached(clock.now())
        if self._dialler is not None:
            self._dialler.not_connected(reason, detail, clock.now())

    def _done(self, upstream: Upstream) -> None:
        dialler, now = self._dialler, clock.now()
        if dialler is None:
            upstream.home.give(upstream, now)
        else:
            dialler.connected(upstream, now)

    async def _reach(self, backend: Backend, due_at: float, waiting: int) -> Upstream:
        """Return a connection to *backend*, while *waiting* endpoints may still be tried until *due_at*."""
        self._count(backend)
        if backend.endpoint.path:
            return await self._connect(backend, "", self._span_s(due_at, waiting))
        failure = OSError("no address")
        addresses = await self._pool.names.addresses(backend.endpoint.host)
        for left, address in zip(range(len(addresses) - 1, -1, -1), addresses, strict=True):
            try:
                return await self._connect(backend, address, self._span_s(due_at, waiting + left))
            except OSError as error:  # a timeout is one, too
                failure = error
                if error.errno in _EXHAUSTED:
                    break
                self._pool.names.failed(backend.endpoint.host, address)
        raise failure

    def _span_s(self, due_at: float, waiting: int) -> float:
        left_s = max(_LAST_S, due_at - clock.now())
        return min(self._pool.policy.connect_timeout_s, left_s / 2 if waiting else left_s)

    async def _connect(self, backend: Backend, address: str, span_s: float) -> Upstream:
        self._late = False
        self._timer.set(clock.now() + span_s)
        try:
            upstream = await backend.open_connection(address)
        except asyncio.CancelledError:
            if not self._late or self._dialler is None:
                raise
            self._task.uncancel()
            raise TimeoutError from None
        finally:
            self._timer.stop()
        sock = upstream.transport.get_extra_info("socket")  # None: the API has ended it already
        if sock is not None and sock.fileno() >= self._pool.room.very_last:
            upstream.drop()
            raise OSError(errno.EMFILE, "no descriptors are left")
        return upstream

    def _expired(self, now: float) -> None:  # noqa: ARG002  the moment is in the deadline
        self._late = True
        self._task.cancel()
