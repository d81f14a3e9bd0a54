"""How quantities, moments and cells look."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from sidecar.cli import render
from sidecar.cli.status import event_line
from sidecar.incident import words
from tests.support import documents as d

NOW = datetime(2026, 3, 1, 3, 20, tzinfo=UTC)

SECONDS = [
    (None, "–"), (0.0, "0ms"), (0.25, "250ms"), (1.0, "1s"), (1.94, "1.9s"), (9.97, "10s"), (12.4, "12s"),
    (60, "1m"), (250, "4m10s"), (3600, "1h"), (7500, "2h5m"), (86_520, "24h2m"), (200_000, "2d7h"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "expected"), SECONDS)
def test_seconds(value: float | None, expected: str) -> None:
    """A duration has at most two units."""
    assert render.seconds(value) == expected


@pytest.mark.parametrize(("value", "expected"), [(None, "–"), (0.0, "0%"), (0.0321, "3.21%"), (1.0, "100%")])
def test_share(value: float | None, expected: str) -> None:
    """A ratio is shown in percent."""
    assert render.share(value) == expected


MOMENTS = [
    (None, "–"),
    ("2026-03-01T03:19:58Z", "03:19:58Z (2s ago)"),
    ("2026-03-01T03:20:30.5Z", "03:20:30Z (in 30s)"),
    ("2026-03-01T04:19:58+01:00", "03:19:58Z (2s ago)"),
    ("2026-02-27T03:20:00Z", "2026-02-27 03:20:00Z (2d0h ago)"),
]


@pytest.mark.parametrize(("text", "expected"), MOMENTS)
def test_moment(text: str | None, expected: str) -> None:
    """A moment is shown in UTC with its distance; its date only when it is another day."""
    assert render.moment(text, NOW) == expected


def test_measured_by_unit() -> None:
    """A signal's value stands beside what is normal, in its own unit."""
    rate = {"value": 12.5, "baseline": 3.0, "sample": 40, "unit": "per_s"}
    eased = {**d.SLOW, "value": 0.09, "worst": 1.9}
    past = {**d.SIGNAL, "value": 0.0, "worst": 0.62, "sample": 0}
    trip = {**d.SIGNAL, "detector": "trip", "score": 2.0, "sample": 60}
    assert [render.measured(s) for s in (d.SIGNAL, d.SLOW, rate, eased, past, trip)] == [
        "62% fail (normally 0.1%), 340 requests",
        "1.9s (normally 80ms), 340 requests",
        "12.5/s (normally 3/s), 40 requests",
        "90ms lately, 1.9s at worst (normally 80ms), 340 requests",
        "62% fail at worst (normally 0.1%), no requests now",
        "opened 2×; 62% fail (normally 0.1%), 60 requests",
    ]


def test_nothing_of_a_client_moves_the_cursor() -> None:
    """Control characters in what a client chose are replaced, in tables and in event lines."""
    event = {**d.EVENT, "scope": "client:a:\x1b[2J", "body": {"path": "\r\x07"}}
    assert event_line(event).isprintable()
    grid = render.fields([("key", "\x1b[31mred")])
    assert "\x1b" not in str(next(iter(grid.columns[1].cells)))


def test_empty_table_is_a_sentence() -> None:
    """A list without rows says so in words."""
    assert render.table("", ("A",), [], "No [rows].") == "[dim]No \\[rows].[/]"


def test_error_line_without_place() -> None:
    """An error without a line is its path, problem and hint."""
    error = {"path": "a.b", "line": 0, "problem": "is wrong", "hint": "fix it"}
    assert [render.error_line(error), render.error_line({**error, "line": 3, "column": 7, "hint": ""})] == [
        "a.b: is wrong (fix it)", "3:7: a.b: is wrong",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "expected"), [(0.25, "0.25"), (12.34, "12.3"), (999.4, "999"), (999.7, "1,000"), (3083.0, "3,083")]
)
def test_figure(value: float, expected: str) -> None:
    """A quantity is never written as a power of ten, here or in an incident."""
    assert render.figure(value) == words.figure(value) == expected
