from __future__ import annotations

from sidecar.guard.ring import Ring


def test_counts_leave_bucket_by_bucket() -> None:
    """
    What was counted in a bucket leaves, exactly, when the window has passed over it.
    """
    ring = Ring(10.0, 0.0)
    totals = []
    for second in range(13):
        ring.rotate(float(second))
        ring.judged += 1
        ring.failures += second % 2
        totals.append((ring.judged, ring.failures))
    assert totals[9:] == [(10, 5), (10, 5), (10, 5), (10, 5)]


def test_a_long_silence_empties_it() -> None:
    """
    After a window without a call nothing is left.
    """
    ring = Ring(10.0, 0.0)
    ring.judged = ring.failures = ring.timed = ring.slow = 3
    ring.rotate(500.0)
    assert (ring.judged, ring.failures, ring.timed, ring.slow) == (0, 0, 0, 0)


def test_time_going_backwards_ends_no_bucket() -> None:
    """
    A clock that steps back keeps every count.
    """
    ring = Ring(10.0, 100.0)
    ring.judged = 5
    ring.rotate(0.0)
    assert ring.judged == 5
