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


def test_a_hang_is_seen_after_seconds() -> None:
    """
    At 20/s: after 2 s a half has waited longer than a second; after one nobody has.
    """
    assert [stuck(hang(n), 0.02, 20) for n in (1, 2, 3)] == [False, True, True]


@pytest.mark.parametrize(
    ("rows", "normal_s", "least", "found"),
    [
        (hang(10, answered=12), 0.02, 20, False),
        (hang(10, answered=8), 0.02, 20, True),
        (hang(10, answered=1, refused=16), 0.02, 20, True),
        (hang(5, per_s=4), 0.02, 20, False),
        (hang(9, per_s=4), 0.02, 20, True),
        (hang(4), 0.5, 20, False),
        (hang(20), 0.5, 20, True),
        ([], 0.02, 20, False),
    ],
    ids=[
        "most come out",
        "most are stuck",
        "of those let in",
        "too few",
        "enough",
        "normal waits",
        "beyond them",
        "none",
    ],
)
def test_what_is_stuck(rows: list[RouteSecond], normal_s: float, least: int, found: bool) -> None:
    """
    Half of what was let in since the onset, enough requests, and longer than ten times the normal p95.
    """
    assert stuck(rows, normal_s, least) is found


def test_what_came_out_again_is_not_stuck() -> None:
    """
    The last second counts: a hang that is over has nobody waiting.
    """
    assert not stuck([*hang(10), RouteSecond("checkout", 111.0, arrivals=20, successes=220)], 0.02, 20)
