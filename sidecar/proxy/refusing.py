"""
Our own answers, and what is told of single requests: the decision behind a refusal, and redacted samples.

One place writes each of them, so that what a client reads, what `sidecar explain` shows and what is counted agree.
"""

from __future__ import annotations

from collections.abc import Sequence

from sidecar import clock
from sidecar.facts import OVERFLOW, Outcome, RequestFacts
from sidecar.link.frames import Sample
from sidecar.proxy import respond
from sidecar.proxy.framing import RequestHead
from sidecar.proxy.hop import Peer
from sidecar.proxy.plane import Live, Plane, Route
from sidecar.proxy.route import path_template
from sidecar.proxy.tap import jitter_ratio
from sidecar.reasons import TABLE, Reason, Refusal, Row, Would


def decide(
    plane: Plane, live: Live, route: Route, key: str, head: RequestHead, refusal: Refusal, now: float, *, enforced: bool
) -> str:
    """Tell why a request is refused, or would have been; return the decision's id."""
    decision = plane.tap.next_id()
    plane.tap.decided(
        decision,
        refusal,
        now,
        route=route.name,
        client=key,
        method=head.method,
        path=path_template(head.path),
        version=live.version,
        enforced=enforced,
    )
    return decision


def would_have(
    plane: Plane, live: Live, route: Route, key: str, head: RequestHead, would: Sequence[Would], now: float
) -> None:
    """Count and tell what observing controls would have answered to a request that passed."""
    route.counters.would(would)
    for each in would:
        decide(plane, live, route, key, head, each.refusal, now, enforced=False)


def answer(
    live: Live, route: Route, key: str, head: RequestHead, refusal: Refusal, decision: str, now: float, *, close: bool
) -> bytes:
    """Return the whole answer that a refused request gets."""
    limited = refusal.reason is Reason.RATE_LIMITED and live.policy.ratelimit_headers
    return respond.render(
        refusal,
        decision=decision,
        explain=live.policy.explain,
        close=close,
        minor=head.minor,
        head_only=head.method == "HEAD",
        rate_limit=route.guard.limit_fields(key, now) if limited else b"",
        jitter_ratio=jitter_ratio(),
    )


def reject(plane: Plane, peer: Peer, refusal: Refusal, now: float) -> bytes:
    """Return the answer to what is no request, and count and tell it on the route of those that have none."""
    live, route, tap = plane.live, plane.unrouted, plane.tap
    decision = tap.next_id()
    tap.decided(
        decision,
        refusal,
        now,
        route=route.name,
        client=peer.key,
        method="",
        path="",
        version=live.version,
        enforced=True,
    )
    row = TABLE[refusal.reason]
    status = row.status
    route.counters.arrive(peer.key, now)
    kind = OVERFLOW, status, refusal.reason, Outcome.CANCELLED, "", ""
    route.counters.end(peer.key, kind, 0.0, None, False, None)
    data = respond.render(
        refusal, decision=decision, explain=live.policy.explain, close=True, jitter_ratio=jitter_ratio()
    )
    wanted = plane.witness.wants(status, refusal.reason)
    if wanted:
        body = len(data) - data.index(b"\r\n\r\n") - 4
        plane.witness.take(wanted, _no_request(route, peer, refusal.reason, row, decision, body), now)
    return data


def facts(
    route: str,
    key: str,
    head: RequestHead,
    template: str,
    status: int,
    reason: Reason | None,
    times: tuple[float, float | None, float],
    sizes: tuple[int, int],
    trail: tuple[str, str, str, int],
    *,
    names: bool,
) -> RequestFacts:
    """
    Return what the access log and the tap tell of one request.

    Args:
        times: Own seconds before it was sent (negative when it never was), upstream latency, all.
        sizes: Bytes of the two bodies.
        trail: Decision, trace, endpoint, repetitions.
        names: Tell the names of its fields, too.
    """
    guard_s, upstream_s, total_s = times
    decision, trace, endpoint, retries = trail
    return RequestFacts(
        unix=clock.wall().timestamp(),
        route=route,
        client=key,
        method=head.method,
        path=head.path,
        minor=head.minor,
        template=template,
        status=status,
        reason=reason or "",
        flag=TABLE[reason].flag if reason is not None else "",
        guard_s=guard_s if guard_s >= 0.0 else total_s,
        upstream_s=upstream_s,
        total_s=total_s,
        bytes_in=sizes[0],
        bytes_out=sizes[1],
        decision=decision,
        trace=trace,
        endpoint=endpoint,
        retries=retries,
        fields=tuple(name.decode("ascii") for name in head.named) if names else (),
    )


def _no_request(route: Route, peer: Peer, reason: Reason, row: Row, decision: str, body_bytes: int) -> RequestFacts:
    return RequestFacts(
        clock.wall().timestamp(), route.name, peer.key, "", "", 1, "", row.status, reason, row.flag,
        0.0, None, 0.0, 0, body_bytes, decision,
    )  # fmt: skip


def sample(
    route: str,
    key: str,
    head: RequestHead,
    status: int,
    reason: Reason | None,
    latency_s: float | None,
    template: str,
    now: float,
) -> Sample:
    """Return what may be shown of one request: names of fields, never a query, a body or a value."""
    return Sample(
        route=route,
        at=now,
        client=key,
        method=head.method,
        path=template,
        status=status,
        reason=reason or "",
        latency_s=latency_s or 0.0,
        fields=[name.decode("ascii") for name in head.named],
        trace=(head.named.get(b"traceparent") or b"")[3:35].decode("ascii", "replace"),
    )
