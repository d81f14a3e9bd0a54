from __future__ import annotations

import pytest

from sidecar.facts import OVERFLOW
from sidecar.guard.guard import Guard, Shares, Ticket
from sidecar.guard.leased import MAX_HOT
from sidecar.guard.policies import ConcurrencyPolicy, LimitMode, LimitPolicy, RoutePolicy
from sidecar.reasons import Refusal
from tests.support.playbook import (
    CONCURRENCY_LIMITED,
    PENDING,
    RATE_LIMITED,
    ROUTE,
    Admit,
    Playbook,
    Refuse,
    bucket,
    limited,
    service,
)

NO = Refuse(RATE_LIMITED)
CLIENT = f"client:{ROUTE}:k1"


def of_two(*routes: RoutePolicy, limit: LimitPolicy | None = None) -> Playbook:
    """Return one of two workers."""
    return Playbook(service(*routes, limit=limit, workers=2)).at(0.0)


def test_what_is_asked_is_told_in_units_of_the_limit() -> None:
    """
    A bucket is asked by whoever passed the levels before it, refused or not, and by nobody before the next call.
    """
    play = of_two(limited(route=bucket(10, 10)), limit=LimitPolicy(bucket(100, 100)))
    play.passed(30)
    span_s, asked = play.guard.asked(1.0)
    assert span_s == 1.0
    assert asked == {f"route:{ROUTE}": pytest.approx(30 / 9.8), "service": pytest.approx(10 / 98)}
    assert play.guard.asked(2.0) == (1.0, {})


def test_what_asks_again_is_asked_too() -> None:
    """
    A worker whose re-arrivals are held back for first tries draws its share as if they were any requests.
    """
    play = of_two(limited(route=bucket(10, 10)))
    for _ in range(30):
        play.route.admit_again("k1", 0.0)
    assert play.guard.asked(1.0)[1] == {f"route:{ROUTE}": pytest.approx(30 / 9.8)}


def test_a_request_that_its_client_limit_refused_asks_the_others_nothing() -> None:
    """
    An abuser does not draw shares of what all share to its worker.
    """
    play = of_two(limited(client=bucket(10, 4), route=bucket(100, 100)))
    play.passed(500)
    assert play.guard.asked(1.0)[1][f"route:{ROUTE}"] == pytest.approx(4 / 98)


def test_an_expensive_request_asks_for_its_cost() -> None:
    """
    Demand is counted in tokens.
    """
    play = of_two(RoutePolicy(ROUTE, LimitPolicy(bucket(100, 100), cost=5.0)))
    play.passed(4)
    assert play.guard.asked(1.0)[1] == {f"route:{ROUTE}": pytest.approx(20 / 98)}


def test_a_client_is_hot_once_half_of_its_burst_is_used() -> None:
    """
    Only then is it counted and told, so that millions of quiet ones cost nothing.
    """
    play = of_two(limited(client=bucket(10, 10))).send(5)
    assert play.guard.asked(1.0)[1] == {}
    play.send(2)
    assert play.guard.asked(2.0)[1] == {CLIENT: pytest.approx(2 / 9.8)}


def test_no_more_than_so_many_clients_are_hot() -> None:
    """
    A flood of keys keeps its even parts.
    """
    play = of_two(limited(client=bucket(1, 1)))
    for number in range(MAX_HOT + 50):
        play.of(f"n{number}").passed(2)
    assert len(play.guard.asked(1.0)[1]) == MAX_HOT


def test_who_shares_the_overflow_bucket_gets_no_bucket_of_its_own() -> None:
    """
    Random keys beyond `max_keys` do not become hot: a share would free them from the bucket that they share.
    """
    play = of_two(limited(client=bucket(0.001, 2), max_keys=1)).of("known").send()
    for number in range(40):
        play.of(f"n{number}").passed(1)
    assert play.route._levels.client is not None
    assert OVERFLOW in play.route._levels.client.tats
    assert set(play.guard.asked(1.0)[1]) <= {f"client:{ROUTE}:known"}


def test_a_leased_client_has_its_share_and_keeps_its_tokens() -> None:
    """
    Half used before, half used after; then its own rate refills it.
    """
    play = of_two(limited(client=bucket(10, 10))).send(6)
    play.guard.share(Shares(0.5, {CLIENT: 0.9}), 0.0)
    play.send(4).expect(Refuse(RATE_LIMITED, pytest.approx(1 / 8.82), "limit.per_client"))
    assert play.at(1.0).passed(20) == 8
    assert play.limit_header("k1", 1.0) == ('"client";q=10;w=1', '"client";r=0;t=2')
    play.guard.share(Shares(0.5), 1.0)
    play.expect(NO)
    assert play.at(2.0).passed(20) == 5


