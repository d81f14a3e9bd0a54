"""The slow path over any series."""

from __future__ import annotations

import json
from math import isnan

import pytest

from sidecar.replay.series import Row, SeriesError, rows, values


def flat(count: int, step_s: int = 300) -> list[str]:
    """Return a series that goes up and down a little, with a header."""
    return ["timestamp,value\n", *(f"{1_700_000_000 + i * step_s},{100 + i % 7}\n" for i in range(count))]


def test_every_row_has_a_score() -> None:
    """
    One line of the contract's shape for each row; a jump in a steady series is an alarm, once.
    """
    series = flat(600)
    for i in range(501, 520):
        series[i] = f"{1_700_000_000 + (i - 1) * 300},500\n"
    found = list(rows(series))
    assert [row.row for row in found] == list(range(600))
    assert all(0.0 <= row.score <= 1.0 for row in found)
    alarms = [row.row for row in found if row.alarm]
    assert len(alarms) == 1
    assert 500 <= alarms[0] <= 510
    assert json.loads(found[0].to_json()) == {"row": 0, "score": 0.0, "alarm": False}


def test_a_shape_is_stable() -> None:
    """
    Scripts read exactly this.
    """
    assert Row(3, 0.03, False).to_json() == '{"row": 3, "score": 0.03, "alarm": false}'


def test_times_and_columns_as_people_write_them() -> None:
    """
    Unix seconds, dates with a space or a T, other columns around, no header: all are read.
    """
    assert list(values(["2014-04-01 00:00:00,20.0"])) == [(1396310400.0, 20.0)]
    assert list(values(["2014-04-01T00:00:00Z,1"])) == [(1396310400.0, 1.0)]
    assert list(values(["a,value,timestamp\n", "x,5,10\n"])) == [(10.0, 5.0)]
    ((_, nothing),) = values(["1,\n"])
    assert isnan(nothing)


@pytest.mark.parametrize(
    ("lines", "problem", "hint"),
    [
        (["timestamp,value", "1,x"], "line 2: 'x' is not a number", "41.5"),
        (["noon,1"], "line 1: 'noon' is not a timestamp", "2026-01-05"),
        (["1"], "line 1: a row has two columns", "timestamp,value"),
        (["1,1", "2"], "line 2: 1 columns", "timestamp,value"),
        (["2,1", "1,1"], "line 2: its timestamp is before", "sort the rows"),
    ],
)
def test_a_fault_says_line_and_remedy(lines: list[str], problem: str, hint: str) -> None:
    """
    The message has the line and the hint what to write.
    """
    with pytest.raises(SeriesError, match=problem) as caught:
        list(rows(lines))
    assert hint in caught.value.hint
