from __future__ import annotations

import pytest

from sidecar.facts import Outcome
from sidecar.measure.classify import classify
from sidecar.reasons import TABLE, Party, Reason

FAILURES = frozenset({500, *range(502, 600)})


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(101, "success"), (200, "success"), (204, "success"), (304, "success"), (399, "success"),
     (400, "ignored"), (404, "ignored"), (429, "ignored"), (499, "ignored"),
     (500, "failure"), (501, "ignored"), (502, "failure"), (503, "failure"), (599, "failure")],
)  # fmt: skip
def test_an_answer_is_judged_by_its_status(status: int, outcome: str) -> None:
    """
    1xx to 3xx succeed, 5xx but 501 fail, the rest says nothing about the upstream.
    """
    assert classify(None, status, FAILURES) == outcome


def test_failure_statuses_are_the_routes() -> None:
    """
    A route may call 429 a failure and 503 none.
    """
    assert classify(None, 429, {429}) is Outcome.FAILURE
    assert classify(None, 503, {429}) is Outcome.IGNORED


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_one_outcome(reason: Reason) -> None:
    """
    What the upstream did is a failure; what never reached it is cancelled; a client that left, and a drill, are ignored.
    """
    expected = Outcome.FAILURE if TABLE[reason].party is Party.UPSTREAM else Outcome.CANCELLED
    if reason in (Reason.CLIENT_DISCONNECTED, Reason.DRILL):
        expected = Outcome.IGNORED
    assert classify(reason, None, FAILURES) is expected


def test_a_cut_after_a_good_head_is_a_failure() -> None:
    """
    A 200 whose body breaks off failed.
    """
    assert classify(Reason.UPSTREAM_RESET, 200, FAILURES) is Outcome.FAILURE


@pytest.mark.parametrize(("status", "outcome"), [(200, "success"), (404, "ignored"), (503, "failure")])
def test_a_client_that_leaves_after_the_head_does_not_hide_it(status: int, outcome: str) -> None:
    """
    Once the upstream answered, its status counts, whoever leaves then.
    """
    assert classify(Reason.CLIENT_DISCONNECTED, status, FAILURES) == outcome


def test_nothing_at_all_is_cancelled() -> None:
    """
    No reason and no status: it never reached the upstream.
    """
    assert classify(None, None, FAILURES) is Outcome.CANCELLED
