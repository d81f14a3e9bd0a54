"""
After 101 (Switching Protocols): bytes both ways, whatever they mean (RFC 9110, section 7.8).

Theory
------
When the API agrees to the protocol that a request offered (`upgrade.py`), HTTP ends on both connections and their
transports belong to a tunnel. The handshake met all guards and is settled when it is answered, so a tunnel holds no
permit: what bounds tunnels is the number of connections.

Tables
------
    on one side                  then
    bytes                        written to the other side; the tunnel is not idle
    the other side is full       this side is not read until it has taken everything: at most 64 KiB wait
    end of file                  the other side is ended too, but still read for `HALF_CLOSED_S` (not over TLS: closed)
    both have ended, or a reset  both are closed

    of the whole tunnel          then
    silence for `tunnel_timeout` both are closed
    draining                     goes on until the grace time is over
    a new isolation over it      both are closed, when `respond.end_tunnels` says so

What can go wrong
-----------------
* A side that does not take what was written before the end: `CLOSING_S` later both are cut.
* A client that leaves while it is not read: the kernel is asked twice a second (`look`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sidecar import clock
from sidecar.facts import Action, Directive, Scope, ScopeKind
from sidecar.proxy.transport import NOWHERE, READ_BUFFER, READ_VIEW, has_left
from sidecar.proxy.upstream import Upstream

if TYPE_CHECKING:
    from sidecar.proxy.plane import Plane

HALF_CLOSED_S: Final = 10.0  # HAProxy's timeout client-fin and server-fin are for this
CLOSING_S: Final = 2.0


class Side(asyncio.BufferedProtocol):
    """One of the two connections of a tunnel."""

    __slots__ = ("_tunnel", "ended", "full", "other", "passed_bytes", "reads", "transport")
    other: Side

    def __init__(self, tunnel: Tunnel, transport: asyncio.Transport) -> None:
        self._tunnel = tunnel
        self.transport = transport
        self.passed_bytes = 0
        self.ended = self.full = False
        self.reads = True

    def __repr__(self) -> str:
        return f"<Side {self.passed_bytes} bytes{' ended' if self.ended else ''}{' full' if self.full else ''}>"

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002  one buffer serves all
        """Offer the shared buffer."""
        return READ_BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on what came."""
        self.push(bytes(READ_VIEW[:nbytes]))
        self._tunnel.moved()

    def push(self, data: bytes) -> None:
        """Write what this side has sent to the other one."""
        self.passed_bytes += len(data)
        self.other.transport.write(data)
        if self.other.full:
            self.read(reads=False)

    def eof_received(self) -> bool:
        """Learn that this side sends no more."""
        self.ended = True
        return self._tunnel.half_closed(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Learn that the connection is gone."""
        self.transport = NOWHERE
        self._tunnel.lost(flush=exc is None)

    def pause_writing(self) -> None:
        """Learn that this side does not keep up."""
        self.full = True
        self.other.read(reads=False)

    def resume_writing(self) -> None:
        """Learn that this side has taken everything."""
        self.full = False
        self.other.read(reads=True)

    def read(self, *, reads: bool) -> None:
        """Read from this side, or not."""
        if reads is not self.reads and not self.transport.is_closing():
            self.reads = reads
            if reads:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()
            self._tunnel.held()


class Tunnel:
    """
    Two connections that have left HTTP.

    Args:
        client: The client's transport.
        upstream: The API's connection; for the pool it is in use until the tunnel ends.
        route, key: Whose it is: what a directive may be about, beside the endpoint.
        ended: Is told once, with the bytes that went up and down.
    """

    __slots__ = ("_api", "_client", "_ended", "_idle_s", "_plane", "_scopes", "_timer", "_upstream", "active_at")
    idle = False  # never makes room for others by itself

    def __init__(
        self,
        plane: Plane,
        client: asyncio.Transport,
        upstream: Upstream,
        route: str,
        key: str,
        ended: Callable[[int, int], None],
    ) -> None:
        self._plane = plane
        self._client = Side(self, client)
        self._api = Side(self, upstream.transport)
        self._client.other, self._api.other = self._api, self._client
        self._upstream = upstream
        self._scopes = Scope.client(route, key), Scope(ScopeKind.ENDPOINT, upstream.home.label)
        self._idle_s = plane.live.policy.downstream.tunnel_timeout_s
        self._ended: Callable[[int, int], None] | None = ended
        self._timer = plane.wheel.timer(self._expired)
        self.active_at = clock.now()
        plane.tunnels.enter(self)

    def __repr__(self) -> str:
        return f"<Tunnel {self.carried}>"

    @property
    def carried(self) -> tuple[int, int]:
        """Return how many bytes went up and down."""
        return self._client.passed_bytes, self._api.passed_bytes

    def begin(self, up: bytes | None, down: bytes) -> None:
        """
        Take the two connections over.

        Args:
            up: What came from the client already; None when it sends no more.
            down: The 101, and what came behind it.
        """
        client, api = self._client, self._api
        client.transport.set_protocol(client)
        api.transport.set_protocol(api)
        client.transport.write(down)
        if up is None:
            self.end(flush=True)
            return
        if up:
            client.push(up)
        for side in (client, api):
            if not side.other.full and not side.transport.is_closing():
                side.transport.resume_reading()
        self.moved()

    def covered(self, directive: Directive) -> bool:
        """Tell whether *directive* isolates what this tunnel belongs to."""
        return directive.action is Action.ISOLATE and any(directive.scope.contains(scope) for scope in self._scopes)

    # --- what its sides say ------------------------------------------------------------------------------------------

    def moved(self) -> None:
        """Learn that a byte passed."""
        half_closed = self._client.ended or self._api.ended
        self._timer.set(clock.now() + (HALF_CLOSED_S if half_closed else self._idle_s))

    def half_closed(self, side: Side) -> bool:
        """End the other side's sending; return whether *side* stays open to be written to."""
        other = side.other
        if other.ended or not other.transport.can_write_eof() or not side.transport.can_write_eof():
            self.end(flush=True)
            return False
        if not other.transport.is_closing():
            other.transport.write_eof()
        self.moved()
        return True

    def lost(self, *, flush: bool) -> None:
        """Learn that a side is gone."""
        self.end(flush=flush)
        if self._client.transport is NOWHERE and self._api.transport is NOWHERE:
            self._timer.stop()

    def held(self) -> None:
        """Learn that a side is not read, or is again: then only the kernel knows whether it left."""
        if self._client.reads and self._api.reads:
            self._plane.held.discard(self)
        else:
            self._plane.held.add(self)

    # --- what the worker asks for --------------------------------------------------------------------------------------

    def leave(self, now: float) -> None:
        """Do nothing: it may go on until the grace time is over."""

    def look(self, now: float) -> None:  # noqa: ARG002  the kernel says it
        """End when a side left while nothing was read from it."""
        if any(not side.reads and has_left(side.transport) for side in (self._client, self._api)):
            self.end()

    def abort(self) -> None:
        """End at once."""
        self.end()

    def end(self, *, flush: bool = False) -> None:
        """Close both sides, after what is written when they may *flush*; only the first call is told."""
        ended, self._ended = self._ended, None
        for side in (self._client, self._api):
            if flush:
                side.transport.close()
            else:
                side.transport.abort()
        if ended is None:
            return
        self._timer.set(clock.now() + CLOSING_S)
        self._upstream.home.lost(self._upstream)
        self._plane.tunnels.leave(self)
        ended(*self.carried)

    def _expired(self, now: float) -> None:  # noqa: ARG002  the moment is in the deadline
        self.end()


class Tunnels:
    """
    All tunnels of one worker.

    Attributes:
        opened: Since the worker began.
    """

    __slots__ = ("_bytes", "_known", "_plane", "_standing", "opened")

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._standing: set[Tunnel] = set()
        self._known: frozenset[str] = frozenset()
        self._bytes = (0, 0)
        self.opened = 0

    def __repr__(self) -> str:
        return f"<Tunnels {len(self)} of {self.opened}>"

    def __len__(self) -> int:
        return len(self._standing)

    @property
    def carried(self) -> tuple[int, int]:
        """Return how many bytes went up and down so far, in all of them."""
        moving = [tunnel.carried for tunnel in self._standing]
        return self._bytes[0] + sum(up for up, _ in moving), self._bytes[1] + sum(down for _, down in moving)

    def enter(self, tunnel: Tunnel) -> None:
        """Take a new one."""
        self.opened += 1
        self._standing.add(tunnel)
        self._plane.connections.add(tunnel)

    def leave(self, tunnel: Tunnel) -> None:
        """Let one go that has ended."""
        self._standing.discard(tunnel)
        up, down = tunnel.carried
        self._bytes = (self._bytes[0] + up, self._bytes[1] + down)
        self._plane.left(tunnel)

    def direct(self, directives: tuple[Directive, ...], *, end: bool) -> None:
        """Take the full set of directives; *end* the tunnels that a new one isolates."""
        known, self._known = self._known, frozenset(directive.id for directive in directives)
        if end:
            for directive in directives:
                if directive.id not in known:
                    for tunnel in [each for each in self._standing if each.covered(directive)]:
                        tunnel.end()
