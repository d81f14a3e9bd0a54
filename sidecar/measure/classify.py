"""
What one request meant for the health of the upstream: four classes, decided here and nowhere else.

    outcome     when                                                                     feeds
    ---------   ----------------------------------------------------------------------   -------------------------
    success     the upstream answered 1xx–3xx                                            detectors, breaker
    failure     it answered a failure status (5xx but 501 unless configured otherwise),  detectors, breaker
                reset, refused, timed out or broke the protocol, also after its head
    ignored     any other answer; the client left before one; a drill                    nothing (neutral)
    cancelled   never sent upstream: own refusals, unreadable requests, own faults       the `refusals` signal alone
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Final

from sidecar.facts import Outcome
from sidecar.reasons import TABLE, Party, Reason

_UPSTREAM: Final = frozenset(reason for reason, row in TABLE.items() if row.party is Party.UPSTREAM)


def classify(reason: Reason | None, status: int | None, failure_statuses: AbstractSet[int]) -> Outcome:
    """
    Return the outcome of one request.

    Args:
        reason: Why it ended without, or before the end of, the upstream's own answer; None when the answer is whole.
        status: The upstream's status; None when it gave none. Never the status of an answer of our own.
        failure_statuses: The route's statuses that count as failure.
    """
    if reason is not None:
        if reason is Reason.DRILL:
            return Outcome.IGNORED
        if reason in _UPSTREAM:
            return Outcome.FAILURE
        if reason is not Reason.CLIENT_DISCONNECTED:
            return Outcome.CANCELLED
    if status is None:
        return Outcome.IGNORED if reason is not None else Outcome.CANCELLED
    if status in failure_statuses:
        return Outcome.FAILURE
    return Outcome.SUCCESS if status < 400 else Outcome.IGNORED
