from __future__ import annotations

import pytest

from sidecar.facts import Scope
from sidecar.guard.guard import Guard, Ticket
from sidecar.guard.policies import (
    BreakerPolicy,
    ConcurrencyPolicy,
    GuardPolicy,
    LimitPolicy,
    RoutePolicy,
)
from tests.support.playbook import (
    BREAKER_OPEN,
    CONCURRENCY_LIMITED,
    FAILURE,
    ISOLATED,
    PENDING,
    RATE_LIMITED,
    ROUTE,
    SUCCESS,
    Admit,
    Playbook,
    Refuse,
    breaker,
    bucket,
    isolation,
    service,
)


def test_the_first_refusal_in_the_order_names_the_reason() -> None:
    """
    override → isolation → limit → concurrency → breaker, whatever else would refuse too.
    """
    route = RoutePolicy(ROUTE, LimitPolicy(bucket(1, 1)), ConcurrencyPolicy(1), BreakerPolicy())
    play = Playbook(service(route)).send(outcome=PENDING)
    play.guard.open_breaker(ROUTE, 60.0, "another", 0.0)
    play.expect(Refuse(RATE_LIMITED)).at(2.0).expect(Refuse(CONCURRENCY_LIMITED)).end().expect(Refuse(BREAKER_OPEN))
    play.direct(isolation(Scope.route(ROUTE), share=1e-9)).passed(1)
    play.expect(Refuse(ISOLATED))


def test_a_refusal_by_the_breaker_leaves_no_trace() -> None:
    """
    What the last guard refuses has cost no token and no permit.
    """
    route = RoutePolicy(ROUTE, LimitPolicy(bucket(1, 5), bucket(1, 5)), ConcurrencyPolicy(5), BreakerPolicy())
    play = Playbook(service(route, limit=LimitPolicy(bucket(1, 5))))
    play.guard.open_breaker(ROUTE, 60.0, "another", 0.0)
    play.expect(*[Refuse(BREAKER_OPEN)] * 20)
    gauges = play.guard.gauges(ROUTE, 0.0)
    assert (gauges.limits, gauges.in_flight) == ({"route": 5.0, "service": 5.0}, 0)


def test_a_second_settle_changes_nothing_and_is_counted() -> None:
    """
    A ticket ends exactly once; the second end is a fault of our own.
    """
    play = Playbook(RoutePolicy(ROUTE, concurrency=ConcurrencyPolicy(5), breaker=BreakerPolicy()))
    ticket = play.route.admit("k1", 0.0)
    assert isinstance(ticket, Ticket)
    for _ in range(9):
        play.route.settle(ticket, FAILURE, 0.0)
    assert play.guard.faults == 8
    assert play.guard.gauges(ROUTE, 0.0).in_flight == 0
    assert play.state == "closed"


def test_moments_after_the_end_are_ignored() -> None:
    """
    A late `sent` or `first_byte` of a settled ticket leaves nothing waiting.
    """
    play = Playbook(breaker(slow_s=1.0))
    ticket = play.route.admit("k1", 0.0)
    assert isinstance(ticket, Ticket)
    play.route.settle(ticket, SUCCESS, 0.1)
    play.route.sent(ticket, 0.2)
    play.route.first_byte(ticket, 0.3)
    assert play.guard.gauges(ROUTE, 9.0).waiting_ages_s == ()
    assert ticket.latency_s is None


def test_an_early_response_is_not_waited_for() -> None:
    """
    A first byte before the last request byte (an early 413) leaves nothing waiting either.
    """
    play = Playbook(breaker(slow_s=1.0))
    ticket = play.route.admit("k1", 0.0)
    assert isinstance(ticket, Ticket)
    play.route.first_byte(ticket, 0.1)
    play.route.sent(ticket, 0.2)
    assert play.guard.gauges(ROUTE, 9.0).waiting_ages_s == ()


