"""
Our own answers, and what is told of single requests: the decision behind a refusal, and redacted samples.

One place writes each of them, so that what a client reads, what `sidecar explain` shows and what is counted agree.
"""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.facts import OVERFLOW, Outcome
from sidecar.link.frames import Sample
from sidecar.proxy import respond
from sidecar.proxy.framing import RequestHead
from sidecar.proxy.hop import Peer
from sidecar.proxy.plane import Live, Plane, Route
from sidecar.proxy.route import path_template
from sidecar.proxy.tap import jitter_ratio
from sidecar.reasons import TABLE, Reason, Refusal


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
    plane: Plane, live: Live, route: Route, key: str, head: RequestHead, would: Sequence[Refusal], now: float
) -> None:
    """Count and tell what observing controls would have answered to a request that passed."""
    route.counters.would(would)
    for refusal in would:
        decide(plane, live, route, key, head, refusal, now, enforced=False)


def answer(
    plane: Plane, live: Live, route: Route, key: str, head: RequestHead, refusal: Refusal, now: float, *, close: bool
) -> bytes:
    """Return the whole answer that a refused request gets, and tell the decision."""
    limited = refusal.reason is Reason.RATE_LIMITED and live.policy.ratelimit_headers
    return respond.render(
        refusal,
        decision=decide(plane, live, route, key, head, refusal, now, enforced=True),
        explain=live.policy.explain,
        close=close,
        minor=head.minor,
        head_only=head.method == "HEAD",
        rate_limit=route.guard.limit_header(key, now) if limited else None,
        jitter_ratio=jitter_ratio(),
    )


def with_limits(head: bytes, limits: tuple[str, str] | None) -> bytes:
    """
    Return an answer's *head* with what the client may still send, behind what the API said of its own limits.

    The fields are lists (draft-ietf-httpapi-ratelimit-headers, section 2): a client heeds the strictest member, so
    ours never loosen the API's.
    """
    if limits is None:
        return head
    return b"%bratelimit-policy: %b\r\nratelimit: %b\r\n\r\n" % (head[:-2], limits[0].encode(), limits[1].encode())


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
    status = TABLE[refusal.reason].status
    route.counters.arrive(peer.key, now)
    route.counters.end(
        peer.key, OVERFLOW, status, refusal.reason, Outcome.CANCELLED, 0.0, None, False, "", "", None
    )  # fmt: skip
    return respond.render(
        refusal, decision=decision, explain=live.policy.explain, close=True, jitter_ratio=jitter_ratio()
    )


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
