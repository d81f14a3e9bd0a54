"""The blast-radius budget, by example and as a property."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.decide.budget import Load, raised, refused, settle
from sidecar.facts import Scope

CHECKOUT, SEARCH, C1 = Scope.route("checkout"), Scope.route("search"), Scope.client("checkout", "c1")
LOAD = Load({"checkout": 100.0, "search": 100.0}, {("checkout", "c1"): 40.0})


def test_what_is_refused_is_arrivals_times_what_does_not_pass() -> None:
    """
    Two isolated routes of 100 arrivals each, 10 % and 50 % pass: 90 + 50.
    """
    assert refused({CHECKOUT: 0.1, SEARCH: 0.5}, LOAD) == pytest.approx(140.0)


def test_nested_scopes_count_as_if_their_shares_multiplied() -> None:
    """
    Of the client's 40, 5 % pass; of the route's other 60, half: 38 + 30.
    """
    assert refused({CHECKOUT: 0.5, C1: 0.1}, LOAD) == pytest.approx(40 * 0.95 + 60 * 0.5)


def test_the_service_counts_on_every_route() -> None:
    """
    An isolation of the whole service refuses of everything.
    """
    assert refused({Scope.service(): 0.1}, LOAD) == pytest.approx(180.0)


def test_within_the_budget_nothing_is_raised() -> None:
    """
    90 of 200 refused is within 50 %.
    """
    assert raised({CHECKOUT: 0.1}, LOAD, 0.5) == {CHECKOUT: 0.1}


def test_beyond_the_budget_every_share_is_raised_alike() -> None:
    """
    180 of 200 against a budget of 100: what does not pass shrinks to 50 % on both.
    """
    assert raised({CHECKOUT: 0.1, SEARCH: 0.1}, LOAD, 0.5) == {CHECKOUT: 0.5, SEARCH: 0.5}


def test_without_traffic_nothing_is_raised() -> None:
    """
    Of nothing nothing is refused.
    """
    assert raised({CHECKOUT: 0.0}, Load(), 0.5) == {CHECKOUT: 0.0}


def test_an_unknown_client_counts_nothing() -> None:
    """
    Who is not among the heavy clients is small by construction.
    """
    assert refused({Scope.client("checkout", "nobody"): 0.0}, LOAD) == 0.0


@pytest.mark.parametrize(
    ("old", "new", "expected"), [(0.2, 0.3, 0.3), (0.3, 0.28, 0.3), (0.3, 0.25, 0.25), (0.02, 0.0, 0.0)]
)
def test_floors_rise_at_once_and_sink_only_when_it_is_worth_it(old: float, new: float, expected: float) -> None:
    """
    Arrivals fluctuate; what passes does not follow every second.
    """
    assert settle(old, new) == expected


shares = st.dictionaries(
    st.sampled_from([CHECKOUT, SEARCH, C1, Scope.client("search", "c9"), Scope.service()]),
    st.floats(0.0, 1.0),
    max_size=5,
)
counts = st.floats(0.0, 1e6)


@settings(max_examples=200, deadline=None)
@given(shares, counts, counts, counts, st.floats(0.0, 1.0))
def test_the_budget_is_met_whatever_the_traffic(
    wanted: dict[Scope, float], checkout: float, search: float, client: float, budget: float
) -> None:
    """
    After raising, no more than the budget is refused, and no share is lower than was asked for.
    """
    load = Load({"checkout": checkout, "search": search}, {("checkout", "c1"): client, ("search", "c9"): client})

    allowed = raised(wanted, load, budget)

    assert refused(allowed, load) <= budget * load.total + 1e-6 * (1 + load.total)
    assert all(allowed[scope] >= share for scope, share in wanted.items())
    assert all(share <= 1.0 for share in allowed.values())
