"""
How long a test waits for what must come.

Long, because a wait costs its time only when the thing never comes: a machine that is ten times slower than usual is no
reason to fail. No test may conclude anything from the length of a wait that succeeded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

WAIT_S: Final = 150.0
TRIES: Final = 10


def quickest_s(timed: Callable[[], float], enough_s: float) -> float:
    """
    Return the seconds of the quickest of some tries, and try no more once one took less than *enough_s*.

    For what must be quick by its nature: a busy machine only ever adds to a time, and not to each of ten the same.
    """
    took = [timed()]
    while min(took) >= enough_s and len(took) < TRIES:
        took.append(timed())
    return min(took)
