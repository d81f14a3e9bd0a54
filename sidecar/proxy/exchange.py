"""
The life of one request, from its head to its settled ticket.

Theory
------
An exchange joins one request of a client's connection to one connection of the pool. It is a state machine driven by
calls from both sides; nothing in it waits, so a keep-alive request with an idle upstream connection is served within
the two reads that bring its head and its answer, and each of them ends in one write. `begin` and the calls below it
stand in the order in which a request meets them.

Tables
------
    stage        what holds                             a failure of the API then means
    waiting      `_place` in its route's shaper         -
    dialling     `dial`                                 502 or 504, after the other endpoints were tried
    sending      `upstream`, not `request_done`         502; an early answer is passed on, the rest is not read
    sent         `sent_at`, not `status`                502 or 504; or it is sent again, see below
    answering    `status`                               the client's connection is cut: never a clean end
    ended        neither `dial` nor `upstream`          -

    sent again   on a new connection, by the rules of `retry.py`: once when a pooled connection had ended, and as often
                 as `upstream.retries` says

    settled as   by `measure/classify.py`, exactly once: see `account.py`

What can go wrong
-----------------
* Every way out passes `Account._settle`: the answer is complete, the API failed, a deadline passed, the client left, a guard
  refused, we failed ourselves. A ticket can be given back once only, because it is gone after.
* The client's slowness is not the API's: latency runs from the last request byte that the kernel took to the first
  byte of the answer; a stalled reader ends as `client_disconnected`.
* The first request of a client's connection may not be lost to a stale pooled connection when it must not be sent
  twice: it gets a new one (HAProxy's `http-reuse safe`).
"""

from __future__ import annotations

from typing import Final

from sidecar import clock
from sidecar.guard.guard import Ticket
from sidecar.proxy import refusing
from sidecar.proxy.account import Account
from sidecar.proxy.body import Body, ChunkedBody, LengthBody
from sidecar.proxy.dial import Dial
from sidecar.proxy.framing import RequestHead, ResponseHead
from sidecar.proxy.headers import must_close, rechunks, request_head, response_head
from sidecar.proxy.outbox import MOST_BYTES
from sidecar.proxy.payload import NO_BODY, answer_part, body_of, refusal_of, request_part, skippable
from sidecar.proxy.plane import Client, Live, Plane, Route
from sidecar.proxy.pool import HOT_S
from sidecar.proxy.shaper import Waiting
from sidecar.proxy.trace import new_trace
from sidecar.proxy.tunnel import Tunnel
from sidecar.proxy.upgrade import offered, with_offer
from sidecar.proxy.upstream import Home, Upstream
from sidecar.reasons import TABLE, Reason, Refusal

_IDEMPOTENT: Final = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"))
_UNSENT: Final = -1.0
_SAMPLED: Final = 7  # the overhead of one request in eight is enough for a histogram


