"""A breaker's trip as a signal."""

from __future__ import annotations

from sidecar.detect.bank import Bank
from sidecar.detect.policies import DetectPolicy
from sidecar.facts import Detector, RouteSecond, Signal


class Play:
    """A bank with one route whose breaker trips."""

    def __init__(self) -> None:
        self.at = 1000.0
        self.bank = Bank(DetectPolicy(), ["checkout"], self.at)

    def second(self, *, trips: int = 0, blocked: int = 0, failures: int = 0) -> dict[Detector, Signal]:
        self.at += 1
        row = RouteSecond(
            "checkout", self.at, arrivals=10, failures=failures, successes=0 if blocked else 10 - failures, trips=trips,
            cancelled=blocked, refused={"breaker_open": blocked} if blocked else {},
        )  # fmt: skip
        return {signal.detector: signal for signal in self.bank.observe([row], self.at)}


def test_a_trip_is_severe_and_satisfies_every_minimum() -> None:
    """
    Seven failures and a trip, on a cold route: severe and material at once, with the measured ratio.
    """
    play = Play()
    signal = play.second(trips=1, failures=7)[Detector.TRIP]

    assert (signal.severe, signal.material, signal.value, signal.score) == (True, True, 0.7, 1.0)


def test_what_was_well_before_it_does_not_thin_its_ratio() -> None:
    """
    The ratio is of the requests since the first failure of the run, not of the half minute around it.
    """
    play = Play()
    for _ in range(25):
        play.second()
    play.second(failures=9)
    signal = play.second(trips=1, failures=9)[Detector.TRIP]

    assert (signal.value, signal.sample) == (0.9, 20)


def test_it_stands_while_the_breaker_refuses_and_counts_retrips() -> None:
    """
    Refusals by the open breaker keep it, and each trip raises its score: one claim, not several.
    """
    play = Play()
    play.second(trips=1, failures=7)
    for _ in range(300):
        play.second(blocked=10)
    signal = play.second(trips=1, blocked=9)[Detector.TRIP]

    assert signal.score == 2.0
    assert not signal.fading


def test_its_onset_is_the_first_failure_of_the_run() -> None:
    """
    Two seconds of failures before the trip belong to it; one failure long before does not, nor a time before the start.
    """
    play = Play()
    play.second(failures=1)
    for _ in range(5):
        play.second()
    play.second(failures=8)
    play.second(failures=10)
    later = play.second(trips=1, failures=10)[Detector.TRIP]
    at_once = Play().second(trips=1, failures=7)[Detector.TRIP]

    assert later.since_at == 1006.0
    assert at_once.since_at == 1000.0


def test_a_breaker_that_tripped_on_slowness_or_on_nothing_seen_began_with_its_second() -> None:
    """
    Nothing failed: the second of the trip is all that is known; and of a long outage the last 10 s are its run.
    """
    play = Play()
    play.second()
    slow = play.second(trips=1)[Detector.TRIP]
    long = Play()
    for _ in range(60):
        long.second(failures=10)
    after = long.second(trips=1, failures=10)[Detector.TRIP]

    assert slow.since_at == 1001.0
    assert after.since_at == 1051.0


def test_it_fades_between_the_last_refusal_and_its_end() -> None:
    """
    A second without a trip and without a refusal by the breaker says that only the waiting is left.
    """
    play = Play()
    play.second(trips=1, failures=7)
    fading = [play.second(blocked=blocked)[Detector.TRIP].fading for blocked in (5, 0, 5, 0)]

    assert fading == [False, True, False, True]


def test_it_ends_when_neither_was_seen_for_the_wait() -> None:
    """
    60 s without a trip and without a refusal by the breaker end it.
    """
    play = Play()
    play.second(trips=1, failures=7)
    claims = [Detector.TRIP in play.second() for _ in range(61)]

    assert (claims[58], claims[59]) == (True, False)


def test_while_it_stands_nothing_is_learnt() -> None:
    """
    Refusals of an open breaker leave the baseline alone, though no other detector alarms.
    """
    play = Play()
    for _ in range(400):
        play.second()
    before = play.bank.snapshot()["checkout"]["errors"]["baseline"]["requests"]
    play.second(trips=1)
    for _ in range(1200):
        play.second(blocked=5)

    assert play.bank.snapshot()["checkout"]["errors"]["baseline"]["requests"] == before
