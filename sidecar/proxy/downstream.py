"""
The client's side: one connection over its whole life, request after request. The machine's essay is in `reading.py`.
"""

from __future__ import annotations

import asyncio
import socket
from typing import cast

from sidecar import clock
from sidecar.proxy import refusing
from sidecar.proxy.body import Body
from sidecar.proxy.exchange import Exchange
from sidecar.proxy.framing import KNOWN_BYTES, KNOWN_HEADS, MAX_HEAD_BYTES, find_head_end, parse_request_head
from sidecar.proxy.hop import Peer
from sidecar.proxy.linger import Lingering
from sidecar.proxy.outbox import NEVER
from sidecar.proxy.plane import Plane
from sidecar.proxy.reading import (
    BODY_LATE,
    GATHER_S,
    HALF_CLOSED_S,
    HEAD_CUT,
    HEAD_LATE,
    IN_A_ROW,
    LAST_REQUEST_S,
    PIECES,
    Reading,
)
from sidecar.proxy.scan import judge_request
from sidecar.proxy.transport import NOWHERE, READ_BUFFER, READ_BYTES, READ_VIEW, has_left, reset_on_close
from sidecar.reasons import Reason, Refusal

_HEAD, _ANSWER, _CLOSED = Reading.HEAD, Reading.ANSWER, Reading.CLOSED  # the hot path: an enum's attribute costs 30 ns


