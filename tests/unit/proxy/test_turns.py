"""The table of turns: shares by weight, evenly spread, with a partner drawn from the others."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.proxy.turns import MOST_TURNS, pairs


@given(st.lists(st.integers(1, 100), min_size=2, max_size=40), st.text(max_size=8))
@settings(max_examples=200, deadline=None)
def test_first_choices_make_the_wanted_shares(weights: list[int], seed: str) -> None:
    """
    Each endpoint is first as often as its weight says, to within the last incomplete round, and never meets itself.
    """
    made = pairs(weights, seed)

    assert all(first != second for first, second in made)
    assert len(made) <= max(MOST_TURNS, len(weights))
    found = Counter(first for first, _ in made)
    for index, weight in enumerate(weights):
        share = weight / sum(weights)
        assert found[index] == pytest.approx(len(made) * share, abs=2 + len(weights) * share)


def test_equal_endpoints_alternate() -> None:
    """
    Of two equal endpoints each is first every other time.
    """
    firsts = [first for first, _ in pairs([1.0, 1.0], "worker")]
    assert all(one != two for one, two in pairwise(firsts))


def test_every_endpoint_meets_every_other_one() -> None:
    """
    The partners vary, so that no two endpoints balance among themselves only.
    """
    assert len(set(pairs([1.0] * 4, "worker"))) == 12


def test_workers_begin_at_different_places() -> None:
    """
    The same seed gives the same turns; other seeds begin elsewhere.
    """
    assert pairs([1, 2, 3], "a") == pairs([1, 2, 3], "a")
    assert len({pairs([1.0] * 8, f"worker-{index}")[0][0] for index in range(40)}) > 4
