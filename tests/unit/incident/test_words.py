"""Moments and quantities as people read them."""

from __future__ import annotations

import pytest

from sidecar.incident.words import clock, duration, many, measured, percent, rfc3339, unix_of


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (1.0, "100 %"),
        (0.5, "50 %"),
        (0.0, "0 %"),
        (0.001, "0.1 %"),
        (0.00038, "0.038 %"),
        (0.0999, "10 %"),
        (0.034, "3.4 %"),
    ],
)
def test_percent(ratio: float, text: str) -> None:
    """
    Whole percents from ten on, two digits that mean something below.
    """
    assert percent(ratio) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0ms"), (0.25, "250ms"), (0.9999, "1s"), (2.3, "2.3s"), (12.4, "12s"), (250.0, "4m10s"), (300.0, "5m"),
     (3600.0, "1h"), (7500.0, "2h5m")],
)  # fmt: skip
def test_duration(seconds: float, text: str) -> None:
    """
    Rounded, in the config's own units.
    """
    assert duration(seconds) == text


def test_times_are_utc_with_a_z_and_come_back() -> None:
    """
    RFC 3339, milliseconds.
    """
    assert rfc3339(1_800_000_000.1234) == "2027-01-15T08:00:00.123Z"
    assert unix_of("2027-01-15T08:00:00.123Z") == pytest.approx(1_800_000_000.123)
    assert clock(1_800_000_000.0) == "08:00:00Z"


def test_quantities() -> None:
    """
    A value in its unit, a count with its noun.
    """
    assert [measured(0.5, "ratio"), measured(0.02, "s"), measured(12.345, "per_s")] == ["50 %", "20ms", "12.3/s"]
    assert [many(1, "request"), many(0, "request"), many(1204, "request")] == [
        "1 request",
        "0 requests",
        "1,204 requests",
    ]
