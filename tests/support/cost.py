"""
What a piece of the request path costs, in a unit that is the same on a fast, a slow and a busy machine.

The unit is one call of an empty function, measured beside it: 30 ns on the machine that the budgets were set on, so a
budget of 3 µs is 100 of them. The best of many short rounds counts: noise only ever adds.
"""

from __future__ import annotations

import time
import timeit
from collections.abc import Callable
from typing import Final

UNIT_S: Final = 30e-9
ITEMS: Final = 300
_ROUNDS: Final = 60


def empty() -> None:
    """Do nothing."""


def calls(run: Callable[[], None]) -> float:
    """Return what one of the `ITEMS` items of *run* costs, in empty calls."""
    pairs = [(timeit.timeit(run, number=1), timeit.timeit(_units, number=1)) for _ in range(_ROUNDS)]
    return min(cost for cost, _ in pairs) / min(cost for _, cost in pairs)


def cpu_calls(run: Callable[[], object]) -> float:
    """Return what one run costs in processor time, in empty calls: for what takes too long for many rounds."""
    began = time.thread_time()
    run()
    spent_s = time.thread_time() - began
    units = timeit.repeat(_units, timer=time.thread_time, number=20, repeat=_ROUNDS)
    return spent_s / (min(units) / (20 * ITEMS))


def _units() -> None:
    for _ in range(ITEMS):
        empty()


def budget(seconds: float) -> float:
    """Return a budget in empty calls."""
    return seconds / UNIT_S
