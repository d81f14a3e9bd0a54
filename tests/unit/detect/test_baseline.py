"""What is normal, how sure of it, and how it is protected from what is not."""

from __future__ import annotations

import random

import pytest

from sidecar.detect.baseline import Dispersion, Quarantine, RatioBaseline, logit, margin, sigmoid
from tests.support.traffic import binomial


def grown(ratio: float = 0.01, hours: int = 3) -> tuple[RatioBaseline, float]:
    """Return a baseline that saw *ratio* at 10/s for some hours, exactly, and the present."""
    baseline, at = RatioBaseline(300, 60.0), 0.0
    for second in range(hours * 3600):
        at += 1.0
        baseline.collect(10, 10 * ratio, at, 1.0)
        if second % 60 == 0:
            baseline.mature(at)
    return baseline, at


@pytest.mark.parametrize("x", [-700.0, -5.0, 0.0, 5.0])
def test_sigmoid_undoes_logit(x: float) -> None:
    """
    logit and sigmoid are inverse to each other within the held range.
    """
    assert logit(sigmoid(x)) == pytest.approx(max(x, logit(0.0)), abs=1e-6)


@pytest.mark.parametrize(("bad", "upper"), [(0.5, 1.92), (1.0, 3.0), (3.0, 6.30), (10.0, 15.7)])
def test_the_margin_is_the_upper_95_percent_point(bad: float, upper: float) -> None:
    """
    Wilson and Hilferty's point is within 4 % of the gamma quantile, and never a margin below 0.4.
    """
    assert margin(bad, 0.0) == pytest.approx(logit(upper / 1e4) - logit(bad / 1e4), abs=0.04)
    assert margin(1e6, 0.01) == 0.4


def test_it_is_cold_until_requests_and_seconds_suffice() -> None:
    """
    300 requests and 60 s are needed, and the inventory is told which of them lacks how much.
    """
    baseline = RatioBaseline(300, 60.0)
    for at in range(1, 5):
        baseline.collect(10, 0, float(at), 1.0)
    first = baseline.cold
    for at in range(5, 41):
        baseline.collect(10, 0, float(at), 1.0)
    second = baseline.cold
    for at in range(41, 61):
        baseline.collect(10, 0, float(at), 1.0)

    assert first == "baseline cold, 40 of 300 requests"
    assert second == "baseline cold, 40 of 60 s"
    assert baseline.cold == ""


def test_a_short_warmup_shrinks_the_counts_in_proportion() -> None:
    """
    With `warmup: 6s` a tenth of the requests is enough.
    """
    baseline = RatioBaseline(300, 6.0)
    for at in range(1, 7):
        baseline.collect(5, 0, float(at), 1.0)

    assert baseline.cold == ""


def test_what_waits_is_not_yet_learnt_and_can_be_dropped() -> None:
    """
    Ten minutes of 30 % failures change nothing while they wait, and nothing ever once dropped.
    """
    baseline, at = grown()
    before = baseline.ratio
    for _ in range(590):
        at += 1
        baseline.collect(10, 3, at, 1.0)
        baseline.mature(at)
    waiting = baseline.ratio
    baseline.drop()
    baseline.mature(at + 10_000)

    assert waiting == pytest.approx(before, rel=0.05)
    assert baseline.ratio == waiting


def test_a_grown_baseline_moves_by_a_tenth_of_a_logit_an_hour() -> None:
    """
    A shift from 1 % to 50 % that nobody stops is learnt at 0.1 logit an hour.
    """
    baseline, at = grown()
    before = baseline.held
    for second in range(2 * 3600):
        at += 1
        baseline.collect(10, 5, at, 1.0)
        if second % 60 == 0:
            baseline.mature(at)

    assert 0.1 < baseline.held - before <= 0.2 + 1e-9


def test_a_young_baseline_corrects_its_first_guess() -> None:
    """
    A warm-up without any failure is corrected within minutes when 2 % are normal.
    """
    baseline, at = RatioBaseline(300, 60.0), 0.0
    for second in range(1200):
        at += 1
        baseline.collect(10, 0 if second < 60 else 0.2, at, 1.0)
        baseline.mature(at)

    assert baseline.ratio == pytest.approx(0.02, rel=0.25)


@pytest.mark.parametrize("ratio", [0.001, 0.05])
def test_independent_requests_have_no_dispersion(ratio: float) -> None:
    """
    φ of a day of independent requests stays below 1.5.
    """
    rng, dispersion, seen = random.Random(3), Dispersion(), []
    for _ in range(1440):
        dispersion.add(600, binomial(rng, 600, ratio))
        seen.append(dispersion.value)

    assert max(seen[60:]) < 1.5


def test_dispersion_is_measured() -> None:
    """
    Minute counts of three times the variance give a φ of about three within an hour.
    """
    rng, dispersion = random.Random(4), Dispersion()
    for _ in range(90):
        factor = rng.gammavariate(6.0, 1 / 6.0)
        dispersion.add(600, binomial(rng, 600, 0.02 * factor))

    assert 2.0 < dispersion.value < 4.5


def test_dispersion_is_clamped() -> None:
    """
    However wild the blocks, φ ends at 8.
    """
    dispersion = Dispersion()
    for block in range(100):
        dispersion.add(1000, 500 if block % 2 else 0)

    assert dispersion.value == 8.0


def test_a_quarantine_releases_the_oldest_first_and_halves_for_the_young() -> None:
    """
    A block waits 10 min, or half the age that the baseline had at the block's end.
    """
    quarantine = Quarantine(1, 1.0)
    for at in range(1, 121):
        quarantine.collect(((0, 1),), float(at), 1.0)

    assert quarantine.release(80.0, 0.0) == []
    assert [block.end_at for block in quarantine.release(90.0, 0.0)] == [60.0]
    assert quarantine.release(700.0, -1e6) == []
    assert [block.end_at for block in quarantine.release(720.0, -1e6)] == [120.0]


def test_whole_counts_that_outgrow_16_bits_are_still_exact() -> None:
    """
    A quarantine of whole counts gives back what was put in, above 65,535 too, and after a restart in the middle of it.
    """
    quarantine, other = (Quarantine(2, 1.0, 3, whole=True) for _ in range(2))
    for second in range(1, 200):
        quarantine.collect(((0, 400), (1, 1)), float(second), 1.0)
        if second == 100:
            other.restore(quarantine.snapshot(), 0.0)
        if second > 100:
            other.collect(((0, 400), (1, 1)), float(second), 1.0)
    for one in (quarantine, other):
        one.collect(((0, 400), (1, 1)), 200.0, 1.0)

    blocks = [one.release(800.0, -1e6) for one in (quarantine, other)]

    assert [list(block.sums) for found in blocks for block in found] == [[80_000.0, 200.0]] * 2


def test_a_quarantine_that_is_widened_keeps_every_block_as_it_was() -> None:
    """
    Indices that come late, below and above all others, change nothing of the blocks that wait already.
    """
    quarantine = Quarantine(146, 1.0, 3, whole=True)
    put = {100.0: (60, 70), 300.0: (65, 3), 500.0: (145, 0), 550.0: (64, 64)}
    for at, indices in put.items():
        quarantine.collect([(i, 1) for i in indices], at, 200.0)

    blocks = quarantine.release(5000.0, -1e6)

    assert [[i for i, count in enumerate(block.sums) for _ in range(int(count))] for block in blocks] == [
        sorted(indices) for indices in put.values()
    ]
