"""What asks again within its back-off, in a retry storm, gets what first tries leave: of every shared store a part is kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.facts import Action, Mode, Scope
from sidecar.guard.guard import Ticket
from sidecar.guard.policies import (
    BreakerPolicy,
    ConcurrencyPolicy,
    GuardPolicy,
    LimitMode,
    LimitPolicy,
    Priority,
    RoutePolicy,
)
from sidecar.reasons import Reason, Refusal
from tests.support.playbook import ROUTE, SUCCESS, Playbook, bucket, isolation, limited, override, service


def again(play: Playbook, count: int = 1, client: str = "k1") -> list[Ticket | Refusal]:
    """Let *count* requests ask again; those that pass end at once."""
    answers = [play.route.admit_again(client, play.now) for _ in range(count)]
    for answer in answers:
        if isinstance(answer, Ticket):
            play.route.settle(answer, SUCCESS, play.now)
    return answers


def passed(answers: list[Ticket | Refusal]) -> int:
    return sum(isinstance(answer, Ticket) for answer in answers)


def why(answer: Ticket | Refusal) -> tuple[Reason, str, str]:
    assert isinstance(answer, Refusal)
    return answer.reason, answer.rule, answer.detail


@pytest.mark.parametrize(
    ("policy", "rule"),
    [
        (service(limited(route=bucket(10, 20))), "limit"),
        (service(RoutePolicy(ROUTE), limit=LimitPolicy(bucket(10, 20))), "service.limit"),
    ],
    ids=["route", "service"],
)
def test_half_of_a_shared_burst_is_kept_for_first_tries(policy: GuardPolicy, rule: str) -> None:
    """
    Of a full bucket of 20 re-arrivals take 10; then first tries find 10, and the refusal says what it kept.
    """
    play = Playbook(policy)
    answers = again(play, 30)
    assert passed(answers) == 10
    assert why(answers[-1]) == (Reason.RATE_LIMITED, rule, "10/s burst 20, 50% of it kept for first tries")
    assert play.passed(30) == 10


def test_the_wait_of_a_re_arrival_is_exact() -> None:
    """
    After its Retry-After the one that was refused passes, and a moment before it does not.
    """
    play = Playbook(limited(route=bucket(10, 20)))
    answer = again(play, 11)[-1]
    assert isinstance(answer, Refusal)
    assert passed(again(play.at(answer.retry_after_s - 0.001))) == 0
    assert passed(again(play.at(answer.retry_after_s))) == 1


def test_a_clients_own_bucket_keeps_nothing() -> None:
    """
    What a client may send is its own affair: its re-arrivals may use all of it.
    """
    play = Playbook(limited(client=bucket(10, 20)))
    answers = again(play, 30)
    assert passed(answers) == 20
    assert why(answers[-1]) == (Reason.RATE_LIMITED, "limit.per_client", "10/s burst 20")


@pytest.mark.parametrize(
    ("policy", "most", "first"),
    [
        (service(RoutePolicy(ROUTE, concurrency=ConcurrencyPolicy(10))), 8, 2),
        (service(RoutePolicy(ROUTE), concurrency=ConcurrencyPolicy(10)), 8, 2),
        (service(RoutePolicy(ROUTE, concurrency=ConcurrencyPolicy(1))), 1, 0),
        (service(RoutePolicy(ROUTE, priority=Priority.LOW), RoutePolicy("b"), concurrency=ConcurrencyPolicy(10)), 6, 2),
    ],
    ids=["route", "service", "one permit", "low priority"],
)
def test_a_fifth_of_the_permits_is_kept_for_first_tries(policy: GuardPolicy, most: int, first: int) -> None:
    """
    Re-arrivals may be in flight up to four fifths of what their priority may.
    """
    play = Playbook(policy)
    answers = [play.route.admit_again("k1", 0.0) for _ in range(12)]
    assert passed(answers) == most
    assert why(answers[-1])[0] is Reason.CONCURRENCY_LIMITED
    assert sum(isinstance(play.route.admit("k2", 0.0), Ticket) for _ in range(12)) == first


def test_the_trials_of_an_isolation_are_first_tries() -> None:
    """
    A share of a tenth of all: where two in fifteen are first tries these are all the trials there are.
    """
    play = Playbook(service(RoutePolicy(ROUTE))).direct(isolation(Scope.route(ROUTE), share=0.1))
    first = other = 0
    for number in range(1500):
        play.at(number * 0.01)
        if number % 15 in (4, 11):
            first += play.passed(1)
        else:
            other += passed(again(play))
    assert 147 <= first <= 151
    assert other <= 2


def test_where_all_ask_again_a_share_is_a_share() -> None:
    """
    Nobody else is there: the trials go on, a tenth of all.
    """
    play = Playbook(service(RoutePolicy(ROUTE))).direct(isolation(Scope.route(ROUTE), share=0.1))
    assert 98 <= passed(again(play, 1000)) <= 101


def test_a_throttle_paces_first_tries_before_others() -> None:
    """
    At 10/s a first try each 100 ms finds its token although a hundred others ask again meanwhile.
    """
    throttle = override(Scope.route(ROUTE), Action.THROTTLE, rate_per_s=10.0)
    play = Playbook(service(RoutePolicy(ROUTE))).direct(throttle)
    first = 0
    for number in range(100):
        for part in range(100):
            play.at(number * 0.1 + part * 0.001)
            if part == 30:
                first += play.passed(1)
            else:
                again(play)
    assert first == 100


def test_a_part_of_a_throttles_burst_is_kept_for_first_tries() -> None:
    """
    At 100/s a tenth of a second is the burst: of its ten tokens re-arrivals take five.
    """
    throttle = override(Scope.route(ROUTE), Action.THROTTLE, rate_per_s=100.0)
    play = Playbook(service(RoutePolicy(ROUTE))).direct(throttle)
    assert passed(again(play, 20)) == 5
    assert play.passed(20) == 5


def test_an_isolation_that_observes_holds_nobody() -> None:
    """
    In `mode: observe` its trials are not scarce; what it would have refused is noted once, by the isolation.
    """
    play = Playbook(service(RoutePolicy(ROUTE), mode=Mode.OBSERVE)).direct(isolation(Scope.route(ROUTE), share=0.1))
    answers = again(play, 100)
    assert passed(answers) == 100
    assert max(len(answer.would) for answer in answers if isinstance(answer, Ticket)) == 1


def test_a_guard_that_observes_keeps_nothing() -> None:
    """
    Where nothing is refused nothing is scarce.
    """
    route = RoutePolicy(ROUTE, LimitPolicy(bucket(1, 10), mode=LimitMode.OBSERVE), ConcurrencyPolicy(2, Mode.OBSERVE))
    assert passed(again(Playbook(service(route)), 50)) == 50


@pytest.mark.parametrize(("mode", "noted"), [(Mode.OBSERVE, 10), (Mode.OFF, 0)])
def test_the_mode_says_what_becomes_of_them(mode: Mode, noted: int) -> None:
    """
    observe: they pass as all others, and what would have refused them is noted. off: nothing is noted.
    """
    play = Playbook(service(limited(route=bucket(10, 20)), rearrivals=mode))
    answers = again(play, 20)
    would = [answer.would for answer in answers if isinstance(answer, Ticket) and answer.would]
    assert (passed(answers), len(would)) == (20, noted)


def test_health_checks_and_what_an_operator_lets_pass_are_never_held_back() -> None:
    """
    Probes have no limits, and under an `observe` override nothing is refused.
    """
    probe = RoutePolicy(ROUTE, LimitPolicy(bucket(1, 1)), priority=Priority.PROBE)
    assert passed(again(Playbook(service(probe)), 5)) == 5
    lenient = Playbook(limited(route=bucket(1, 1))).direct(override(Scope.route(ROUTE), Action.OBSERVE))
    assert passed(again(lenient, 5)) == 5


def test_a_breaker_is_probed_by_anybody() -> None:
    """
    Half open, a request that asks again is as good a probe as any.
    """
    play = Playbook(service(RoutePolicy(ROUTE, breaker=BreakerPolicy())))
    play.guard.open_breaker(ROUTE, 5.0, "another", 0.0)
    assert passed(again(play)) == 0
    assert passed(again(play.at(6.0))) == 1


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0, 0.5), st.integers(1, 30)), max_size=60),
    st.sampled_from([(10.0, 20.0), (100.0, 7.0), (0.5, 3.0)]),
)
def test_first_tries_within_half_the_burst_are_never_refused(
    script: list[tuple[bool, float, int]], numbers: tuple[float, float]
) -> None:
    """
    Whatever asks again in between: first tries that half the bucket alone would serve are all served.
    """
    rate, burst = numbers
    play = Playbook(limited(route=bucket(rate, burst)))
    left, at = burst / 2, 0.0
    for first, pause_s, count in script:
        at += pause_s
        play.at(at)
        left = min(burst / 2, left + pause_s * rate)
        if not first:
            again(play, count)
            continue
        served = min(count, int(left))
        assert play.passed(served) == served
        left -= served
