"""Requests that go in and do not come out."""

from __future__ import annotations

import pytest

from sidecar.detect.inflight import stuck
from sidecar.facts import RouteSecond
from sidecar.measure.histogram import of_values


def hang(seconds: int, *, per_s: int = 20, answered: int = 0, refused: int = 0) -> list[RouteSecond]:
    """Return the first seconds of a hang in which so many of each second's requests are answered or refused."""
    held = per_s - answered - refused
    return [
        RouteSecond(
            "checkout", 100.0 + n, arrivals=per_s, successes=answered,
            refused={"isolated": refused} if refused else {},
            waiting=of_values([age + 0.5 for age in range(n) for _ in range(held)]),
        )
        for n in range(1, seconds + 1)
    ]  # fmt: skip


def found(rows: list[RouteSecond], normal_s: float = 0.02, least: int = 20) -> bool:
    return stuck(rows, normal_s, least, rows[-1].at if rows else 100.0) > 0


def test_a_hang_is_seen_after_seconds_and_a_pause_is_none() -> None:
    """
    At 20/s: nothing for five seconds, for so long a pause may last; in the sixth the first ones are stuck.
    """
    assert [found(hang(seconds)) for seconds in (1, 3, 5, 6, 7, 30)] == [False, False, False, True, True, True]


@pytest.mark.parametrize(
    ("rows", "normal_s", "expected"),
    [
        (hang(15, answered=12), 0.02, False),
        (hang(15, answered=8), 0.02, True),
        (hang(15, per_s=40, answered=2, refused=32), 0.02, True),
        (hang(9, per_s=4), 0.02, False),
        (hang(13, per_s=4), 0.02, True),
        (hang(9), 1.0, False),
        (hang(13), 1.0, True),
        ([], 0.02, False),
    ],
    ids=["most come out", "most do not", "of those let in", "too few", "enough", "normal waits", "beyond them", "none"],
)
def test_what_is_stuck(rows: list[RouteSecond], normal_s: float, expected: bool) -> None:
    """
    Half of what was let in long enough ago, enough requests, and longer than ten times the normal p95.
    """
    assert found(rows, normal_s) is expected


def test_who_waits_is_asked_now() -> None:
    """
    What came out again is not stuck, and a second that is long past says nothing of the present.
    """
    assert not found([*hang(10), RouteSecond("checkout", 111.0, arrivals=20, successes=220)])
    assert not stuck(hang(10), 0.02, 20, 112.0)


def test_an_hour_of_normal_traffic_before_is_no_excuse() -> None:
    """
    Only the last seconds count: an onset that was estimated far too early delays nothing.
    """
    before = [RouteSecond("checkout", 40.0 + n, arrivals=20, successes=20) for n in range(1, 61)]
    later = [RouteSecond("checkout", row.at, arrivals=20, waiting=row.waiting) for row in hang(12)]
    assert [found([*before, *later[:n]]) for n in (5, 10, 12)] == [False, True, True]