def test_gauges_tell_the_ages_of_the_waiting() -> None:
    """
    Every request that was sent and has no first byte is in the gauges with its age, slow ones too.
    """
    play = Playbook(breaker(slow_s=1.0)).at(0.0).send(1, outcome=PENDING).at(2.0).send(1, outcome=PENDING)
    assert play.guard.gauges(ROUTE, 2.5).waiting_ages_s == (2.5, 0.5)
    assert play.guard.gauges(ROUTE, 2.5).in_flight == play.guard.in_flight == 2
    play.end()
    assert play.guard.gauges(ROUTE, 2.5).waiting_ages_s == ()


def test_a_ticket_knows_its_upstream_latency() -> None:
    """
    Last request byte sent → first response byte.
    """
    play = Playbook(service())
    ticket = play.route.admit("k1", 0.0)
    assert isinstance(ticket, Ticket)
    play.route.sent(ticket, 1.0)
    play.route.first_byte(ticket, 1.25)
    assert ticket.latency_s == 0.25
    assert repr(ticket) == "<Ticket k1 first byte g-1>"


def test_a_bound_route_survives_every_live_change() -> None:
    """
    Who bound a route keeps it: new policies act on it, and tickets in flight settle after their route is gone.
    """
    play = Playbook(RoutePolicy(ROUTE, concurrency=ConcurrencyPolicy(1), breaker=BreakerPolicy()))
    bound = play.route
    play.send(outcome=PENDING).apply(GuardPolicy()).send(5, outcome=PENDING)
    assert play.guard.route(ROUTE) is bound
    play.end()
    assert play.guard.gauges(ROUTE, 0.0).in_flight == 0
    play.apply(RoutePolicy(ROUTE, concurrency=ConcurrencyPolicy(1))).send(outcome=PENDING)
    play.expect(Refuse(CONCURRENCY_LIMITED))


def test_a_route_that_appears_later_meets_the_directives_in_force() -> None:
    """
    An isolation of the service holds on a route that the next config adds.
    """
    play = Playbook(service()).direct(isolation(Scope.service()))
    play.apply(service(RoutePolicy("new"))).of(route="new").expect(Admit(directive="isolation-1"), Refuse(ISOLATED))


def test_an_unknown_breaker_is_nothing_to_open() -> None:
    """
    A frame about a route without a breaker, or without a name here, changes nothing.
    """
    guard = Guard(service(RoutePolicy("plain")), 0.0)
    for name in ("plain", "unknown"):
        guard.open_breaker(name, 60.0, "another", 0.0)
        guard.reset_breaker(name, 0.0)
        assert isinstance(guard.route(name).admit("k1", 0.0), Ticket)


def test_trips_are_taken_once() -> None:
    """
    Each trip is reported exactly once, by `tick` or by `take_trips`.
    """
    play = Playbook(breaker()).at(3.0).send(7, outcome=FAILURE)
    [trip] = play.guard.take_trips()
    assert (trip.route, trip.at, trip.rule, trip.detail, trip.open_s, trip.generation) == (
        ROUTE, 3.0, "consecutive", "7 failures in a row", 5.0, 1,
    )  # fmt: skip
    assert play.tick() == []
    assert play.guard.gauges(ROUTE, 3.0).trips == 1


def test_a_playbook_shows_where_the_guard_left_the_script() -> None:
    """
    A mismatch prints the expected script beside the actual one.
    """
    with pytest.raises(AssertionError, match=r"- << refuse breaker_open\n\+ << admit"):
        Playbook(service()).expect(Refuse(BREAKER_OPEN))


def test_reprs_are_for_humans() -> None:
    """
    Guard and route say in one line how they stand.
    """
    play = Playbook(service(RoutePolicy(ROUTE)))
    assert repr(play.guard) == "<Guard [<RouteGuard checkout in_flight=0 None>] in_flight=0>"
    assert repr(play.guard._shared) == "<Shared <Concurrency 0/∞> directives=0 trips=0>"
    play.direct(isolation(Scope.route(ROUTE))).passed(2)
    assert repr(play.route._gates["isolation-1", False]) == "<Gate isolation-1 passed=1 held=1>"
