"""
The slow path over any series: a CSV of `timestamp,value`, one reading for each row.

Tables
    timestamp    Unix seconds, or a date and time (RFC 3339, or with a space; without a zone it is UTC)
    value        a number; `nan` and nothing are rows without a value: they score 0

What can go wrong
    A row that is none: `SeriesError` says which line, and what to write instead. Columns may stand in another order when
    the header says so; a file without a header has the timestamp first.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import nan
from typing import Final

from sidecar.detect.slow import SlowDetector
from sidecar.replay.tape import MOST

COLUMNS: Final = ("timestamp", "value")
DIGITS: Final = 6
_NO_VALUE: Final = ("", "nan", "null", "none")


class SeriesError(ValueError):
    """
    A series that cannot be read.

    Attributes:
        hint: What to write instead.
    """

    def __init__(self, line: int, problem: str, hint: str) -> None:
        super().__init__(f"line {line}: {problem}")
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Row:
    """What the slow path says of one row."""

    row: int
    score: float
    alarm: bool

    def to_json(self) -> str:
        """Return it as one line of JSON, without a line feed."""
        return f'{{"row": {self.row}, "score": {self.score!r}, "alarm": {"true" if self.alarm else "false"}}}'


def rows(lines: Iterable[str]) -> Iterator[Row]:
    """
    Yield one row for each row of the series.

    Raises:
        SeriesError: at the first line that is none.
    """
    detector = SlowDetector()
    for number, (at_s, value) in enumerate(values(lines)):
        reading = detector.observe(at_s, value)
        yield Row(number, round(reading.score, DIGITS), reading.alarm)


def values(lines: Iterable[str]) -> Iterator[tuple[float, float]]:
    """Yield (Unix seconds, value) of each row; nan where there is none."""
    places: tuple[int, int] | None = None
    last = float("-inf")
    reader = csv.reader(lines)
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        if places is None:
            places, header = _places(cells, reader.line_num)
            if header:
                continue
        at_s, value = _row(cells, places, reader.line_num)
        if at_s < last:
            raise SeriesError(reader.line_num, "its timestamp is before the last one", "sort the rows by timestamp")
        last = at_s
        yield at_s, value


def _places(cells: Sequence[str], line: int) -> tuple[tuple[int, int], bool]:
    names = [cell.strip().lower() for cell in cells]
    if all(name in names for name in COLUMNS):
        return (names.index("timestamp"), names.index("value")), True
    if len(cells) < len(COLUMNS):
        raise SeriesError(line, "a row has two columns", "write timestamp,value, such as 2026-01-05 12:00:00,41.5")
    if not any(any(sign.isdigit() for sign in name) for name in names):
        hint = "name the columns in the first line: timestamp,value"
        raise SeriesError(line, f"the header '{','.join(names)[:60]}' has no timestamp and value", hint)
    return (0, 1), False


def _row(cells: Sequence[str], places: tuple[int, int], line: int) -> tuple[float, float]:
    if len(cells) <= max(places):
        raise SeriesError(line, f"{len(cells)} columns", "write timestamp,value, such as 2026-01-05 12:00:00,41.5")
    at, value = (cells[place].strip() for place in places)
    try:
        number = nan if value.lower() in _NO_VALUE else float(value)
    except ValueError as error:
        raise SeriesError(line, f"'{value[:40]}' is not a number", "write a number such as 41.5, or nothing") from error
    return _moment(at, line), number


def _moment(text: str, line: int) -> float:
    at_s = _seconds(text)
    if not -MOST <= at_s <= MOST:  # nan, too
        hint = "write Unix seconds (no milliseconds), or a time such as 2026-01-05 12:00:00"
        raise SeriesError(line, f"'{text[:40]}' is not a timestamp", hint)
    return at_s


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return nan
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