class Exchange(Account):
    """One request and its answer."""

    __slots__ = (
        "_chunks", "_client", "_delimited", "_early", "_interims", "_keep", "_moved", "_own_s", "_place", "_retries",
        "body", "dial", "request_done", "upgrade", "upstream",
    )  # fmt: skip

    def __init__(self, plane: Plane, client: Client, head: RequestHead, now: float) -> None:
        self._plane = plane
        self._live: Live = plane.live
        self._client = client
        self._head = head
        self._started_at = now
        self.request_done = not head.chunked and not head.content_length
        self.body: ChunkedBody | LengthBody = NO_BODY if self.request_done else body_of(head)
        self.route: Route = plane.unrouted
        self.key = client.peer.key
        self.dial: Dial | None = None
        self.upstream: Upstream | None = None
        self.sent_at = _UNSENT
        self.status = 0
        self._ticket: Ticket | None = None
        self._place: Waiting | None = None
        self._early = self.upgrade = self._trace = b""
        self._home: Home | None = None
        self._decision = ""
        self._out_bytes = self._seen_bytes = self._repeats = self._retries = 0
        self._latency_s: float | None = None
        self._delimited = True
        self._own_s = 0.0
        self._guard_s = _UNSENT
        self._keep = self._chunks = self._ended = self._moved = self._interims = False

    def __repr__(self) -> str:
        stage = "dialling" if self.dial else "ended" if self._ended else "answering" if self.status else "waiting"
        return f"<Exchange {self._head.method} {self._head.path} on {self.route.name}, {stage}>"

    # --- the life of a request -----------------------------------------------------------------------------------

    def begin(self, payload: bytes, now: float) -> None:
        """Meet route and guards, then find a connection; *payload* is what has come of the body."""
        head, live = self._head, self._live
        route = live.route_of(head)
        if isinstance(route, Refusal):
            self.route.counters.arrive(self.key, now)
            return self.refuse(route, now)
        self.route, peer = route, self._client.peer
        self.key = key = peer.key if route.by_address and not peer.trusted else live.key_of(route, peer, head)
        route.counters.arrive(key, now)
        refusal = live.hop.loops(head) if b"via" in head.named else None
        bodiless = self.body is NO_BODY
        if refusal is None and not bodiless:
            refusal = self._bad_body(head.content_length or len(payload))
        if refusal is not None:
            return self.refuse(refusal, now)
        storm = self._plane.storm
        if storm.raging and storm.comes_again(route.name, key, head.method, head.path, now):
            ticket = route.guard.admit_again(key, now)
            if isinstance(ticket, Refusal):
                return self.refuse(ticket, now)
        else:
            ticket = route.admit(key, now)
            if isinstance(ticket, Refusal):
                return self._wait(payload, ticket, now)
        self._ticket = ticket
        if not bodiless:
            self._early = self._frame(payload)
        return self._connect(now)

    def _wait(self, payload: bytes, refusal: Refusal, now: float) -> None:
        """Wait for a token where the route shapes and there is room; else answer *refusal*."""
        shaper = self.route.shaper
        place = refusal if shaper is None else shaper.park(self, self.key, refusal, now)
        if isinstance(place, Refusal):
            self.refuse(place, now)
        else:
            self._place = place
            self._early = self._frame(payload)
            self._client.hold(held=True)

    def admitted(self, ticket: Ticket, now: float) -> None:
        """Go on after the wait: the turn has come."""
        self._place, self._ticket = None, ticket
        self._client.hold(held=False)
        self._connect(now)
        self._own_s = 0.0  # the wait is no work of ours

    def _connect(self, now: float) -> None:
        pool, home = self._plane.pool, self._home
        backend = pool.choose() if home is None else pool.again(home, now)
        if backend is None:
            return self.fail(pool.refusal(now), now)
        idempotent = self._head.method in _IDEMPOTENT
        if self._repeats or not (idempotent or self._client.requests > 1):
            upstream = None
        else:
            upstream = backend.take(now - HOT_S if idempotent and self.body is NO_BODY else now)
        if upstream is None:
            self.dial = pool.dial(backend, self)
            self._client.hold(held=bool(self._early))
            self._guard_s = clock.now() - self._started_at
            return None
        self._send(upstream)
        if self.request_done:
            self._guard_s = self._own_s = self.sent_at - self._started_at
        else:
            self._guard_s = clock.now() - self._started_at
        return None

    def connected(self, upstream: Upstream, now: float) -> None:  # noqa: ARG002  Dialler's signature
        """Send the request on the connection that was made for it."""
        self.dial = None
        self._client.hold(held=False)
        self._send(upstream)

    def _send(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self._home = home = upstream.home
        asked = self._head
        self._trace = trace = new_trace()
        head = request_head(asked, self._client.peer, self._live.hop, trace, home.authority)
        if asked.upgrade:
            head = self._offer(head)
        if self._early:
            head, self._early = head + self._early, b""
        if not self.request_done:
            upstream.ask(self, asked.method, head, None)
        else:
            upstream.ask(self, asked.method, head, self._plane.outbox if len(head) <= MOST_BYTES else None)
            self._sent(upstream, clock.now())

    def _offer(self, head: bytes) -> bytes:
        """Offer the API the protocol that the client wants, where the route allows it; else it is a request as any other."""
        self.upgrade = offered(self._head, self.route.upgrades)
        if not self.upgrade:
            return head
        self._head = self._head._replace(keep_alive=False)
        return with_offer(head, self.upgrade)

    def switched(self, upstream: Upstream, head: ResponseHead, payload: bytes, now: float) -> None:
        """Make a tunnel of the two connections: the API agrees."""
        self.upstream, self.status = None, head.status
        self._latency_s = now - self.sent_at
        if self._ticket is not None:
            self.route.guard.first_byte(self._ticket, now)
        self._settle(None, now)
        tunnel = Tunnel(self._plane, self._client.transport, upstream, self.route.name, self.key, self._tunnel_ended)
        answer = with_offer(response_head(head, self._live.hop, 1, False), self.upgrade)
        tunnel.begin(self._client.detach(), answer + payload)

    def request_body(self, payload: bytes, now: float) -> None:
        """Pass more of the body on; the caller has set `request_done` when it was the last of it."""
        refusal = self._bad_body(self._seen_bytes + len(payload))
        if refusal is not None:
            return self.fail(refusal, now)
        framed = self._frame(payload)
        upstream = self.upstream
        if upstream is None:
            self._early += framed
            return self._client.hold(held=True)
        if framed:
            upstream.transport.write(framed)
        if self.request_done:
            self._sent(upstream, now)
        return None

    def _sent(self, upstream: Upstream, now: float) -> None:
        """Wait for the answer from now on, unless the kernel has not taken the last byte yet."""
        if not upstream.blocked and self.status == 0:
            self.sent_at = now
            if self._ticket is not None:
                self.route.guard.sent(self._ticket, now)
            upstream.timer.set(now + self.route.response_timeout_s)

    def interim(self, head: ResponseHead, now: float) -> None:  # noqa: ARG002  Caller's signature
        """Pass an interim answer on, where the client can read and use it."""
        useless = head.status == 100 and (self._seen_bytes or not self._head.expect_continue)
        if self._head.minor == 1 and not useless:
            self._interims = True
            self._client.transport.write(response_head(head, self._live.hop, 1, False))

    def response(self, head: ResponseHead, payload: bytes, now: float, whole: Body | None) -> None:
        """Pass the answer's head on, in one write with what came of its body."""
        request, status, live, guard = self._head, head.status, self._live, self.route.guard
        if status >= 400 and self._unwanted(status, now):
            return self._repeat(now)
        if self.sent_at >= 0.0:
            self._latency_s = now - self.sent_at
            ticket = self._ticket
            if ticket is not None:
                if whole is None:
                    guard.first_byte(ticket, now)
                else:
                    ticket.first_byte_at = now  # it is settled at once, which does the rest
        self.status = status
        if head.content_length is None:
            self._chunks = rechunks(head, request.minor)
            self._delimited = not must_close(head, request.minor)
        keep = self._delimited and self.request_done and request.keep_alive and not self._plane.draining
        self._keep = keep
        self._out_bytes = len(payload)
        limits = guard.limit_fields(self.key, now) if live.policy.ratelimit_headers else b""
        storm = self._plane.storm
        if status >= 500 and storm.advises and self.route.name in storm.raging and b"retry-after" not in head.named:
            limits += storm.advice(self.route.name, self.key, request.method, request.path)
        answer = response_head(head, live.hop, request.minor, not keep, limits)
        return self._answer(answer + (answer_part(payload, whole) if self._chunks else payload), now, whole)

    def response_body(self, payload: bytes, now: float, whole: Body | None) -> None:
        """Pass more of the answer's body on."""
        self._out_bytes += len(payload)
        self._answer(answer_part(payload, whole) if self._chunks else payload, now, whole)

    def _answer(self, data: bytes, now: float, whole: Body | None) -> None:
        client, upstream = self._client, self.upstream
        self._moved = True
        if whole is not None:
            self.upstream, plane = None, self._plane
            if self._keep and len(data) <= MOST_BYTES:
                client.queued_in = plane.outbox.add(client.transport, data)
            else:
                client.transport.write(data)
            self._settle(None, now)
            plane.answered += 1
            if not plane.answered & _SAMPLED:
                plane.meter.overhead(self._own_s + clock.now() - now)
            client.done(self, self._keep, now)
        elif upstream is not None:
            client.transport.write(data)
            upstream.timer.set(now + self._live.policy.upstream.idle_timeout_s)
            if client.blocked:
                upstream.pause()

    # --- the ways out that are no answer of the API ---------------------------------------------------------------

    def refuse(self, refusal: Refusal, now: float) -> None:
        """Answer *refusal* in the API's place; nothing of an answer was sent before."""
        row = TABLE[refusal.reason]
        spare = skippable(self._head, self.body, self._seen_bytes, done=self.request_done)
        keep = spare and not row.close and self._head.keep_alive and not self._plane.draining
        live, route, key, head = self._live, self.route, self.key, self._head
        if row.status == 429 or row.status >= 500:
            refusal = self._plane.storm.refused(route.counters, route.name, key, head.method, head.path, refusal, now)
        self._decision = refusing.decide(self._plane, live, route, key, head, refusal, now, enforced=True)
        data = refusing.answer(live, route, key, head, refusal, self._decision, now, close=not keep)
        self._out_bytes = len(data) - data.index(b"\r\n\r\n") - 4
        self._client.transport.write(data)
        self._settle(refusal.reason, now, row.status)
        self._client.done(self, keep, now)

    def fail(self, refusal: Refusal, now: float) -> None:
        """End an exchange that cannot go on: by an answer when none has begun, else by cutting it."""
        if self._ended:
            return
        self._let_go()
        if self.status == 0:
            self.refuse(refusal, now)
        else:
            self._settle(refusal.reason, now)
            self._client.cut(self, delimited=self._delimited)

    def client_left(self, now: float) -> None:
        """End the exchange of a client that is gone."""
        if not self._ended:
            self._let_go()
            self._settle(Reason.CLIENT_DISCONNECTED, now)

    def not_connected(self, reason: Reason, detail: str, now: float) -> None:
        """Answer for an API that cannot be reached."""
        self.dial = None
        self.fail(Refusal(reason, 0.0, "upstream", detail), now)

    def upstream_lost(self, reason: Reason, detail: str, now: float, *, untouched: bool) -> None:
        """Send again what may be sent again; else answer or cut."""
        upstream, self.upstream = self.upstream, None
        stale = upstream is not None and upstream.used > 1
        if untouched and self._repeatable() and ((stale and not self._repeats) or self._may_retry(now)):
            self._repeat(now)
        else:
            self._note_age(now)
            self.fail(Refusal(reason, 0.0, "upstream", detail), now)

    def upstream_late(self, now: float) -> None:
        """Give up on an API, or on a client that reads nothing, after the deadline."""
        if self.status and self._client.blocked:
            self.client_left(now)
            self._client.cut(self, delimited=False)
            return
        self._note_age(now)
        what = "went silent within its answer" if self.status else "did not answer in time"
        self.fail(Refusal(Reason.UPSTREAM_TIMEOUT, 0.0, "upstream", f"the API {what}"), now)

    def upstream_blocked(self, *, blocked: bool) -> None:
        """Read no more of the body while the API does not take what there is."""
        upstream, now = self.upstream, clock.now()
        if upstream is None:
            return
        self._client.hold(held=blocked)
        if blocked and self.status == 0:
            upstream.timer.set(now + self._live.policy.upstream.idle_timeout_s)
        elif not blocked and self.request_done:
            self._sent(upstream, now)
        elif not blocked and self.status == 0:
            upstream.timer.pause()

    def broken(self, error: Exception) -> None:
        """End an exchange in which we failed ourselves."""
        self._plane.loop.call_exception_handler({"message": "an exchange failed", "exception": error})
        self.fail(Refusal(Reason.INTERNAL_ERROR, 0.0, "internal", type(error).__name__), clock.now())

    def client_ready(self) -> None:
        """Go on reading the answer: the client has taken what there was."""
        if self.upstream is not None:
            self.upstream.resume()

    def flows(self) -> bool:
        """Tell whether anything of the answer was passed on since this was asked last."""
        moved, self._moved = self._moved, False
        return moved

    # --- details -------------------------------------------------------------------------------------------------

    def _repeatable(self) -> bool:
        return self.body is NO_BODY and self._head.method in _IDEMPOTENT

    def _may_retry(self, now: float) -> bool:
        """Take one of this request's attempts, and of the worker's budget."""
        policy = self._live.policy.upstream.retries
        if self._retries >= policy.attempts or not self._plane.retries.spend(policy.budget_ratio):
            return False
        self._retries += 1
        if self._home is not None and self._home.watched:
            self._home.judge(now, failed=True)
        return True

    def _unwanted(self, status: int, now: float) -> bool:
        """Tell whether an answer of *status* is dropped and the request sent again."""
        unwanted = status in self._live.policy.upstream.retries.on_status
        if unwanted and not self._interims and self._repeatable() and self._may_retry(now):
            return True
        if status >= 500:
            head, route = self._head, self.route
            self._plane.storm.failed(route.counters, route.name, self.key, head.method, head.path, now)
        return False

    def _repeat(self, now: float) -> None:
        self._let_go()
        self._repeats += 1
        self.sent_at = _UNSENT
        self._connect(now)

    def _bad_body(self, size: int) -> Refusal | None:
        return refusal_of(self.body, size, self.route.max_body_bytes)

    def _frame(self, part: bytes) -> bytes:
        self._seen_bytes += len(part)
        return request_part(self._head, self.body, part, last=self.request_done)

    def _let_go(self) -> None:
        """End what is under way towards the API."""
        dial, self.dial = self.dial, None
        upstream, self.upstream = self.upstream, None
        place, self._place = self._place, None
        if place is not None:
            place.leave()
        if dial is not None:
            dial.cancel()
        if upstream is not None:
            upstream.home.lost(upstream)
            upstream.drop()
