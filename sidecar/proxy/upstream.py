"""
The API's side: one connection to one endpoint, over its whole life.

Theory
------
A connection carries one request at a time and knows only two things about it: where the answer's head and body end
(`framing.py`), and whom to tell (`Caller`, in practice an `Exchange`). It decides nothing: which answer is passed on,
what a failure means and when to give up is the exchange's part.

Reading goes through one buffer of 64 KiB that all connections of the worker share: what is in it is copied out before
the event loop reads the next socket, so an idle connection costs no buffer and no read is larger than 64 KiB. The write
buffer's high-water mark is 0: a write goes to the kernel at once, and the first byte that the kernel does not take
stops the other side from being read. So at most one read (64 KiB) waits in memory for each direction.

Tables
------
    state     caller  answer          bytes arrive                     the peer closes
    idle      none    -               discard the connection           forget it
    asked     one     head missing    collect, parse the head          lost(untouched when no byte was seen)
    answering one     body missing    decode, tell the caller          body ends there: complete; else lost

    after a complete answer                               then
    request sent whole, keep-alive, no further byte       back to the pool
    anything else                                         closed

What can go wrong
-----------------
* The API answers before it has read the request and resets the connection: writing fails first and the event loop
  would drop the answer that waits unread in the socket. `connection_lost` therefore reads what is left before it
  reports the loss.
* A pooled connection was closed by the API while it was idle: `is_fresh` asks the kernel (a poll without waiting,
  0.4 µs) before each use; what slips through in the moment between is the exchange's one retry.
* A byte beyond the answer belongs to no request: the connection is out of step and is never used again. Nor is one
  on which the API speaks while the next request still waits in the outbox: that is no answer to it.
"""

from __future__ import annotations

import asyncio
import os
import select
from typing import Final, Protocol, cast

from sidecar import clock
from sidecar.proxy.alerts import UpstreamTlsError
from sidecar.proxy.body import Body, ChunkedBody, LengthBody, UntilCloseBody
from sidecar.proxy.deadline import Timer, Wheel
from sidecar.proxy.framing import ResponseHead, find_head_end, parse_response_head
from sidecar.proxy.outbox import NEVER, Outbox
from sidecar.proxy.scan import judge_response
from sidecar.proxy.transport import NOWHERE, READ_BUFFER, READ_BYTES, READ_VIEW
from sidecar.proxy.upgrade import SWITCHED, agrees
from sidecar.reasons import Reason

MAX_INTERIM: Final = 16  # HAProxy and nginx have no bound; Go's client 5; curl 100
_WHOLE: Final = LengthBody(0)
_ENDED: Final = select.POLLIN | select.POLLRDHUP | select.POLLERR | select.POLLHUP


class Caller(Protocol):
    """Who asked, and what it is told; each call may be the last one."""

    request_done: bool
    upgrade: bytes

    def switched(self, upstream: Upstream, head: ResponseHead, payload: bytes, now: float) -> None:
        """Take the connection, which has left HTTP; *payload* is what came behind the head."""

    def interim(self, head: ResponseHead, now: float) -> None:
        """Take an interim (1xx) answer."""

    def response(self, head: ResponseHead, payload: bytes, now: float, whole: Body | None) -> None:
        """Take the final answer's head with what came of its body; *whole* is the body when that is all of it."""

    def response_body(self, payload: bytes, now: float, whole: Body | None) -> None:
        """Take more of the body; *whole* is the body when that was the last of it."""

    def upstream_lost(self, reason: Reason, detail: str, now: float, *, untouched: bool) -> None:
        """Learn that no complete answer will come; *untouched* when not one byte of it came."""

    def upstream_late(self, now: float) -> None:
        """Learn that the deadline passed that the caller set on `Upstream.timer`."""

    def broken(self, error: Exception) -> None:
        """Learn that we failed ourselves while the caller took something."""

    def upstream_blocked(self, *, blocked: bool) -> None:
        """Stop or go on sending the request's body."""


class Home(Protocol):
    """Where a connection lives between two requests: the pool's part for its endpoint."""

    label: str
    authority: bytes
    watched: bool

    def judge(self, now: float, *, failed: bool) -> None:
        """Learn what a request came to."""

    def give(self, upstream: Upstream, now: float) -> None:
        """Take *upstream* back, ready for the next request."""

    def lost(self, upstream: Upstream) -> None:
        """Forget *upstream*."""


