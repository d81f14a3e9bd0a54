from __future__ import annotations

import pytest

from sidecar.facts import BreakerState, Mode
from sidecar.guard.breaker import jittered
from sidecar.guard.guard import Ticket
from tests.support.playbook import (
    BREAKER_OPEN,
    CANCELLED,
    FAILURE,
    IGNORED,
    PENDING,
    ROUTE,
    Admit,
    Playbook,
    Refuse,
    breaker,
    closed_again,
    opened,
    service,
)

NO = Refuse(BREAKER_OPEN)


def test_half_open_admits_exactly_the_probes() -> None:
    """
    After the cool-down five probes pass and the sixth request is refused until one returns.
    """
    play = Playbook(breaker(consecutive=7, open_s=5, probes=5))

    play.at(0.0).send(7, outcome=FAILURE)
    play.at(0.1).expect(Refuse(BREAKER_OPEN, retry_after_s=pytest.approx(4.9)))
    play.at(5.1).send(5, outcome=PENDING).expect(NO)
    play.end(1).send(1, outcome=PENDING).expect(NO)


# --- trips -------------------------------------------------------------------------------------------------------


def test_trips_on_consecutive_failures_and_not_one_before() -> None:
    """
    Six failures in a row do not trip, the seventh does.
    """
    play = Playbook(breaker()).at(0.0).send(6, outcome=FAILURE)
    assert play.tick() == []
    play.send(outcome=FAILURE).expect(NO)
    assert play.tick() == ["consecutive"]


def test_trips_at_exactly_the_error_ratio() -> None:
    """
    10 failures of 20 are compared with ≥: they trip, also when the twentieth outcome is a success.
    """
    play = Playbook(breaker()).at(0.0)
    for _ in range(9):
        play.send(outcome=FAILURE).send()
    play.send(outcome=FAILURE)
    assert play.state == "closed"
    play.send().expect(NO)
    assert play.tick() == ["error_ratio"]


def test_never_trips_under_the_minimum_sample() -> None:
    """
    One failure of one request is no ratio.
    """
    play = Playbook(breaker(consecutive=0)).at(0.0).send(19, outcome=FAILURE)
    assert play.state == "closed"


def test_trips_on_slow_successes() -> None:
    """
    16 of 20 answers slower than `slow` trip although none failed.
    """
    play = Playbook(breaker(slow_s=1.0)).at(0.0).send(4, latency_s=0.1)
    play.send(15, latency_s=1.0)
    assert play.state == "closed"
    play.send(latency_s=2.0)
    assert play.tick() == ["slow_ratio"]


def test_a_hang_counts_as_slow_before_it_ends() -> None:
    """
    Twenty requests without a first byte trip as soon as their age passes `slow`, each counted once.
    """
    play = Playbook(breaker(slow_s=1.0)).at(0.0).send(20, outcome=PENDING)
    assert play.at(0.9).tick() == []
    assert play.at(1.0).tick() == ["slow_ratio"]
    play.end(outcome=FAILURE, latency_s=1.0)
    assert play.tick() == []


def test_only_the_overdue_count_as_slow() -> None:
    """
    Younger requests wait on, and are looked at when their own time comes.
    """
    play = Playbook(breaker(slow_s=1.0)).at(0.0).send(10, outcome=PENDING).at(0.5).send(10, outcome=PENDING)
    assert play.at(1.0).tick() == []
    assert [ticket.slow for _, ticket in play.pending] == [True] * 10 + [False] * 10
    assert play.at(1.5).tick() == ["slow_ratio"]


def test_what_hangs_from_before_the_trip_does_not_count_again() -> None:
    """
    A request that becomes overdue while the breaker is open is of an older generation.
    """
    play = Playbook(breaker(slow_s=1.0)).at(0.0).send(20, outcome=PENDING).send(7, outcome=FAILURE)
    play.at(1.0).tick()
    assert play.state == "open"
    assert play.route.breaker is not None
    assert play.route.breaker.ring.slow == 0


def test_a_hang_is_found_by_the_next_request_too() -> None:
    """
    The age is looked at on admission, not only four times a second.
    """
    Playbook(breaker(slow_s=1.0)).at(0.0).send(20, outcome=PENDING).at(1.0).expect(NO)


