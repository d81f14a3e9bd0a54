"""What clumps explain, by formula and by its consequences."""

from __future__ import annotations

import random
from math import log

import pytest

from sidecar.detect.clumps import MAX_EXCESS, Clumping, Clumps
from tests.support.traffic import binomial

P0 = 0.002


def learnt(shape: float | None, requests: int = 60, ratio: float = 0.01, blocks: int = 3000) -> Clumping:
    """Return what is learnt of blocks whose ratio is drawn anew from a gamma variable of that *shape*, or never."""
    rng, clumping = random.Random(5), Clumping()
    for _ in range(blocks):
        factor = rng.gammavariate(shape, 1 / shape) if shape else 1.0
        clumping.add(requests, binomial(rng, requests, min(ratio * factor, 1.0)))
    return clumping


def clumps(fast: float, rate_per_s: float = 1.0) -> Clumps:
    """Return clumps of a minute's φ − 1 = *fast* alone."""
    clumping, made = Clumping(), Clumps()
    clumping.fast, clumping.slow = fast, 0.0
    made.aim(P0, clumping, rate_per_s, 60.0)
    return made


def test_independent_failures_do_not_clump() -> None:
    """
    Where failures are independent nearly nothing is left of φ − 1 after some days.
    """
    clumping = learnt(None)
    assert clumping.fast < 0.15
    assert clumping.slow < 0.25


def test_rare_clumps_are_measured_by_their_failures() -> None:
    """
    Less than a failure a block is enough: φ = 3 is found, corrected for the third that block edges hide.
    """
    clumping = learnt(0.3)  # 0.6 failures a block: 1 + 0.6 / 0.3 = 3
    assert 1.5 * 1.2 < clumping.fast < 1.5 * 2.8


def test_what_is_learnt_is_bounded() -> None:
    """
    A stream that flips between all and nothing ends at the largest value, and φ at 8.
    """
    clumping = Clumping()
    for block in range(400):
        clumping.add(1000, 500 if block % 2 else 0)

    assert clumping.fast <= MAX_EXCESS
    assert clumping.value == 8.0


def test_the_first_failure_is_news_and_the_next_ones_less_so() -> None:
    """
    The explained part is the beta-binomial's likelihood against p0, request by request: ln of ((p0·c + k) / (c + m)) / p0.
    """
    test, c = clumps(2.0), 30.0
    found = [test.explained(1, 1, float(at), 1.0, asked=True) for at in range(1, 5)]

    expected = [log((P0 * c + k) / (c + k) / P0) for k in range(4)]
    assert found[1:] == pytest.approx(expected[1:])
    assert found[0] == pytest.approx(max(expected[0], 0.0), abs=1e-9)


def test_a_good_request_after_failures_gives_back() -> None:
    """
    After failures a good request was less expected than under p0, which is evidence against the clump.
    """
    test = clumps(2.0)
    test.explained(3, 3, 1.0, 1.0, asked=True)

    assert test.explained(10, 0, 2.0, 1.0, asked=True) < 0


def test_a_block_ends_after_its_minute() -> None:
    """
    What failed more than a minute ago explains nothing: the next failure opens a block of its own.
    """
    test = clumps(2.0)
    test.explained(5, 5, 1.0, 1.0, asked=True)

    assert test.explained(1, 1, 100.0, 1.0, asked=True) == pytest.approx(0.0, abs=1e-9)


def test_nothing_is_explained_without_clumps_or_without_a_rate() -> None:
    """
    φ = 1, or a baseline that is cold, leaves the evidence as it is.
    """
    for test in (clumps(0.0), clumps(2.0, rate_per_s=0.0)):
        test.explained(5, 5, 1.0, 1.0, asked=True)
        assert test.explained(5, 5, 2.0, 1.0, asked=True) == 0.0


def test_scarce_traffic_makes_a_clump_a_larger_part_of_it() -> None:
    """
    At a tenth of the learnt rate the same failures are explained further than at the learnt one.
    """
    usual, scarce = clumps(2.0), clumps(2.0)
    scarce.recent_per_s = 0.1
    found = []
    for test in (usual, scarce):
        test.explained(1, 1, 1.0, 1.0, asked=True)
        found.append(test.explained(1, 1, 2.0, 1.0, asked=True))

    assert found[1] > found[0]


def test_a_snapshot_brings_back_the_same_future() -> None:
    """
    What was learnt and the open blocks survive, moved to another clock; a document of another shape is refused.
    """
    old, new = clumps(2.0), clumps(2.0)
    old.explained(4, 2, 10.0, 1.0, asked=True)
    new.restore(old.snapshot(), 1000.0)
    first, second = learnt(0.3, blocks=50), Clumping()
    second.restore(first.snapshot())

    assert new.explained(3, 2, 1011.0, 1.0, asked=True) == old.explained(3, 2, 11.0, 1.0, asked=True)
    assert (second.fast, second.slow) == (first.fast, first.slow)
    with pytest.raises(ValueError, match="11"):
        second.restore({"clumps": [0.0]})
