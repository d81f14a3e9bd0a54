"""The PetShop replay: what is read, masked and expanded."""

from statistics import quantiles

import pytest

from loadtest.detection import petshop
from tests.support.recordings import recorded

approx = pytest.approx
BIN = petshop.Bin(0.0, 690.0, 0.97, (0.045, 0.25, 0.3, 0.4))


def test_the_recording_has_26_incidents_a_traffic() -> None:
    """
    High and low traffic have 26 incidents of five bins each, and a quiet span of 49 h.
    """
    for traffic in petshop.TRAFFICS:
        found = recorded(lambda traffic=traffic: petshop.incidents(traffic))
        assert len(found) == 26
        assert all(len(incident.bins) == 5 for incident in found)
        assert len(petshop.quiet(traffic)) == 589


def test_a_dip_is_masked_with_its_neighbours() -> None:
    """
    A quiet bin below 98 % availability and the two beside it do not count.
    """
    span = [petshop.Bin(0.0, 690.0, ratio, BIN.latency_s) for ratio in (1.0, 1.0, 0.97, 1.0, 1.0)]

    assert petshop.masked(span) == {1, 2, 3}


def test_a_bin_becomes_seconds_of_the_same_kind() -> None:
    """
    Over many bins the seconds have the bin's requests, availability and latency quantiles.
    """
    expansion = petshop.Expansion(1)
    rows = [row for _ in range(20) for row in expansion.seconds(BIN)]
    judged = sum(row.judged for row in rows)

    assert len(rows) == 20 * petshop.BIN_S
    assert sum(row.arrivals for row in rows) == approx(20 * 690, rel=0.03)
    assert sum(row.failures for row in rows) / judged == approx(0.03, rel=0.2)


def test_latencies_follow_the_recorded_quantiles() -> None:
    """
    The drawn latencies have the bin's median and p95.
    """
    expansion = petshop.Expansion(2)
    knots = petshop._knots(BIN)
    drawn = quantiles([petshop._draw(expansion._rng, knots) for _ in range(20_000)], n=100)

    assert drawn[49] == approx(0.045, rel=0.05)
    assert drawn[94] == approx(0.3, rel=0.05)


def test_a_long_request_waits_visibly_until_it_ends() -> None:
    """
    Requests of some seconds are in `waiting` first and in `latency` when they end.
    """
    slow = petshop.Bin(0.0, 3000.0, 1.0, (3.0, 3.1, 3.2, 3.3))
    rows = list(petshop.Expansion(3).seconds(slow))

    assert rows[0].judged == 0
    assert sum(rows[0].waiting.values()) == rows[0].arrivals
    assert rows[10].judged > 0
