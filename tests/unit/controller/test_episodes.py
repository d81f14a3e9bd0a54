"""Which alarms a verdict keeps silent, and for how long."""

from __future__ import annotations

from dataclasses import replace

from sidecar.controller.book import Book
from sidecar.controller.episodes import Episodes
from sidecar.decide.policies import RespondPolicy
from sidecar.decide.policy import Case
from sidecar.decide.size import LONGEST_S, Size, Sizes
from sidecar.facts import Detector, Moment, Scope, Signal

CHECKOUT = Scope.route("checkout")
UNIX = 1_800_000_000.0
HANG = Signal(
    Detector.LATENCY, CHECKOUT, 60.0, 0.05, 8, 25.0, 20.0, since_at=1000.0, unit="s", excess=7.9, ongoing=True
)


def silent(*said: tuple[int, Signal]) -> list[bool]:
    """Tell for each of these signals, heard so many seconds after the onset, whether a false verdict of size 18 silences it."""
    book = Book(RespondPolicy(), "boot")
    book.sizes = Sizes().judged(1, [Size(1, CHECKOUT, Detector.LATENCY, real=False, excess=18.0)])
    episodes, found = Episodes(book), []
    for passed_s, signal in said:
        now = Moment(signal.since_at + passed_s, UNIX + passed_s)
        case = Case(signal.scope, (signal,), severe=False, agreed=False, sample=8)
        episodes.follow([case], now)
        found.append(episodes.silenced(case, now))
    return found


def test_a_hang_that_lasts_is_told() -> None:
    """
    Eight connections hang and nothing more comes: their number does not grow, and after five minutes people are told.
    """
    assert silent((4, HANG), (int(LONGEST_S), HANG), (int(LONGEST_S) + 1, HANG)) == [True, True, False]


def test_an_alarm_that_only_fades_does_no_harm() -> None:
    """
    What was over after four seconds is silent until its alarm has ended, however long that takes.
    """
    over = replace(HANG, ongoing=False)

    assert silent((4, HANG), (400, over), (900, replace(over, fading=True))) == [True, True, True]
