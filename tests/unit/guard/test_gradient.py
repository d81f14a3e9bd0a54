from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import pytest

from sidecar.facts import Mode
from sidecar.guard.gradient import WINDOW_SAMPLES, Gradient2
from sidecar.guard.policies import ConcurrencyPolicy, RoutePolicy
from tests.support.playbook import (
    CANCELLED,
    CONCURRENCY_LIMITED,
    FAILURE,
    IGNORED,
    PENDING,
    ROUTE,
    Admit,
    Playbook,
    Refuse,
    service,
)

MS = 0.001


class Run:
    """An estimator that is fed window by window, and the documented formula beside it."""

    def __init__(self, least: int = 4, most: int = 256) -> None:
        self.made = Gradient2(least, most, 0.0)
        self.least, self.most = least, most
        self.limit, self.long_s = 20.0, 0.0
        self.now, self.windows = 0.0, 0

    def window(self, latencies: Sequence[float], *, drops: int = 0, in_flight: int = 1000) -> None:
        """End one window with these samples and drops."""
        self.now += 1.0
        for _ in range(drops):
            self.made.drop(in_flight, self.now if not latencies and _ == drops - 1 else self.now - 0.5)
        for index, latency_s in enumerate(latencies):
            self.made.sample(latency_s, in_flight, self.now if index == len(latencies) - 1 else self.now - 0.5)
        self._documented(latencies, drops, in_flight)
        assert self.made.limit == pytest.approx(self.limit)

    def _documented(self, latencies: Sequence[float], drops: int, in_flight: int) -> None:
        gradient = 0.5
        if latencies:
            self.windows += 1
            short = sum(latencies) / len(latencies)
            self.long_s += (short - self.long_s) * (1 / self.windows if self.windows <= 10 else 2 / 601)
            gradient = min(1.0, max(0.5, 1.5 * self.long_s / short))
            if self.long_s > 2 * short:
                self.long_s *= 0.95
        if in_flight < self.limit / 2:
            return
        gradient = max(0.5, gradient * (1 - drops / (len(latencies) + drops)))
        wanted = 0.8 * self.limit + 0.2 * (self.limit * gradient + sqrt(self.limit))
        self.limit = min(self.most, max(self.least, wanted))


def test_the_limit_follows_the_documented_formula() -> None:
    """
    Window after window, through all regimes, the limit is what the essay says.
    """
    run = Run()
    for latency_s, drops, in_flight, windows in (
        (10 * MS, 0, 1000, 20),
        (40 * MS, 0, 1000, 20),
        (10 * MS, 3, 1000, 10),
        (10 * MS, 0, 2, 5),
        (1 * MS, 0, 1000, 40),
        (3 * MS, 0, 30, 20),
    ):
        for _ in range(windows):
            run.window([latency_s] * 12, drops=drops, in_flight=in_flight)
    run.window([], drops=20)


def test_without_a_queue_the_limit_grows_to_its_maximum() -> None:
    """
    Steady latency and full use: from 20 to 100 within a minute, and never beyond `max`.
    """
    run = Run(most=120)
    for _ in range(60):
        run.window([10 * MS] * 50)
    assert 100.0 <= run.made.limit <= 120.0
    for _ in range(60):
        run.window([10 * MS] * 50)
    assert run.made.limit == 120.0


def test_a_queue_shrinks_the_limit_but_not_below_its_minimum() -> None:
    """
    Latency at four times what is normal: the limit falls quickly, and stops at `min`.
    """
    run = Run(least=6)
    for _ in range(60):
        run.window([10 * MS] * 50)
    before = run.made.limit
    for _ in range(10):
        run.window([60 * MS] * 50)
    assert run.made.limit < before / 2
    for _ in range(50):
        run.window([], drops=50)
    assert run.made.limit == 6.0


def test_a_limit_that_is_not_used_stays() -> None:
    """
    With less in flight than half of it there is nothing to learn about more, nor a reason for less.
    """
    run = Run()
    for latency_s in (10 * MS, 10 * MS, 80 * MS):
        run.window([latency_s] * 50, in_flight=9)
    assert run.made.limit == 20.0


def test_a_few_drops_pull_as_much_as_they_are() -> None:
    """
    One timeout in a hundred does not halve what ninety-nine fast answers allow.
    """
    one, all_of_them = Run(), Run()
    one.window([10 * MS] * 99, drops=1)
    all_of_them.window([], drops=100)
    assert one.made.limit > 20.0 > all_of_them.made.limit


def test_a_window_needs_its_time_and_its_samples() -> None:
    """
    Neither ten samples within a second nor nine over an hour move anything.
    """
    made = Gradient2(4, 256, 0.0)
    assert not any(made.sample(0.01, 100, 0.5) for _ in range(WINDOW_SAMPLES))
    assert made.sample(0.01, 100, 1.0)
    assert not any(made.sample(0.01, 100, 3600.0) for _ in range(WINDOW_SAMPLES - 1))
    assert made.sample(0.01, 100, 3600.0)


