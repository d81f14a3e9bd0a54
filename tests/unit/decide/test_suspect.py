"""Which config version is the first suspect."""

from __future__ import annotations

import pytest

from sidecar.decide.suspect import Version, first_suspect
from sidecar.facts import Detector, Moment, Scope

CHECKOUT = Scope.route("checkout")
ERRORS = (Detector.ERRORS,)


def version(number: int, at: float, *touched: str, back_to: int | None = None, path: str = "x") -> Version:
    """A version applied at a moment, which touches some scopes."""
    scopes = frozenset(Scope.parse(text) for text in touched)
    older = number - 1 if back_to is None else back_to
    return Version(number, older, "ops", "api", Moment(at, at), ({"path": path, "old": 1, "new": 2},), scopes)


@pytest.mark.parametrize(
    ("applied_at", "touched", "expected"),
    [
        (900.0, "route:checkout", True),
        (900.0, "service", True),
        (900.0, "client:checkout:c1", True),
        (900.0, "route:search", False),
        (399.0, "route:checkout", False),  # older than the window
        (400.0, "route:checkout", True),
        (1005.0, "route:checkout", True),  # the onset is an estimate
        (1006.0, "route:checkout", False),
    ],
)
def test_a_suspect_is_recent_and_touches_the_scope(applied_at: float, touched: str, expected: bool) -> None:
    """
    Applied at most 10 min before the onset at 1000, with a diff on the scope, around it or in it.
    """
    found = first_suspect([version(2, applied_at, touched)], CHECKOUT, ERRORS, 1000.0, 600.0)

    assert (found is not None) is expected


def test_the_newest_of_several_is_named_with_what_it_replaced() -> None:
    """
    It is the one that a rollback would undo.
    """
    versions = [version(2, 900.0, "service"), version(3, 950.0, "route:checkout"), version(4, 960.0, "route:search")]

    found = first_suspect(versions, CHECKOUT, ERRORS, 1000.0, 600.0)

    assert found is not None
    assert (found.version, found.back_to) == (3, 2)


def test_the_first_version_of_all_is_no_suspect() -> None:
    """
    There is nothing to go back to.
    """
    assert first_suspect([version(1, 999.0, "service", back_to=0)], CHECKOUT, ERRORS, 1000.0, 600.0) is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("routes", True),  # another order
        ("routes.checkout.match.path", True),
        ("routes.search.match.methods", True),  # what search lost, checkout may have got
        ("routes.checkout.limit.rate", False),
        ("service.limit.rate", False),
        ("upstream.response_timeout", False),
    ],
)
@pytest.mark.parametrize("detector", [Detector.SURGE, Detector.SILENCE])
def test_who_comes_is_changed_by_the_routing_alone(detector: Detector, path: str, expected: bool) -> None:
    """
    Arrivals have a version as suspect only when it says anew which requests are whose.
    """
    changed = version(2, 990.0, "service", path=path)

    assert (first_suspect([changed], CHECKOUT, (detector,), 1000.0, 600.0) is not None) is expected


def test_errors_beside_a_surge_may_well_be_the_versions() -> None:
    """
    With a signal about the API's health among them the whole diff counts.
    """
    changed = version(2, 990.0, "service", path="upstream.response_timeout")

    assert first_suspect([changed], CHECKOUT, (Detector.SURGE, Detector.ERRORS), 1000.0, 600.0) is not None
