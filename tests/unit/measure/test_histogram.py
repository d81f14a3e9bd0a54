from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.measure import histogram as h

seconds = st.floats(h.FLOOR_S, h.CEILING_S, exclude_max=True)


@settings(max_examples=200, deadline=None)
@given(value=seconds)
def test_a_value_lies_in_its_bucket_within_the_stated_error(value: float) -> None:
    """
    Each value is between the bounds of its bucket, and at most 6 % from the bucket's middle.
    """
    i = h.index(value)
    assert h.LOWER_S[i] * (1 - 1e-9) <= value <= h.UPPER_S[i] * (1 + 1e-9)
    assert abs(h.MIDDLE_S[i] / value - 1) <= h.RELATIVE_ERROR + 1e-9 < 0.06


def test_bounds_and_edges() -> None:
    """
    146 buckets rise without a gap; what is outside is in the first and the last.
    """
    assert len(h.UPPER_S) == len(h.LOWER_S) == len(h.MIDDLE_S) == h.SIZE == 146
    assert all(a < b for a, b in pairwise(h.UPPER_S))
    assert [h.index(s) for s in (-1.0, 0.0, 6e-5, h.FLOOR_S, 1.0, 1023.9, 1024.0, float("inf"))] == [
        0, 0, 0, 1, 85, 144, 145, 145,
    ]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(values=st.lists(seconds, min_size=1, max_size=60), q=st.floats(0, 1))
def test_a_quantile_is_within_the_stated_error(values: list[float], q: float) -> None:
    """
    The answer is at most 6 % from the smallest value that q of all values do not exceed.
    """
    ordered = sorted(values)
    exact = next(v for n, v in enumerate(ordered, 1) if n >= q * len(ordered) - 1e-9)
    assert abs(h.quantile(h.of_values(values), q) / exact - 1) <= h.RELATIVE_ERROR + 1e-9


def test_an_empty_histogram_has_no_quantile() -> None:
    """
    It answers 0.
    """
    assert h.quantile({}, 0.5) == 0.0
    assert h.quantile({7: 0}, 0.5) == 0.0


@settings(max_examples=60, deadline=None)
@given(a=st.lists(seconds, max_size=30), b=st.lists(seconds, max_size=30))
def test_merging_is_exact(a: list[float], b: list[float]) -> None:
    """
    The sum of two histograms is the histogram of all values, and the difference takes one back.
    """
    both = h.merge(h.of_values(a), h.of_values(b))
    assert both == h.of_values([*a, *b])
    assert h.total(both) == len(a) + len(b)
    assert h.difference(both, h.of_values(a)) == h.of_values(b)


def test_pairs_and_back() -> None:
    """
    A dense list travels as its filled buckets.
    """
    dense = [0] * h.SIZE
    dense[3], dense[90] = 2, 1
    assert h.pairs(dense) == [[3, 2], [90, 1]]
    assert h.of_pairs(h.pairs(dense)) == {3: 2, 90: 1}


def test_cumulative_counts_per_bound() -> None:
    """
    The counts for /metrics rise over OpenTelemetry's bounds and lose nothing but what is above the last.
    """
    counts = h.of_values([0.004, 0.02, 0.02, 0.3, 2.0, 100.0])
    assert h.cumulative(counts) == [1, 1, 3, 3, 3, 3, 3, 4, 4, 4, 5, 5, 5, 5]
    assert h.cumulative(counts, (1000.0,)) == [6]


@pytest.mark.parametrize("q", [0.0, 0.5, 0.95, 0.99, 1.0])
def test_counting_above_a_quantile_is_exact(q: float) -> None:
    """
    Detection counts above a value that came from the same buckets: none of its own bucket is above it.
    """
    values = [0.001 * n for n in range(1, 200)]
    counts = h.of_values(values)
    level = h.quantile(counts, q)
    assert h.count_above(counts, level) == sum(h.index(v) > h.index(level) for v in values)