class Downstream(asyncio.BufferedProtocol):
    """One connection of a client."""

    __slots__ = (
        "_backlog", "_body", "_eof", "_held", "_looping", "_pending", "_pieces", "_plane", "_reading", "_timer",
        "active_at", "blocked", "exchange", "peer", "queued_in", "requests", "transport",
    )  # fmt: skip

    def __init__(self, plane: Plane) -> None:
        self.transport: asyncio.Transport = NOWHERE
        self.peer: Peer = plane.live.hop.peer(None)
        self.requests = 0
        self.blocked = False
        self.exchange: Exchange | None = None
        self.active_at = clock.now()
        self.queued_in = NEVER
        self._plane = plane
        self._timer = plane.wheel.timer(self._expired)
        self._reading = Reading.HEAD
        self._pending, self._pieces = b"", 0
        self._body: Body | None = None
        self._looping = self._held = self._eof = self._backlog = False

    def __repr__(self) -> str:
        return f"<Downstream {self.peer.address} {self._reading.value} after {self.requests} requests>"

    # --- the event loop's side -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Welcome the client, or refuse it."""
        made = self.transport = cast("asyncio.Transport", transport)  # uvloop's is one but does not derive from it
        try:
            made.set_write_buffer_limits(0)
            name = made.get_extra_info("peername")
            self._welcome(str(name[0]) if name else None)
        except Exception as error:  # an exception here would leak the descriptor
            self._broken(error)

    def get_buffer(self, sizehint: int) -> bytearray | memoryview:  # noqa: ARG002  the loop's wish exceeds our bound
        """Offer the shared buffer, or as much of it as this connection may still keep."""
        if self._pending:
            return READ_VIEW[: READ_BYTES - len(self._pending)]
        return READ_BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Take what the client sent."""
        try:
            if self._reading is _HEAD and not self._pending and not self.blocked:
                self._serve(READ_VIEW[:nbytes].tobytes())
            else:
                self._received(nbytes)
        except Exception as error:  # one request's fault must not reach the event loop
            self._broken(error)

    def eof_received(self) -> bool:
        """Learn that the client sends no more."""
        self._eof = True
        now = clock.now()
        match self._reading:
            case Reading.HEAD:
                if not self._pending:
                    self._linger()
                elif not self._backlog and not self.blocked:
                    self._reject(HEAD_CUT, now)
            case Reading.BODY | Reading.REST:
                self.abort()
            case Reading.ANSWER:
                self._timer.set(now + HALF_CLOSED_S)
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  why it ended changes nothing
        """Learn that the connection is gone."""
        self.abort()

    def pause_writing(self) -> None:
        """Learn that the client does not keep up."""
        self.blocked = True

    def resume_writing(self) -> None:
        """Learn that the client has taken everything."""
        self.blocked = False
        if self.exchange is not None:
            self.exchange.client_ready()
        elif self._reading is Reading.HEAD and self._pending and not self._looping:
            self._go_on()

    # --- requests ------------------------------------------------------------------------------------------------

    def _welcome(self, address: str | None) -> None:
        plane, now = self._plane, clock.now()
        sock = self.transport.get_extra_info("socket")
        if address is None and sock.family != socket.AF_UNIX:
            self.transport.abort()
            return
        secured = self.transport.get_extra_info("ssl_object")
        shown = (secured.getpeercert(binary_form=True) or b"") if secured is not None else b""
        self.peer = plane.live.hop.peer(address, "http" if secured is None else "https", shown)
        refusal = plane.welcome(self, sock.fileno())
        if refusal is not None and plane.crowded(sock.fileno()):
            self._turn_away(refusal, now)
        elif refusal is not None:
            self._reject(refusal, now)
        else:
            self._timer.set(now + plane.live.policy.downstream.idle_timeout_s)

    def _received(self, nbytes: int) -> None:
        match self._reading:
            case Reading.HEAD if not self.blocked and not self._backlog:
                self._serve(self._pending + READ_VIEW[:nbytes], len(self._pending))
            case Reading.BODY:
                self._read_body(READ_VIEW[:nbytes].tobytes())
            case Reading.ANSWER | Reading.HEAD:
                self._pending += READ_VIEW[:nbytes]
                self._backlog = True
                if len(self._pending) >= READ_BYTES:
                    self._hold_reading(held=True)
            case Reading.REST:
                self._read_rest(READ_VIEW[:nbytes].tobytes())

    def _serve(self, data: bytes, seen: int = 0) -> None:
        """Serve the requests in *data* one after the other, as far as they are answered at once."""
        plane, turns = self._plane, IN_A_ROW
        if self.queued_in == plane.outbox.turn:
            plane.outbox.flush()
        self._looping = True
        self._backlog, self._pending = False, b""
        while True:
            now = clock.now()
            head = KNOWN_HEADS.get(data) if len(data) <= KNOWN_BYTES else None
            if head is not None:
                data = b""
            else:
                end = find_head_end(data, seen)
                if end < 0 or end > MAX_HEAD_BYTES:
                    self._looping = False
                    self._wait_for_head(data, seen, now)
                    return
                read = parse_request_head(data[:end])
                if isinstance(read, Refusal):
                    self._looping = False
                    self._reject(read, now)
                    return
                head, data = read, data[end:]
            self.requests += 1
            exchange = Exchange(plane, self, head, now)
            if exchange.request_done:
                self._wait_for_answer(exchange, now)
                exchange.begin(b"", now)
            else:
                data = self._begin_body(exchange, data, now)
            if self.exchange is not None or self._reading is not _HEAD or self.blocked:
                break
            seen, turns = 0, turns - 1
            if not turns:
                plane.loop.call_soon(self._go_on)
                break
        self._looping = False
        if data or self.blocked:
            self._keep(data, now)

    def _keep(self, data: bytes, now: float) -> None:
        """Keep requests for later: until there is an answer, or until the client has taken those that there are."""
        if data and self._reading is not _CLOSED:
            self._pending, self._backlog = data, True
        if self.blocked and self._reading is _HEAD:
            self._wait_for_reader(now)

    def _begin_body(self, exchange: Exchange, rest: bytes, now: float) -> bytes:
        """Begin an exchange that has a body; return the bytes that belong to the next request."""
        self.exchange = exchange
        self._reading, self._body = Reading.BODY, exchange.body
        payload, used = exchange.body.feed(rest)
        if exchange.body.complete:
            self._body_done(exchange, now)
        else:
            self._timer.set(now + self._plane.live.policy.downstream.body_timeout_s)
        exchange.begin(payload, now)
        return rest[used:]

    def _wait_for_head(self, data: bytes, seen: int, now: float) -> None:
        """Wait for the rest of a head that can still become valid, or for the next one."""
        self._pending = data
        if not data:
            self._idle(now)
            return
        refusal = judge_request(data, seen)
        if refusal is None and self._eof:
            refusal = HEAD_CUT
        if refusal is not None:
            self._reject(refusal, now)
        elif not seen:
            self._pieces = 1
            self._timer.set(now + self._plane.live.policy.downstream.head_timeout_s)
        else:
            self._pieces += 1
            if self._pieces > PIECES:
                self._hold_reading(held=True)
                self._plane.loop.call_later(GATHER_S, self._gathered)

    def _gathered(self) -> None:
        """Read on, after a moment in which the pieces of a head gathered in the kernel."""
        if self._held and self._reading is _HEAD and self.exchange is None and not self.blocked and not self._backlog:
            self._hold_reading(held=False)

    def _wait_for_reader(self, now: float) -> None:
        """Serve nothing more before the client has taken its answers; it has the time of an idle one for that."""
        self._timer.set(now + self._plane.live.policy.downstream.idle_timeout_s)

    def _idle(self, now: float) -> None:
        if self._eof or self._plane.draining:
            self._linger()
        else:
            self.active_at = now
            self._timer.set(now + self._plane.live.policy.downstream.idle_timeout_s)

    def _read_body(self, data: bytes) -> None:
        exchange, body, now = self.exchange, self._body, clock.now()
        assert exchange is not None
        assert body is not None
        payload, used = body.feed(data)
        if body.problem:
            exchange.fail(Refusal(Reason.BAD_REQUEST, 0.0, "framing", body.problem), now)
            return
        if body.complete:
            self._body_done(exchange, now)
            self._pending = data[used:]
        else:
            self._timer.set(now + self._plane.live.policy.downstream.body_timeout_s)
        exchange.request_body(payload, now)

    def _body_done(self, exchange: Exchange, now: float) -> None:
        exchange.request_done = True
        self._body = None
        self._wait_for_answer(exchange, now)

    def _wait_for_answer(self, exchange: Exchange, now: float) -> None:
        """Wait for the answer; the deadline that was set has no effect any more, see `_expired`."""
        self.exchange = exchange
        self._reading = _ANSWER
        if self._eof:
            self._timer.set(now + HALF_CLOSED_S)

    def _read_rest(self, data: bytes) -> None:
        body = self._body
        assert body is not None
        _, used = body.feed(data)
        if body.problem:
            self.abort()
        elif body.complete:
            self._body = None
            self._reading = Reading.HEAD
            self._pending = data[used:]
            self._go_on()

    def _go_on(self) -> None:
        """Serve what waits."""
        if self._reading is not _HEAD or self.exchange is not None:
            return
        if self.blocked:
            self._wait_for_reader(clock.now())
            return
        if self._held:
            self._hold_reading(held=False)
        self._serve(self._pending)

    # --- what the exchange asks for ------------------------------------------------------------------------------

    def hold(self, *, held: bool) -> None:
        """Read no more of the request's body, or go on."""
        if held != self._held and self._reading is Reading.BODY:
            self._hold_reading(held=held)

    def done(self, exchange: Exchange, keep: bool, now: float) -> None:  # noqa: FBT001 - hot path: positional
        """Go on with the next request, or close, now that the answer is written."""
        if self.exchange is not exchange:
            return
        self.exchange = None
        if self._held and not (self.blocked and self._pending):
            self._hold_reading(held=False)
        if not keep:
            self._linger()
        elif self._reading is _ANSWER:
            self._reading = _HEAD
            if not self._looping:
                if self._pending:
                    self._go_on()
                else:
                    self._idle(now)
        elif self._reading is Reading.BODY:
            self._reading = Reading.REST

    def cut(self, exchange: Exchange, *, delimited: bool) -> None:
        """End the connection so that the client sees an incomplete answer: by a reset when its end has no other mark."""
        if self.exchange is exchange:
            self.exchange = None
            if delimited and not self.blocked:
                self._linger()
            else:
                reset_on_close(self.transport)
                self.abort()

    def detach(self) -> bytes | None:
        """Give the transport away; return what the client has sent already, or None when it sends no more."""
        self.exchange, pending = None, self._pending
        self._retire()
        return None if self._eof else pending

    # --- what the worker asks for --------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Tell whether no request is under way, nor has one begun to arrive."""
        return self._reading is Reading.HEAD and self.exchange is None and not self._pending

    def leave(self, now: float) -> None:
        """
        End now when the connection has been idle for a moment; one that is in use ends with its next answer.

        A busy client's next request is likely on its way: closing under it would fail it.
        """
        if self.idle:
            self._timer.set(max(now, self.active_at + LAST_REQUEST_S))

    def look(self, now: float) -> None:  # noqa: ARG002  the kernel says it
        """End when the client left while nothing was read from it."""
        if has_left(self.transport):
            self.abort()

    def abort(self) -> None:
        """End at once; an exchange under way learns that the client is gone."""
        exchange, self.exchange = self.exchange, None
        self._retire().abort()
        if exchange is not None:
            exchange.client_left(clock.now())

    # --- the end -------------------------------------------------------------------------------------------------

    def _reject(self, refusal: Refusal, now: float) -> None:
        """Answer what is no request, and end."""
        self._flush()
        self.transport.write(refusing.reject(self._plane, self.peer, refusal, now))
        self._linger()

    def _turn_away(self, refusal: Refusal, now: float) -> None:
        """Answer, and end without waiting for the client: there is no room to wait in."""
        self.transport.write(refusing.reject(self._plane, self.peer, refusal, now))
        self._retire().close()

    def _linger(self) -> None:
        """Leave the rest to `Lingering`: nothing that this client sends is read any more."""
        transport = self._retire()
        if not transport.is_closing():
            Lingering(self._plane, transport, client_ended=self._eof)

    def _flush(self) -> None:
        """Have the last answer written, if it still waits."""
        if self.queued_in == self._plane.outbox.turn:
            self._plane.outbox.flush()

    def _retire(self) -> asyncio.Transport:
        """Let go of everything; return the transport."""
        self._flush()
        self._reading = Reading.CLOSED
        self._timer.stop()
        self._plane.left(self)
        self._pending, self._body = b"", None
        transport, self.transport = self.transport, NOWHERE
        return transport

    def _hold_reading(self, *, held: bool) -> None:
        self._held = held
        if held:
            self._plane.held.add(self)
            self.transport.pause_reading()
        else:
            self._plane.held.discard(self)
            if not self.transport.is_closing() and not self._eof:
                self.transport.resume_reading()

    def _expired(self, now: float) -> None:
        match self._reading:
            case Reading.HEAD if self._backlog and not self.blocked:
                pass  # set for an earlier head: whole requests wait, and it is our turn
            case Reading.HEAD if self._pending and not self.blocked:
                self._reject(HEAD_LATE, now)
            case Reading.HEAD if not self.blocked:
                self._linger()
            case Reading.BODY if self._held:
                self._timer.set(now + self._plane.live.policy.downstream.body_timeout_s)
            case Reading.BODY if self.exchange is not None:
                self.exchange.fail(BODY_LATE, now)
            case Reading.ANSWER if not self._eof:
                pass  # set before the request was whole: waiting for the answer is the API's time, not the client's
            case Reading.ANSWER if self.exchange is not None and self.exchange.flows():
                self._timer.set(now + HALF_CLOSED_S)
            case _:
                self.abort()

    def _broken(self, error: Exception) -> None:
        """End a connection on which we failed ourselves; say what happened."""
        exchange = self.exchange
        try:
            if exchange is not None:
                exchange.broken(error)
            else:
                self._plane.loop.call_exception_handler({"message": "a connection failed", "exception": error})
        finally:
            if exchange is None or self.exchange is exchange:
                self.abort()
