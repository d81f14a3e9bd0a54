"""
What a re-arrival may take while a retry storm rages: only what no first try may need.

Theory
    A retry storm is load that an outage makes of itself: those who were refused, or failed, ask again at once, and their
    requests take the tokens and permits that the others need. With R re-arrivals for each first try a limit that cannot
    tell them apart serves one first try in 1 + R. So every shared store keeps a part for first tries; a re-arrival passes
    only while more than that part is left. Who waits as long as it was told to is a first try again: nobody is shut out.

    `proxy/storm.py` knows who asks again within its back-off, and when that is a storm.

Tables
    guard                       a re-arrival passes while there is more than (first tries may have all)
    -------------------------   -----------------------------------------------------------------------
    client's bucket             none kept: it is the client's own
    route's, service's bucket   50 % of the burst, and its tokens
    concurrency                 20 % of the permits of its priority
    isolation, throttle         50 % of the burst, or one credit more
    breaker                     none kept: any request tells whether the API lives

    `service.rearrivals`        what happens
    off                         they are as any other
    observe                     what would have been refused is counted
    enforce                     they are refused

What can go wrong
    First tries alone exceed the limit: re-arrivals get nothing until they wait, which is what they were asked to do. A
    guard that only observes keeps nothing. A burst of one token: what asks again passes half a token later.
"""

from __future__ import annotations

from sidecar.guard import isolation as isolations
from sidecar.guard import override as overrides
from sidecar.guard.concurrency import Concurrency, Reach, ServiceConcurrency
from sidecar.guard.gate import Gate
from sidecar.guard.limit import Limits
from sidecar.reasons import Refusal


def refusal(
    client: str,
    override: Gate | None,
    isolation: Gate | None,
    limits: Limits | None,
    route: Concurrency,
    service: ServiceConcurrency,
    reach: Reach,
    now: float,
) -> tuple[Refusal, Gate | None] | None:
    """
    Return why a re-arrival is refused before any first try, and the gate that did; None when it may ask as they do.

    Nothing is taken. The order of the guards is the stack's, so the first of them names the reason.
    """
    found = None if override is None else overrides.refusal(override, now, again=True)
    if found is not None:
        return found, override
    found = None if isolation is None else isolations.refusal(isolation, now, again=True)
    if found is not None:
        return found, isolation
    if limits is not None:
        found = limits.spare(client, now)
    found = found or route.spare() or service.spare(reach.cap)
    return None if found is None else (found, None)
