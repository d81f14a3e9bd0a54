"""A histogram that holds only what was ever used of it is the dense one, number for number."""

from __future__ import annotations

import random

from sidecar.detect.window import Window
from sidecar.measure.histogram import SIZE


def test_a_window_is_as_wide_as_what_was_used() -> None:
    """It reaches from the lowest to the highest bucket that was counted in, in whatever order they came."""
    window = Window()
    assert (len(window.cells), window.above(0), sum(window.dense())) == (0, 0, 0)
    for bucket in (60, 50, 0, 70):
        window.add(bucket, 2.0)
    assert (window.low, len(window.cells)) == (0, 71)
    assert [i for i, count in enumerate(window.dense()) if count == 2.0] == [0, 50, 60, 70]
    assert (window.above(60), window.above(59), window.above(SIZE - 1)) == (2.0, 4.0, 0.0)


def test_a_window_equals_a_dense_histogram() -> None:
    """Adding, fading and summing give exactly what they give over all buckets."""
    rng, window, dense = random.Random(3), Window(), Window("f", [1.0] * SIZE).dense()
    dense[:] = Window().dense()
    for _ in range(40):
        block = [0.0] * SIZE
        for _ in range(20):
            block[rng.randrange(40, 90)] += rng.random()
        window.blend(0.97, block)
        for i, count in enumerate(block):
            dense[i] = dense[i] * 0.97 + count
        assert window.dense() == dense
        assert sum(window.cells) == sum(dense)
        assert window.above(57) == sum(dense[58:])
    assert len(window.cells) <= 50


def test_a_window_comes_back_from_its_dense_counts() -> None:
    """What `dense` returned makes the same window again, empty or not."""
    window = Window("H")
    assert not Window("H", window.dense()).cells
    window.add(5, 3)
    window.add(9, 1)
    again = Window("H", window.dense())
    assert (again.low, again.cells) == (5, window.cells)
    again.clear("H")
    assert (again.low, sum(again.cells), len(again.cells)) == (5, 0, 5)


def test_a_count_beyond_16_bits_widens_all_until_it_is_cleared() -> None:
    """No bucket is rounded, none is weighed differently, and the memory of a busy minute goes with it."""
    window = Window("H")
    window.add(60, 65_000)
    window.add(90, 5_400)
    before = window.cells.itemsize
    for _ in range(3):
        window.add(60, 65_000)
    window.add(91, 1)
    assert [(i, count) for i, count in enumerate(window.dense()) if count] == [(60, 260_000), (90, 5_400), (91, 1)]
    window.clear("H")
    assert (window.cells.itemsize, len(window.cells)) == (before, 32)