class Upstream(asyncio.BufferedProtocol):
    """
    One connection to the API; `transport` drops what is written before it stands and after it is gone.

    A `retired` one serves no further request.
    """

    __slots__ = (
        "_asked_in", "_body", "_interim", "_keep", "_method", "_outbox", "_partial", "_paused", "_poll",
        "blocked", "caller", "home", "idle_since", "retired", "timer", "transport", "used",
    )  # fmt: skip

    def __init__(self, home: Home, wheel: Wheel) -> None:
        self.home = home
        self.caller: Caller | None = None
        self.transport: asyncio.Transport = NOWHERE
        self.timer: Timer = wheel.timer(self._expired)
        self.used = 0
        self.idle_since = 0.0
        self._asked_in = NEVER
        self.blocked = False
        self.retired = False
        self._method = ""
        self._outbox: Outbox | None = None
        self._partial = b""
        self._body: Body | None = None
        self._keep = False
        self._interim = 0
        self._paused = False
        self._poll = select.poll()

    def __repr__(self) -> str:
        state = "idle" if self.caller is None else "asked" if self._body is None else "answering"
        return f"<Upstream {self.home.label} {state} after {self.used} requests>"

    # --- the caller's side ---------------------------------------------------------------------------------------

    def ask(self, caller: Caller, method: str, data: bytes, outbox: Outbox | None) -> None:
        """Send a request's head, with what is there of its body, for *caller*; at the end of the turn if *outbox*."""
        self.caller = caller
        self.used += 1
        self._method = method
        self._interim = 0
        self._outbox = outbox
        if outbox is None:
            self.transport.write(data)
        else:
            self._asked_in = outbox.add(self.transport, data)

    def pause(self) -> None:
        """Read no more of the answer until `resume`: the client does not keep up."""
        if not self._paused and self.transport is not NOWHERE:
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Go on reading."""
        if self._paused:
            self._paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def is_fresh(self) -> bool:
        """Tell whether the API still holds an idle connection open, as far as the kernel knows now."""
        return self.transport is not NOWHERE and not self._poll.poll(0)

    def drop(self) -> None:
        """End the connection at once, whatever is in flight; its caller hears no more."""
        self.caller = None
        self.timer.stop()
        self.home.lost(self)
        transport, self.transport = self.transport, NOWHERE
        transport.abort()

    # --- the event loop's side -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to live."""
        made = self.transport = cast("asyncio.Transport", transport)  # uvloop's is one but does not derive from it
        made.set_write_buffer_limits(0)
        self._poll.register(made.get_extra_info("socket").fileno(), _ENDED)

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002  the loop's wish is larger than our bound
        """Offer the shared buffer."""
        return READ_BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Take what the API sent."""
        caller, outbox = self.caller, self._outbox
        data = READ_VIEW[:nbytes].tobytes()
        try:
            if (
                caller is None
                or self._body is not None
                or self._partial
                or outbox is None
                or outbox.turn == self._asked_in
            ):
                self._received(data)
            else:
                self._read_head(caller, data, clock.now())
        except Exception as error:  # one request's fault must not reach the event loop
            self.drop()
            if caller is not None:
                caller.broken(error)

    def eof_received(self) -> None:
        """Learn that the API sends no more."""
        self._ended(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Learn that the connection is gone."""
        if self.caller is not None and self._body is None and exc is not None:
            self._salvage()
        self._ended(exc)

    def pause_writing(self) -> None:
        """Learn that the API does not keep up."""
        self.blocked = True
        if self.caller is not None:
            self.caller.upstream_blocked(blocked=True)

    def resume_writing(self) -> None:
        """Learn that the API has taken everything."""
        self.blocked = False
        if self.caller is not None:
            self.caller.upstream_blocked(blocked=False)

    # --- the answer ----------------------------------------------------------------------------------------------

    def _received(self, data: bytes) -> None:
        caller, outbox, now = self.caller, self._outbox, clock.now()
        if caller is not None and self._body is None and not self._partial:
            if outbox is not None and outbox.turn == self._asked_in:
                self._spoke_first(caller, now)
            else:
                self._read_head(caller, data, now)
        elif caller is None:
            self.drop()  # bytes that nobody asked for: the connection is out of step
        elif self._body is None:
            self._read_head(caller, self._partial + data, now)
        else:
            self._read_body(caller, self._body, data, now)

    def _spoke_first(self, caller: Caller, now: float) -> None:
        """Take no answer to a request that still waits in the outbox."""
        self.drop()
        caller.upstream_lost(Reason.UPSTREAM_PROTOCOL_ERROR, "the API spoke before it was asked", now, untouched=True)

    def _read_head(self, caller: Caller, data: bytes, now: float) -> None:
        while True:
            end = find_head_end(data, len(self._partial)) if self._partial else data.find(b"\r\n\r\n") + 4
            if end < 4:
                self._wait_for_head(caller, data, now)
                return
            self._partial = b""
            head = parse_response_head(data[:end], self._method)
            if isinstance(head, str):
                self._fail(caller, head, now)
                return
            data = data[end:]
            if head.status >= 200:
                break
            if head.status == SWITCHED and agrees(head, caller.upgrade):
                self.caller = None
                self.timer.stop()
                caller.switched(self, head, data, now)
                return
            self._interim += 1
            if not head.interim or self._interim > MAX_INTERIM:
                self._fail(caller, f"{head.status} was not asked for, or is one of too many", now)
                return
            caller.interim(head, now)
            if self.caller is not caller:
                return
        self._keep = head.keep_alive
        if head.content_length == len(data) and not head.bodiless:
            self._answered(caller, now, True)  # the usual answer: whole in one read
            caller.response(head, data, now, _WHOLE)
        else:
            self._body = _body(head)
            self._read_body(caller, self._body, data, now, head)

    def _wait_for_head(self, caller: Caller, data: bytes, now: float) -> None:
        """Wait for the rest of a head that can still become valid."""
        problem = judge_response(data, len(self._partial))
        if problem is not None:
            self._fail(caller, problem, now)
        else:
            self._partial = data

    def _read_body(self, caller: Caller, body: Body, data: bytes, now: float, head: ResponseHead | None = None) -> None:
        payload, used = body.feed(data)
        if body.problem:
            self._fail(caller, body.problem, now)
            return
        whole = body if body.complete else None
        if whole is not None:
            self._answered(caller, now, used == len(data))
        if head is not None:
            caller.response(head, payload, now, whole)
        elif payload or whole is not None:
            caller.response_body(payload, now, whole)

    def _answered(self, caller: Caller, now: float, in_step: bool) -> None:  # noqa: FBT001 - hot path: positional
        """Let go of the caller; go home when the next request may follow."""
        self.caller = self._body = None
        if self._paused:
            self.resume()
        if in_step and self._keep and caller.request_done and not self.blocked:
            self.home.give(self, now)
        else:
            self.drop()

    def _fail(self, caller: Caller, problem: str, now: float) -> None:
        self.drop()
        caller.upstream_lost(Reason.UPSTREAM_PROTOCOL_ERROR, problem, now, untouched=False)

    # --- the end -------------------------------------------------------------------------------------------------

    def _salvage(self) -> None:
        """Read the answer that waits in a socket whose writing side failed (see the essay)."""
        descriptor = self.transport.get_extra_info("socket")
        if descriptor is None:
            return
        try:
            data = os.read(descriptor.fileno(), READ_BYTES)
        except OSError:
            return
        if data:
            self._received(data)

    def _ended(self, error: Exception | None) -> None:
        caller, body = self.caller, self._body
        untouched = body is None and not self._partial and not self._interim
        self.drop()
        if caller is None:
            return
        now = clock.now()
        if body is not None and error is None and body.finish():
            caller.response_body(b"", now, body)
            return
        what = "within its head" if self._partial else "before its answer" if body is None else "within its body"
        detail = f"the API closed the connection {what}" + (f": {error}" if error else "")
        reason = Reason.UPSTREAM_TLS_FAILED if isinstance(error, UpstreamTlsError) else Reason.UPSTREAM_RESET
        caller.upstream_lost(reason, detail, now, untouched=untouched)

    def _expired(self, now: float) -> None:
        if self.caller is None:
            self.drop()
        else:
            self.caller.upstream_late(now)


def _body(head: ResponseHead) -> Body:
    """Return the machine that finds the end of the answer's body."""
    if head.bodiless:
        return LengthBody(0)
    if head.chunked:
        return ChunkedBody(bounded=False)
    return UntilCloseBody() if head.content_length is None else LengthBody(head.content_length)
