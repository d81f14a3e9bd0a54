"""The refusals detector, through the bank as the engine uses it."""

from __future__ import annotations

import pytest

from sidecar.detect.alarm import State
from sidecar.detect.bank import Bank
from sidecar.detect.policies import DetectPolicy
from sidecar.detect.refusals import RefusalsDetector
from sidecar.facts import Detector, RouteSecond, Scope, Signal


class Play:
    """A bank of some routes at 10/s each, of which some are refused."""

    def __init__(self, *routes: str) -> None:
        self.at = 1000.0
        self.routes = routes or ("checkout",)
        self.bank = Bank(DetectPolicy(), self.routes, self.at)
        self.signals: tuple[Signal, ...] = ()

    def run(self, seconds: int, refused: int = 0, reason: str = "rate_limited") -> Play:
        for _ in range(seconds):
            self.at += 1
            passed = 10 - refused
            rows = [
                RouteSecond(
                    route, self.at, arrivals=10, successes=passed, cancelled=refused,
                    refused={reason: refused} if refused else {}, latency={60: passed} if passed else {},
                )
                for route in self.routes
            ]  # fmt: skip
            self.signals = self.bank.observe(rows, self.at)
        return self

    def apply(self, version: int) -> Play:
        self.bank.version_applied(self.at, version)
        return self

    @property
    def claims(self) -> list[tuple[Detector, str]]:
        return [(signal.detector, str(signal.scope)) for signal in self.signals]


def test_a_limit_far_too_low_is_found_in_seconds_and_dated_to_its_version() -> None:
    """
    Nine of ten requests refused from a version on: claimed within 3 s, since the version, for raising only.
    """
    play = Play().run(300).apply(7).run(3, refused=9)

    (signal,) = play.signals
    assert (signal.detector, signal.scope, signal.since_at) == (Detector.REFUSALS, Scope.route("checkout"), 1300.0)
    assert (signal.value, signal.material, signal.severe) == (0.9, False, False)


def test_it_is_as_large_as_what_was_refused_beyond_the_reference() -> None:
    """
    Nine of ten for 10 s are 90 requests; where two of ten were refused before the version, 70.
    """
    (fresh,) = Play().run(300).apply(7).run(10, refused=9).signals
    (more,) = Play().run(300, refused=2).apply(7).run(10, refused=9).signals

    assert fresh.excess == pytest.approx(90, abs=1)
    assert more.excess == pytest.approx(70, abs=5)


def test_own_refusals_feed_nothing_else() -> None:
    """
    However many are refused, for whatever reason and with no version to blame, no other detector claims anything.
    """
    for reason in ("rate_limited", "concurrency_limited", "isolated", "breaker_open", "overridden", "client_throttled"):
        assert Play().run(1300).run(300, refused=10, reason=reason).claims == []


def test_refusals_that_were_there_before_are_not_the_versions() -> None:
    """
    A client that was limited before the version and is limited after it is no claim.
    """
    assert Play().run(300, refused=5).apply(7).run(120, refused=5).claims == []


def test_other_refusals_are_not_the_limits() -> None:
    """
    Isolation and breaker refuse by their own right; only limits and concurrency count.
    """
    assert Play().run(300).apply(7).run(60, refused=9, reason="isolated").claims == []
    assert Play().run(300).apply(7).run(60, refused=9, reason="concurrency_limited").claims != []


def test_ten_minutes_later_it_is_not_the_version_any_more() -> None:
    """
    Refusals that begin eleven minutes after a version are traffic, not config.
    """
    assert Play().run(300).apply(7).run(660).run(60, refused=9).claims == []


def test_a_rollback_lets_the_claim_fall() -> None:
    """
    The rollback is a version too: the claim stands on the old reference and closes a minute after the refusals end.
    """
    play = Play().run(300).apply(7).run(10, refused=9).apply(8)
    standing = play.run(1).claims
    play.run(90)

    assert standing == [(Detector.REFUSALS, "route:checkout")]
    assert play.claims == []


def test_all_routes_refusing_is_the_service() -> None:
    """
    When two routes claim it, the service does too, once.
    """
    play = Play("checkout", "search").run(300).apply(7).run(3, refused=9)

    assert play.claims == [
        (Detector.REFUSALS, "route:checkout"),
        (Detector.REFUSALS, "route:search"),
        (Detector.REFUSALS, "service"),
    ]


def test_the_first_version_of_a_start_has_nothing_to_compare_with() -> None:
    """
    A version that is applied before anything was seen is not watched.
    """
    assert Play().apply(1).run(120, refused=5).claims == []


def test_a_verdict_ends_the_claim() -> None:
    """
    `benign` ends it, and the version is not watched any more.
    """
    play = Play().run(300).apply(7).run(10, refused=9)
    play.bank.accept("checkout", Detector.REFUSALS)

    assert play.run(60, refused=9).claims == []


def test_what_a_watch_collected_without_a_claim_ends_with_it() -> None:
    """
    A few refusals just before the ten minutes end are no score that stands until the next version.
    """
    watch = RefusalsDetector(DetectPolicy(), 0.0)
    for second in range(1, 71):
        watch.observe(100, 0, float(second), 1.0)
    watch.version_applied(70.5, 2)
    for second in range(71, 671):
        watch.observe(100, second > 660, float(second), 1.0)
    assert watch.score > 0
    watch.observe(100, 0, 671.0, 1.0)

    assert (watch.score, watch.alarm.state, watch.snapshot()["mixture"]) == (0.0, State.NORMAL, None)