def test_a_stream_is_not_slow() -> None:
    """
    The age of a request ends at its first byte, so a stream of events never counts as slow.
    """
    play = Playbook(breaker(slow_s=1.0)).at(0.0).send(20, outcome=PENDING)
    for route, ticket in play.pending:
        route.first_byte(ticket, 0.5)
    assert play.at(60.0).tick() == []
    assert not any(ticket.slow for _, ticket in play.pending)


def test_an_upload_is_not_slow() -> None:
    """
    The time before the last request byte was sent is the client's, not the upstream's.
    """
    play = Playbook(breaker(slow_s=1.0)).at(0.0)
    tickets = [play.route.admit("k1", 0.0) for _ in range(20)]
    assert play.at(60.0).tick() == []
    assert all(isinstance(ticket, Ticket) and not ticket.slow for ticket in tickets)


def test_ignored_neither_feeds_nor_resets() -> None:
    """
    A 404 between failures does not start the row anew (nora#614), and alone it never trips.
    """
    play = Playbook(breaker()).at(0.0).send(6, outcome=FAILURE).send(50, outcome=IGNORED, client_error=True)
    assert play.state == "closed"
    play.send(outcome=FAILURE).expect(NO)


def test_cancelled_is_not_an_outcome() -> None:
    """
    What never reached the upstream says nothing about it.
    """
    play = Playbook(breaker()).at(0.0).send(100, outcome=CANCELLED)
    assert play.state == "closed"
    assert play.route.breaker is not None
    assert play.route.breaker.ring.judged == 0


def test_a_success_ends_the_row() -> None:
    """
    Six failures, a success, six failures: no trip by the row.
    """
    play = Playbook(breaker(min_requests=100)).at(0.0)
    play.send(6, outcome=FAILURE).send().send(6, outcome=FAILURE)
    assert play.state == "closed"


def test_old_failures_leave_the_window() -> None:
    """
    Failures older than the window do not count in a ratio.
    """
    play = Playbook(breaker(consecutive=0)).at(0.0).send(19, outcome=FAILURE)
    play.at(10.1).send(19).send(1, outcome=FAILURE)
    assert play.state == "closed"


# --- open --------------------------------------------------------------------------------------------------------


def test_open_admits_nothing_until_its_time() -> None:
    """
    Open means blocking, and Retry-After is the time to the probes.
    """
    play = opened()
    for now in (0.0, 1.0, 4.999):
        play.at(now).expect(Refuse(BREAKER_OPEN, retry_after_s=pytest.approx(5.0 - now), rule="breaker"))


def test_leaves_open_by_time_without_any_request() -> None:
    """
    An idle route does not stay open for ever (resilience4j#347).
    """
    play = opened().at(5.0)
    play.tick()
    assert play.state == "half_open"


def test_open_time_doubles_to_its_maximum() -> None:
    """
    Each trip in a row stays open twice as long, up to `max_open`.
    """
    play, now = opened(max_open_s=60.0), 0.0
    waits = []
    for _ in range(6):
        trip = play.guard.tick(now)[-1]
        waits.append(trip.open_s)
        now = trip.at + trip.open_s
        play.at(now).send(3, outcome=FAILURE)
    assert waits == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]


def test_a_healthy_window_takes_one_step_back() -> None:
    """
    After two trips and one healthy window the next trip is open as long as the second, not the third.
    """
    play = closed_again(ramp=(1.0,)).send(7, outcome=FAILURE)
    play.at(15.0).send(8)
    play.tick()
    play.at(24.0).send(20)
    play.at(25.0).tick()
    play.send(7, outcome=FAILURE)
    assert [trip.open_s for trip in play.guard.tick(25.0)] == [10.0]


def test_a_window_without_traffic_is_not_healthy() -> None:
    """
    Silence takes no step back, but a trip ten times older than `max_open` is forgotten.
    """
    play = closed_again(ramp=(1.0,))
    play.at(100.0).tick()
    play.send(7, outcome=FAILURE)
    assert [trip.open_s for trip in play.guard.tick(100.0)] == [10.0]
    play.guard.reset_breaker(ROUTE, 101.0)
    play.at(5000.0).send(7, outcome=FAILURE)
    assert [trip.open_s for trip in play.guard.tick(5000.0)] == [5.0]


def test_a_trip_long_ago_is_forgotten() -> None:
    """
    A trip older than ten times `max_open` does not make the next one longer.
    """
    play = closed_again(ramp=(1.0,)).at(3001.0).send(7, outcome=FAILURE)
    assert [trip.open_s for trip in play.guard.tick(3001.0)][-1] == 5.0