def test_a_client_that_this_worker_never_saw_can_be_given_a_share() -> None:
    """
    Its part is small from its first request on, because another worker has the rest; its burst is whole.
    """
    play = of_two(limited(client=bucket(10, 10)))
    play.guard.share(Shares(0.5, {CLIENT: 0.1}), 0.0)
    play.send(10).expect(Refuse(RATE_LIMITED, pytest.approx(1 / 0.98), "limit.per_client"))
    play.guard.share(Shares(0.5), 0.0)
    play.expect(Refuse(RATE_LIMITED, pytest.approx(1 / 4.9), "limit.per_client"))


def test_a_leased_client_is_counted_as_long_as_it_asks() -> None:
    """
    Also when it is far below its limit: its share must not flap.
    """
    play = of_two(limited(client=bucket(10, 10)))
    play.guard.share(Shares(0.5, {CLIENT: 0.9}), 0.0)
    play.send()
    assert play.guard.asked(1.0)[1] == {CLIENT: pytest.approx(1 / 9.8)}


def test_a_later_guards_refusal_gives_a_leased_clients_token_back() -> None:
    """
    As it does for everybody.
    """
    route = RoutePolicy(ROUTE, LimitPolicy(None, bucket(10, 10)), ConcurrencyPolicy(2))
    play = of_two(route)
    play.guard.share(Shares(0.5, {CLIENT: 0.9}), 0.0)
    play.send(outcome=PENDING).expect(*[Refuse(CONCURRENCY_LIMITED)] * 30)
    assert play.limit_header("k1", 0.0) == ('"client";q=10;w=1', '"client";r=9;t=1')


def test_an_observed_limit_is_shared_and_counted_alike() -> None:
    """
    What would be refused is what would be refused with shares.
    """
    play = of_two(limited(client=bucket(10, 10), mode=LimitMode.OBSERVE)).send(10)
    play.expect(Admit(would=(RATE_LIMITED,)))
    assert play.guard.asked(1.0)[1] == {CLIENT: pytest.approx(6 / 9.8)}
    play.guard.share(Shares(0.5, {CLIENT: 0.1}), 0.0)
    play.at(1.1).expect(Admit(), *[Admit(would=(RATE_LIMITED,))] * 3)


def test_a_live_change_keeps_what_a_leased_client_owes() -> None:
    """
    Its share stays, under the new rate.
    """
    play = of_two(limited(client=bucket(10, 10)))
    play.guard.share(Shares(0.5, {CLIENT: 0.8}), 0.0)
    play.send(10).apply(limited(client=bucket(20, 10))).expect(Refuse(RATE_LIMITED, pytest.approx(1 / (19.6 * 0.8))))


def test_a_new_even_part_reaches_every_client() -> None:
    """
    When a worker more is there, everybody's part shrinks, and nobody's debt.
    """
    play = of_two(limited(client=bucket(10, 10))).send(10)
    play.guard.share(Shares(0.25), 0.0)
    play.expect(Refuse(RATE_LIMITED, pytest.approx(1 / 2.45)))


def test_one_worker_alone_shares_nothing() -> None:
    """
    It has the whole limit, counts nothing and is told nothing.
    """
    guard = Guard(service(limited(route=bucket(10, 5), client=bucket(10, 5))), 0.0)
    bound = guard.route(ROUTE)
    assert [isinstance(bound.admit("k1", 0.0), Ticket) for _ in range(6)] == [True] * 5 + [False]
    assert guard.asked(1.0) == (1.0, {})
    refusal = bound.admit("k1", 0.0)
    assert isinstance(refusal, Refusal)
    assert refusal.retry_after_s == pytest.approx(0.1)


def test_shares_say_what_they_are() -> None:
    """
    Who is not named has the part of the rest; a client's key may have colons.
    """
    shares = Shares(0.5, {"service": 0.7, "client:r:2001:db8::1": 0.2})
    assert (shares.of("service"), shares.of("route:r")) == (0.7, 0.5)
    assert shares.clients == {"r": {"2001:db8::1": 0.2}}
    assert repr(shares) == "<Shares rest=0.5 named=2>"
