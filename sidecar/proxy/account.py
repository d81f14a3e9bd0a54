"""
What one exchange came to: given back to the guards, counted, and told, each exactly once.

An exchange *is* its account: one object for both, in two files, because a second object for each request costs 0.3 µs.
`exchange.py` fills it and says when it is settled.

Tables.   settled by       when
          an answer        its last byte is written; after 101 (Switching Protocols): at once, for the tunnel holds no permit
          anything else    the reason is known: refused, failed, the client left

          told to the access log and to taps     when it is settled; after 101: when the tunnel ends, with its bytes
"""

from __future__ import annotations

from typing import Final

from sidecar import clock
from sidecar.facts import Outcome
from sidecar.guard.guard import Ticket
from sidecar.measure.classify import classify
from sidecar.proxy import refusing
from sidecar.proxy.framing import RequestHead
from sidecar.proxy.headers import trace_id
from sidecar.proxy.plane import Live, Plane, Route
from sidecar.proxy.route import path_template
from sidecar.proxy.upgrade import SWITCHED
from sidecar.proxy.upstream import Home
from sidecar.proxy.witness import TAP
from sidecar.reasons import TABLE, Reason

_FAILURE: Final = Outcome.FAILURE
_LEFT: Final = TABLE[Reason.CLIENT_DISCONNECTED].status


class Account:
    """The figures of one exchange; its subclass sets them all."""

    __slots__ = (
        "_decision", "_ended", "_guard_s", "_head", "_home", "_latency_s", "_live", "_out_bytes", "_plane",
        "_repeats", "_seen_bytes", "_started_at", "_ticket", "_trace", "key", "route", "sent_at", "status",
    )  # fmt: skip

    _trace: bytes
    _decision: str
    _ended: bool
    _guard_s: float
    _head: RequestHead
    _home: Home | None
    _latency_s: float | None
    _live: Live
    _out_bytes: int
    _plane: Plane
    _repeats: int
    _seen_bytes: int
    _started_at: float
    _ticket: Ticket | None
    key: str
    route: Route
    sent_at: float
    status: int

    def _note_age(self, now: float) -> None:
        """Take the age of a request that gets no answer for its latency."""
        if self._latency_s is None and self.sent_at >= 0.0:
            self._latency_s = now - self.sent_at

    def _settle(self, reason: Reason | None, now: float, own_status: int = 0) -> None:
        """Give the ticket back and count the request, once; *own_status* is 0 when the client saw the API's or none."""
        if self._ended:
            return
        self._ended = True
        route, ticket, status, head, home = self.route, self._ticket, self.status, self._head, self._home
        if reason is None:
            outcome = route.outcomes.get(status) or route.outcome_of(status)
        else:
            outcome = classify(reason, status or None, route.failure_statuses)
        failed = outcome is _FAILURE
        if home is not None and home.watched and (failed or reason is None):
            home.judge(now, failed=failed)
        latency_s, directive = self._latency_s, None
        if ticket is not None:
            self._ticket, directive = None, ticket.directive
            route.guard.settle(ticket, outcome, now, latency_s, 400 <= status < 500 and reason is None)
            if ticket.would:
                refusing.would_have(self._plane, self._live, route, self.key, head, ticket.would, now)
        seen = own_status or status or _LEFT
        slow = latency_s is not None and latency_s >= route.slow_s
        template = path_template(head.path, head.regular)
        kind = head.method, seen, reason, outcome, "" if home is None else home.label, template
        route.counters.end(self.key, kind, now - self._started_at, latency_s, slow, directive)
        samples = route.samples
        if (samples.any or failed) and samples.take(failed=failed):
            self._plane.tap.show(refusing.sample(route.name, self.key, head, seen, reason, latency_s, template, now))
        wanted = self._plane.witness.wants(seen, reason) if seen != SWITCHED else 0
        if wanted:
            self._tell(wanted, seen, reason, template, now)

    def _tell(self, wanted: int, seen: int, reason: Reason | None, template: str, now: float) -> None:
        """Tell those who want to hear of it; *seen* is the status that the client saw."""
        head, home = self._head, self._home
        reason = reason or self.route.marked
        trail = (
            self._decision, trace_id(head, self._live.hop, self._trace), "" if home is None else home.label, self._repeats,
        )  # fmt: skip
        told = refusing.facts(
            self.route.name,
            self.key,
            head,
            template,
            seen,
            reason,
            (self._guard_s, self._latency_s, clock.now() - self._started_at),
            (self._seen_bytes, self._out_bytes),
            trail,
            names=bool(wanted & TAP),
        )
        self._plane.witness.take(wanted, told, now)

    def _tunnel_ended(self, up_bytes: int, down_bytes: int) -> None:
        """Tell of a tunnel, now that it is over."""
        self._seen_bytes, self._out_bytes = up_bytes, down_bytes
        wanted = self._plane.witness.wants(self.status, None)
        if wanted:
            self._tell(wanted, self.status, None, path_template(self._head.path), clock.now())