def test_reset_by_hand_closes_at_once() -> None:
    """
    A reset closes without a ramp and forgets the doubling (envoy#6016, #17147).
    """
    play = opened()
    play.guard.reset_breaker(ROUTE, 1.0)
    play.at(1.0).send(50).send(7, outcome=FAILURE)
    assert [trip.open_s for trip in play.guard.tick(1.0)] == [5.0, 5.0]


def test_another_workers_trip_opens_this_one() -> None:
    """
    A told breaker blocks until the given moment, and does not report a trip of its own.
    """
    play = Playbook(breaker()).at(1.0)
    play.guard.open_breaker(ROUTE, 7.5, "9 of 20 failed", 1.0)
    play.expect(Refuse(BREAKER_OPEN, retry_after_s=pytest.approx(6.5)))
    assert play.tick() == []
    assert play.guard.gauges(ROUTE, 1.0).trips == 0
    play.guard.open_breaker(ROUTE, 6.0, "later", 1.1)
    play.at(7.4).expect(NO).at(7.5).send(outcome=PENDING)


def test_jitter_takes_up_to_half_and_is_repeatable() -> None:
    """
    The time open is a function of seed, scope and generation, between half and all of what was wanted.
    """
    waits = [jittered(8.0, "install", ROUTE, generation) for generation in range(200)]
    assert waits == [jittered(8.0, "install", ROUTE, generation) for generation in range(200)]
    assert 4.0 <= min(waits) < 4.5
    assert 7.5 < max(waits) <= 8.0
    assert jittered(8.0, "install", ROUTE, 1) != jittered(8.0, "other", ROUTE, 1)


# --- observing and live changes ----------------------------------------------------------------------------------


def test_an_observing_breaker_counts_and_never_refuses() -> None:
    """
    Open, it lets all pass and says what it would have done; those do not count as its probes.
    """
    play = Playbook(breaker(mode=Mode.OBSERVE)).at(0.0)
    play.send(7, outcome=FAILURE).expect(Admit(would=(BREAKER_OPEN,)))
    [trip] = play.guard.tick(0.0)
    assert not trip.enforced
    play.at(5.0).send(5, outcome=PENDING).expect(Admit(would=(BREAKER_OPEN,)))
    play.end(5)
    assert play.state == "half_open"


def test_a_live_change_keeps_the_state() -> None:
    """
    Another number in the policy neither closes an open breaker nor forgets its generation.
    """
    play = opened()
    before = play.guard.gauges(ROUTE, 0.0)
    play.at(1.0).apply(breaker(consecutive=9, window_s=20.0)).expect(Refuse(BREAKER_OPEN, pytest.approx(4.0)))
    assert play.guard.gauges(ROUTE, 0.0) == before


def test_a_longer_ramp_does_not_throttle_who_has_climbed() -> None:
    """
    A route at its full share keeps it, whatever steps the next policy has.
    """
    play = Playbook(breaker()).apply(breaker(ramp=(0.1, 0.2, 0.3, 0.4, 0.5, 1.0)))
    assert play.passed(50) == 50


def test_a_breaker_that_comes_back_starts_a_new_generation() -> None:
    """
    Switched off and on again it is closed, and outcomes from before do not count.
    """
    play = opened().at(1.0)
    generation = play.guard.gauges(ROUTE, 1.0).generation
    play.apply(service()).send(3, outcome=PENDING)
    assert play.guard.gauges(ROUTE, 1.0).breaker is BreakerState.CLOSED
    play.apply(breaker()).end(outcome=FAILURE).send(6, outcome=FAILURE)
    assert play.state == "closed"
    assert play.guard.gauges(ROUTE, 1.0).generation > generation


def test_time_going_backwards_grants_nothing() -> None:
    """
    A clock that steps back neither half-opens the breaker nor empties its window.
    """
    play = Playbook(breaker(consecutive=0)).at(100.0).send(10, outcome=FAILURE)
    play.at(50.0).send(10, outcome=FAILURE).expect(NO)
    play.at(0.0).expect(NO)
    play.tick()
    assert play.state == "open"


def test_repr_names_state_generation_and_counts() -> None:
    """
    A breaker says in one line what a person needs to know of it.
    """
    play = Playbook(breaker()).at(0.0).send(2, outcome=FAILURE)
    assert repr(play.route.breaker) == "<Breaker checkout closed g0 probes=0 <Ring failures=2/2 slow=0/0>>"
