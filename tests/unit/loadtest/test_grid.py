"""The grid: its floors are the formula, its truths are what they say, and one cell of each part is measured."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from math import inf, log

import pytest

from loadtest.detection.grid import Found, document, errors, plots, shares
from sidecar.measure.histogram import MIDDLE_S


def test_an_outage_is_found_near_its_floor() -> None:
    """
    All fail at 10/s where 0.1 % is normal: the floor is ln(γ) / (10 · ln 1000), and every seed finds it within seconds.
    """
    found = errors(10.0, 0.001, 1.0)

    assert found.floor_s == pytest.approx(log(10 * 30 * 86_400) / (10 * log(1000)))
    assert found.missed == 0
    assert found.floor_s <= found.delay_s <= 5


def test_a_slow_tenth_is_a_tenth() -> None:
    """
    The shares of a histogram add up to one, and a tenth lies where ten times the median is.
    """
    normal, fault = shares(1.0, 0.0), shares(10.0, 0.1)
    beyond = sum(share for i, share in fault.items() if MIDDLE_S[i] > 0.1) - sum(
        share for i, share in normal.items() if MIDDLE_S[i] > 0.1
    )

    assert sum(normal.values()) == pytest.approx(1, abs=1e-6)
    assert sum(fault.values()) == pytest.approx(1, abs=1e-6)
    assert beyond == pytest.approx(0.1, abs=0.02)


def test_what_is_infinite_is_null_and_no_dot() -> None:
    """
    A miss is null in JSON, and the plots are well-formed SVG without it.
    """
    found = [
        Found("errors", "0.1% fail", rate, "2% fail", delay, 3.0, 0)
        for rate, delay in ((1.0, inf), (10.0, 5.0), (100.0, 2.0))
    ]
    assert [row["delay_s"] for row in json.loads(json.dumps(document(found)))] == [None, 5.0, 2.0]

    drawn = plots(found)
    assert list(drawn) == ["errors.svg"]
    assert ET.fromstring(drawn["errors.svg"]).tag.endswith("svg")
