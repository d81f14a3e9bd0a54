"""The scoreboard as people and machines read it."""

from dataclasses import replace

from loadtest.detection.__main__ import YARDSTICKS
from loadtest.detection.scoreboard import Effort, Row, table


def row(*, met: bool, moonshot: bool) -> Row:
    return Row(4, "NAB", "75.5", "≥ 70", "≥ 75", met, moonshot, 1.0, {"score": 75.5})


def test_a_row_says_how_far_it_got() -> None:
    """
    The verdict is the highest goal that was reached.
    """
    assert row(met=True, moonshot=True).verdict == "moonshot"
    assert row(met=True, moonshot=False).verdict == "met"
    assert row(met=False, moonshot=False).verdict == "missed"


def test_a_row_without_its_recordings_is_absent() -> None:
    """
    What could not be measured is neither met nor missed.
    """
    absent = replace(row(met=False, moonshot=False), numbers={"absent": "nab.tar.gz is not here"})
    assert absent.verdict == "absent"


def test_the_table_is_aligned() -> None:
    """
    Every column begins at the same place in all lines.
    """
    lines = table([row(met=True, moonshot=False)]).splitlines()

    assert lines[0].index("measured") == lines[1].index("75.5")
    assert lines[1].endswith("met")


def test_quick_takes_a_tenth_but_something() -> None:
    """
    A quick look measures a tenth, never nothing.
    """
    assert [Effort(quick=True).of(full) for full in (100, 5)] == [10, 1]
    assert Effort().of(100) == 100


def test_the_rows_stand_in_order() -> None:
    """
    Each yardstick has its own number, in the order of the design's table.
    """
    numbers = [one.number for one in YARDSTICKS]

    assert numbers == sorted(set(numbers))
