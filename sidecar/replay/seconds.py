"""
From a tape's lines to seconds: which lines belong together, what was idle, and what a line implies.

Theory
    Live, every route has a row in every second. A tape may leave idle ones out, so a gap of at most `IDLE_S` is filled
    with idle seconds; a longer one is a pause of the recording, in which nothing was watched and no time passes for a
    detector. A line counts arrivals, a detector what ended: admitted = requests − refused, and what ended is
    admitted − (in flight now − in flight before) where the tape says how many were in flight; so a hang is one.

    The ages of those in flight are in a recording (`waiting`). Where they are not, as many as Little's law expects
    (arrivals × mean latency, twice that, at least three) are taken to be on their usual way. Of more, the youngest
    admitted ones are taken to be those in flight: under a hang that is exact, else it is the least that their ages can be.

What can go wrong
    Two lines for one route and second: an error, because nobody knows whether they add up. In flight falls by more
    than was in flight (a worker was lost): what ended is never less than what the line itself says ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import floor
from typing import Final

from sidecar.measure import histogram
from sidecar.replay.tape import Line, TapeError

IDLE_S: Final = 60.0
USUAL: Final = 3  # in flight at any time, of a small route
STEPS: Final = 8  # into which the arrivals of one second are parted
REMEMBERED_S: Final = 900  # seconds of arrivals in which those in flight are looked for


@dataclass(frozen=True, slots=True)
class Second:
    """
    All lines of one second, or of one step of several seconds.

    Attributes:
        t: Its end.
        lines: By route; empty for an idle second that the tape left out.
        step_s: How long it was.
    """

    t: float
    lines: Mapping[str, Line]
    step_s: float = 1.0


def seconds(lines: Iterable[Line]) -> Iterator[Second]:
    """
    Yield a tape's seconds, idle ones included.

    Raises:
        TapeError: when a route has two lines in one second.
    """
    t, found = 0.0, dict[str, Line]()
    for line in lines:
        if found and floor(line.t) == floor(t):
            if line.route in found:
                first = found[line.route].number
                raise TapeError(
                    line.number,
                    f"route '{line.route}' has a line for this second already (line {first})",
                    "write one line a route and second: add the two up",
                )
            found[line.route] = line
            continue
        if found:
            yield Second(t, found)
            yield from _idle(t, line.t)
        t, found = line.t, {line.route: line}
    if found:
        yield Second(t, found)


def _idle(last: float, following: float) -> Iterator[Second]:
    missing = floor(following) - floor(last) - 1
    if following - last <= IDLE_S:
        for i in range(1, missing + 1):
            yield Second(last + i, {})


class InFlight:
    """What is in flight on one route, from second to second."""

    __slots__ = ("_admitted", "_latency_s", "before")

    def __init__(self) -> None:
        self.before: int | None = None
        self._latency_s = 0.0  # the last mean that was seen
        self._admitted: deque[int] = deque(maxlen=REMEMBERED_S)

    def __repr__(self) -> str:
        return f"<InFlight {self.before}>"

    def ended(self, line: Line, admitted: int) -> int:
        """Return how many of the admitted requests ended in this second; call it once a second."""
        self._admitted.append(admitted)
        before, self.before = self.before, line.in_flight
        if before is None or line.in_flight is None:
            return admitted
        return max(admitted + before - line.in_flight, 0)

    def idle(self) -> None:
        """Take a second without a line."""
        self._admitted.append(0)

    def waiting(self, line: Line) -> Mapping[int, int]:
        """Return the ages of those without a first byte: bucket → count."""
        if line.waiting is not None:
            return line.waiting
        answered = sum(line.latency.values())
        if answered:
            self._latency_s = sum(histogram.MIDDLE_S[i] * count for i, count in line.latency.items()) / answered
        left, ages, age_s = line.in_flight or 0, dict[int, int](), 0.0
        if left <= max(USUAL, 2.0 * self._latency_s * line.requests):
            return {histogram.index(self._latency_s / 2): left} if left else {}
        for admitted in reversed(self._admitted):
            if left <= 0:
                break
            taken = min(left, admitted)
            steps = min(taken, STEPS)
            for j in range(steps):
                i = histogram.index(age_s + (j + 0.5) / steps * taken / admitted)
                ages[i] = ages.get(i, 0) + taken * (j + 1) // steps - taken * j // steps
            left -= taken
            age_s += 1.0
        return ages
