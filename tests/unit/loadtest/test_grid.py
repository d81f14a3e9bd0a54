"""The grid: its floors are the formula, its truths are what they say, and cells of each kind are measured."""

from __future__ import annotations

import json
import random
import xml.etree.ElementTree as ET
from math import inf, log

import pytest

from loadtest.detection import truths
from loadtest.detection.cells import Cell, Found, Step, floor_s, kl_rate, kl_ratio
from loadtest.detection.drawing import bars, most
from loadtest.detection.grid import cells, document, main, merged, plots
from loadtest.detection.truths import errors, hang, shares, tasks
from sidecar.measure.histogram import MIDDLE_S


def test_floors_are_the_formula() -> None:
    """
    All fail at 10/s where 0.1 % is normal: ln(γ) / (10 · ln 1000); no arrivals at all: ln(γ) a second's arrivals.
    """
    assert floor_s(10.0, kl_ratio(1.0, 0.001)) == pytest.approx(log(10 * 30 * 86_400) / (10 * log(1000)))
    assert floor_s(1.0, kl_rate(0.0)) == pytest.approx(log(30 * 86_400))
    assert floor_s(1.0, kl_rate(1.0)) == inf


def test_an_outage_is_found_near_its_floor() -> None:
    """
    Every seed finds it within seconds.
    """
    found = next(one for one in errors(10.0, 0.001) if one.fault == "100% fail")

    assert found.missed == 0
    assert found.floor_s <= found.delay_s <= 5


def test_a_hang_is_found_before_its_timeout() -> None:
    """
    Requests without a first byte count as soon as they are old: all of them within seconds.
    """
    found = next(hang(10.0))

    assert (found.fault, found.missed) == ("all hang", 0)
    assert found.delay_s <= 10 < truths.TIMEOUT_S


def test_all_faults_of_a_cell_begin_in_the_same_state() -> None:
    """
    What one fault did to the detectors, and to the dice, the next one does not see.
    """
    seen: list[tuple[int, float]] = []

    def plan(rng: random.Random, detector: list[float]) -> Step:
        def second(at: float) -> bool:
            detector.append(at)
            seen.append((len(detector), rng.random()))
            return len(detector) == 7

        return second

    cell: Cell[list[float]] = Cell("part", "normal", 1.0, list, plan, training_s=5, patience_s=9)
    one = cell.measure("one", 1.0, plan)
    begun = [row for row in seen if row[0] > 5]
    seen.clear()
    two = cell.measure("two", 1.0, plan)

    assert (one.delay_s, one.missed) == (two.delay_s, two.missed) == (2.0, 0)
    assert begun == seen
    assert [row[0] for row in seen] == [6, 7] * 3


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


def test_every_part_of_the_grid_is_a_task_at_every_rate() -> None:
    """
    Nine parts, errors twice: for each normal ratio.
    """
    found = tasks(truths.NAMES, truths.RATES)

    assert {name for name, _, _ in found} == set(truths.NAMES)
    assert len(found) == len(truths.RATES) * (len(truths.NAMES) + 1)


def some(*delays: float, part: str = "errors") -> list[Found]:
    return [Found(part, "0.1% fail", 10.0**n, "2% fail", delay, 3.0, 0) for n, delay in enumerate(delays)]


def test_what_is_infinite_is_null_and_no_dot() -> None:
    """
    A miss is null in JSON and comes back as infinite; the plots are well-formed SVG without it, and name it.
    """
    found = some(inf, 5.0, 2.0)
    rows = json.loads(json.dumps(document(found)))

    assert [row["delay_s"] for row in rows] == [None, 5.0, 2.0]
    assert cells(rows) == found
    drawn = plots(found)
    assert list(drawn) == ["errors.svg"]
    assert ET.fromstring(drawn["errors.svg"]).tag.endswith("svg")
    assert "2% fail (missed at 1/s)" in drawn["errors.svg"]
    assert plots(found) == drawn
    assert ET.fromstring(bars("Quiet", {"0.5/s": (0, 3.3), "2/s": (1, 3.3)})).tag.endswith("svg")


def test_no_alarm_proves_no_rate_of_zero() -> None:
    """
    Three expected ones make none in 5 % of cases: the rule of three.
    """
    assert most(0) == pytest.approx(-log(0.05), abs=1e-4)
    assert most(1) == pytest.approx(4.744, abs=1e-3)


def test_a_grid_is_made_in_pieces() -> None:
    """
    What is measured anew takes the place of the old, what is not stays.
    """
    old, new = [*some(1.0, 2.0), *some(9.0, part="latency")], some(7.0)

    assert [one.delay_s for one in merged(old, new)] == [7.0, 2.0, 9.0]


def test_an_unknown_part_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """
    Before anything is measured, with the parts that there are.
    """
    with pytest.raises(SystemExit):
        main(["--parts", "erors"])
    assert "there is no part erors; the parts are errors," in capsys.readouterr().err