def test_a_slow_past_is_forgotten_when_latency_falls() -> None:
    """
    The long latency decays while it is more than twice the short one, so a new queue is seen.
    """
    run = Run()
    for _ in range(10):
        run.window([100 * MS] * 20)
    for _ in range(60):
        run.window([5 * MS] * 20)
    assert run.made.long_s <= 11 * MS


def test_other_bounds_keep_what_was_learned() -> None:
    """
    A live change of `min` or `max` moves the limit only as far as it must.
    """
    made = Gradient2(4, 256, 0.0)
    made.apply(4, 100)
    assert made.limit == 20.0
    made.apply(30, 100)
    assert made.limit == 30.0
    made.apply(2, 10)
    assert made.limit == 10.0
    assert repr(made) == "<Gradient2 limit=10.0 of 2..10 long=0.0ms>"


# --- within a guard ------------------------------------------------------------------------------------------------


def adaptive(least: int = 2, most: int = 40, mode: Mode = Mode.ENFORCE) -> RoutePolicy:
    """Return a route whose concurrency is learned."""
    return RoutePolicy(ROUTE, concurrency=ConcurrencyPolicy(most, mode, least))


def seconds(play: Playbook, count: int, latency_s: float | None, *, outcome: object = None) -> None:
    """Fill the limit and end all of it, once a second."""
    for _ in range(count):
        play.at(play.now + 1.0)
        while len(play.pending) < (play.route.gauges(play.now).concurrency_limit or 0):
            play.send(outcome=PENDING)
        play.end(latency_s=latency_s, **({"outcome": outcome} if outcome else {}))


def test_a_guard_learns_and_shows_its_limit() -> None:
    """
    It starts at 20, grows while latency is steady, refuses beyond it, and the gauge says so.
    """
    play = Playbook(adaptive())
    assert play.route.gauges(0.0).concurrency_limit == 20
    seconds(play, 10, 10 * MS)
    limit = play.route.gauges(play.now).concurrency_limit
    assert limit is not None
    assert limit > 25
    play.send(limit, outcome=PENDING).expect(Refuse(CONCURRENCY_LIMITED))


def test_timeouts_shrink_the_limit_and_are_no_samples() -> None:
    """
    A failure without a first byte is a drop whatever its age; what was normal stays normal.
    """
    play = Playbook(adaptive())
    seconds(play, 5, 10 * MS)
    learned = play.route._concurrency.adaptive
    assert learned is not None
    before, long_s = learned.limit, learned.long_s
    seconds(play, 10, 30.0, outcome=FAILURE)
    assert learned.limit < 0.7 * before
    assert learned.long_s == long_s


def test_what_says_nothing_about_load_teaches_nothing() -> None:
    """
    4xx, own refusals and fast errors with an answer move no limit.
    """
    play = Playbook(adaptive())
    seconds(play, 5, 10 * MS, outcome=IGNORED)
    seconds(play, 5, None, outcome=CANCELLED)
    for _ in range(30):
        play.at(play.now + 1.0).send(15, outcome=FAILURE, latency_s=MS)
    assert play.route.gauges(play.now).concurrency_limit == 20


def test_the_services_limit_learns_from_all_routes() -> None:
    """
    One limit over two routes.
    """
    policy = service(RoutePolicy("a"), RoutePolicy("b"), concurrency=ConcurrencyPolicy(100, min_in_flight=2))
    play = Playbook(policy)
    for _ in range(10):
        play.at(play.now + 1.0)
        play.of(route="a").send(10, outcome=PENDING).of(route="b").send(10, outcome=PENDING).end(latency_s=0.01)
    assert play.guard._shared.concurrency.cap > 25


def test_a_fixed_limit_that_becomes_adaptive_and_back() -> None:
    """
    Live, with what is in flight.
    """
    play = Playbook(RoutePolicy(ROUTE, concurrency=ConcurrencyPolicy(1))).send(outcome=PENDING)
    play.expect(Refuse(CONCURRENCY_LIMITED)).apply(adaptive()).send(19, outcome=PENDING).expect(
        Refuse(CONCURRENCY_LIMITED)
    )
    play.apply(RoutePolicy(ROUTE, concurrency=ConcurrencyPolicy(21))).send(outcome=PENDING)
    play.expect(Refuse(CONCURRENCY_LIMITED)).apply(RoutePolicy(ROUTE)).send(5)


def test_an_observed_adaptive_limit_refuses_nothing() -> None:
    """
    It notes what it would have refused.
    """
    play = Playbook(adaptive(mode=Mode.OBSERVE)).send(20, outcome=PENDING)
    play.expect(Admit(would=(CONCURRENCY_LIMITED,)))


@pytest.mark.parametrize(("workers", "expected"), [(1, (4, 10)), (4, (1, 3))])
def test_each_worker_learns_its_part(workers: int, expected: tuple[int, int]) -> None:
    """
    Of N workers each has the N-th part of `min` and `max`, rounded up.
    """
    play = Playbook(service(adaptive(4, 10), workers=workers))
    learned = play.route._concurrency.adaptive
    assert learned is not None
    assert (learned._least, learned._most) == expected
