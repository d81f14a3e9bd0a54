"""Shares of one limit over several workers: by example, on real guards."""

from __future__ import annotations

import pytest

from sidecar.controller.shares import DEAD_S, FLOOR, REST, Allocator, split
from sidecar.facts import Action, Scope
from sidecar.guard.policies import LimitPolicy
from sidecar.link.frames import Demand, Hello, Shares
from tests.support.crew import Crew
from tests.support.playbook import ROUTE, bucket, limited, override, service

LIMIT = limited(route=bucket(100, 100))


def demand(worker: int, sequence: int, span_s: float = 0.25, **asked: float) -> Demand:
    """Return what *worker* asks."""
    return Demand(worker, f"e{worker}", sequence, span_s, asked)


def hello(worker: int, epoch: str = "", *, share: float = 0.5, workers: int = 2) -> Hello:
    """Return what a worker says first."""
    return Hello(worker, epoch or f"e{worker}", 1, 1, workers=workers, share=share)


def joined(workers: int) -> Allocator:
    """Return an allocator with this many workers that have acknowledged an even part."""
    made = Allocator({}, 0.0)
    for worker in range(workers):
        [(_, shares)] = made.joined(worker, hello(worker, share=1.0 / workers, workers=workers), 0.0)
        made.asks(worker, demand(worker, shares.sequence, 0.0), 0.0)
    return made


# --- the aim -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ([0.0, 0.0], [0.5, 0.5]),
        ([0.5, 0.1], [0.7, 0.3]),
        ([3.0, 0.0], [0.995, 0.005]),
        ([2.0, 2.0], [0.5, 0.5]),
        ([1.5, 0.5, 0.0, 0.0], [0.745, 0.25, 0.0025, 0.0025]),
    ],
)
def test_shares_follow_demand_with_a_floor(asked: list[float], expected: list[float]) -> None:
    """
    Below the limit everybody has what it asks and an even part of the rest; beyond it parts are in proportion.
    """
    assert split(asked) == pytest.approx(expected)
    assert sum(split(asked)) == pytest.approx(1.0)


def test_one_limit_whatever_the_number_of_workers() -> None:
    """
    All demand on one of two workers: within 2 s it has 95 % of the rate, and in steady state loses less than 4 %.
    """
    crew = Crew(service(LIMIT), 2)
    crew.run(2.0, {(0, "a"): 300.0})
    assert crew.run(10.0, {(0, "a"): 300.0}) >= 960
    assert crew.most_in(60.0) <= 100 + 60 * 100


@pytest.mark.parametrize("workers", [2, 4, 8])
def test_demand_that_moves_takes_its_share_along(workers: int) -> None:
    """
    Two seconds after all traffic has moved to another worker the error is at most 5 % of the rate.
    """
    crew = Crew(service(LIMIT), workers)
    crew.run(20.0, {(0, "a"): 300.0})
    crew.run(2.0, {(1, "a"): 300.0})
    assert crew.run(10.0, {(1, "a"): 300.0}) >= 950
    assert crew.held(f"route:{ROUTE}") <= 1.0 + 1e-9
    assert crew.most_in(60.0) <= 100 + 60 * 100


def test_uneven_demand_is_refused_evenly() -> None:
    """
    Beyond the limit every worker passes the same part of what comes to it.
    """
    crew = Crew(service(LIMIT), 2)
    crew.run(5.0, {(0, "a"): 300.0, (1, "b"): 100.0})
    before = len(crew.admitted)
    crew.run(20.0, {(0, "a"): 300.0, (1, "b"): 100.0})
    by_worker = [sum(1 for _, at, _ in crew.admitted[before:] if at == worker) for worker in (0, 1)]
    assert sum(by_worker) == pytest.approx(2000, rel=0.05)
    assert by_worker[0] / by_worker[1] == pytest.approx(3.0, rel=0.1)


def test_below_the_limit_nothing_is_refused_when_traffic_moves() -> None:
    """
    70 % of the limit may jump from one worker to the other without one refusal: the rest is shared evenly, and a burst covers.
    """
    crew = Crew(service(LIMIT), 2)
    for worker in (0, 1, 0, 1):
        assert crew.run(6.0, {(worker, "a"): 70.0}) == pytest.approx(420, abs=1)


def test_the_services_limit_is_shared_too() -> None:
    """
    Over all routes, by demand.
    """
    crew = Crew(service(limited(name="a"), limit=LimitPolicy(bucket(100, 50))), 2)
    crew.run(3.0, {(1, "x"): 200.0})
    assert crew.run(10.0, {(1, "x"): 200.0}) >= 960


def test_the_rate_of_an_override_is_shared_too() -> None:
    """
    `throttle=20/s` is 20/s, wherever its requests come.
    """
    crew = Crew(service(limited()), 2)
    held = override(Scope.route(ROUTE), Action.THROTTLE, end_at=1e9, rate_per_s=20.0)
    for guard in crew.guards:
        guard.direct([held], 0.0)
    crew.run(3.0, {(1, "x"): 100.0})
    assert crew.run(20.0, {(1, "x"): 100.0}) == pytest.approx(400, rel=0.05)


# --- clients -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [2, 4])
def test_a_client_on_one_worker_has_its_whole_limit(workers: int) -> None:
    """
    Just below its limit a client that uses one worker alone is never refused, and beyond it gets at least 95 %.
    """
    crew = Crew(service(limited(client=bucket(50, 100))), workers)
    assert crew.run(20.0, {(0, "a"): 45.0}) == pytest.approx(900, abs=1)
    crew.run(5.0, {(0, "a"): 200.0})
    assert crew.run(20.0, {(0, "a"): 200.0}) >= 950
    assert crew.most_in(60.0) <= 100 + 60 * 50


def test_a_client_on_all_workers_has_one_limit() -> None:
    """
    However it spreads and moves, in a minute a client gets no more than burst and rate.
    """
    crew = Crew(service(limited(client=bucket(10, 20))), 3)
    crew.run(30.0, {(0, "a"): 100.0, (1, "a"): 100.0, (2, "a"): 100.0})
    crew.run(30.0, {(1, "a"): 100.0})
    crew.run(5.0, {})
    crew.run(40.0, {(0, "a"): 9.0, (2, "a"): 100.0})
    crew.run(20.0, {(0, "a"): 100.0, (1, "a"): 100.0, (2, "a"): 100.0})
    assert crew.most_in(60.0) <= 20 + 60 * 10


def test_clients_do_not_pay_for_each_other() -> None:
    """
    An abuser on every worker leaves a client that stays within its limit untouched.
    """
    crew = Crew(service(limited(client=bucket(20, 20))), 2)
    crew.run(20.0, {(0, "abuser"): 200.0, (1, "abuser"): 200.0, (1, "good"): 15.0})
    assert sum(1 for *_, client in crew.admitted if client == "good") == pytest.approx(300, abs=1)


def test_a_client_that_went_quiet_is_named_no_more() -> None:
    """
    Nobody asks for it: its shares return to the even part and are forgotten.
    """
    crew = Crew(service(limited(client=bucket(10, 10))), 2)
    crew.run(3.0, {(0, "a"): 50.0})
    assert crew.guards[0]._shared.shares.of(f"client:{ROUTE}:a") > 0.9
    crew.run(6.0, {})
    assert [guard._shared.shares.named for guard in crew.guards] == [{}, {}]
    assert [guard.route(ROUTE)._levels.client.leases for guard in crew.guards] == [{}, {}]


# --- what is held ------------------------------------------------------------------------------------------------


def test_nothing_grows_before_the_other_has_given_back() -> None:
    """
    A worker that does not acknowledge keeps what it may still be using.
    """
    made = joined(2)
    made.asks(0, demand(0, 1, service=2.0), 0.25)
    made.asks(1, demand(1, 2), 0.25)
    pushes = dict(made.turn(0.25))
    assert pushes[1].named["service"] < 0.5
    assert pushes[0].named["service"] == 0.5
    assert made.turn(0.5) == []
    assert made.asks(0, demand(0, pushes[0].sequence, 0.0), 0.5) == []
    grown = dict(made.asks(1, demand(1, pushes[1].sequence, 0.0), 0.5))
    assert grown[0].named["service"] + pushes[1].named["service"] == pytest.approx(1.0)


def test_a_lost_link_keeps_its_share_and_a_dead_worker_frees_it() -> None:
    """
    Without a controller a worker goes on with its last share, so that is held until it must be dead.
    """
    crew = Crew(service(LIMIT), 2)
    crew.run(5.0, {(0, "a"): 200.0, (1, "a"): 200.0})
    crew.cut(1)
    both = crew.run(5.0, {(0, "a"): 200.0, (1, "a"): 200.0})
    assert both == pytest.approx(500, rel=0.05)
    crew.run(DEAD_S, {(0, "a"): 200.0})
    assert crew.run(5.0, {(0, "a"): 200.0}) >= 480


def test_a_worker_that_drained_frees_its_share_at_once() -> None:
    """
    Its link ends when its last request has.
    """
    made = joined(2)
    made.asks(1, Demand(1, "e1", 2, leaving=True), 1.0)
    made.lost(1, 2.0)
    assert dict(made.turn(2.0))[0].rest == pytest.approx(1.0)


def test_a_new_controller_goes_on_where_the_last_one_was() -> None:
    """
    Nothing moves before every worker has said what it holds, and then everything does.
    """
    crew = Crew(service(LIMIT), 2)
    crew.run(5.0, {(0, "a"): 300.0})
    crew.new_controller()
    assert crew.run(3.0, {(0, "a"): 300.0}) >= 280
    crew.run(2.0, {(1, "a"): 300.0})
    assert crew.run(5.0, {(1, "a"): 300.0}) >= 475
    assert crew.most_in(60.0) <= 100 + 60 * 100


def test_a_new_controller_moves_nothing_before_it_knows_what_is_asked() -> None:
    """
    A worker that it has not heard is taken to ask for what it has: shares do not jump to even parts and back.
    """
    kept = {0: {REST: 0.5, "service": 0.995}, 1: {REST: 0.5, "service": 0.005}}
    made = Allocator(kept, 0.0)
    for worker in (0, 1):
        [(_, again)] = made.joined(worker, hello(worker, "alive"), 0.1)
        assert made.asks(worker, Demand(worker, "alive", again.sequence), 0.1) == []
    assert made.turn(0.2) == []
    for worker, asked in ((0, {"service": 3.0}), (1, {})):
        made.asks(worker, Demand(worker, "alive", worker + 1, 0.25, asked), 0.3)
    assert made.turn(0.3) == []
    assert made.slots() == kept


def test_a_new_worker_takes_over_its_predecessors_share() -> None:
    """
    It boots with what the file says, and is told so again.
    """
    made = joined(2)
    made.asks(0, demand(0, 1, service=2.0), 0.25)
    told = dict(made.turn(0.25))
    made.lost(1, 0.3)
    [(worker, shares)] = made.joined(1, hello(1, "reborn"), 0.5)
    assert (worker, shares.named) == (1, told[1].named)
    assert made.slots()[1] == {REST: 0.5, "service": told[1].named["service"]}


def test_a_worker_that_has_not_come_yet_has_its_part() -> None:
    """
    It began with an even part, so nobody gets that before it must be dead.
    """
    made = Allocator({}, 0.0)
    [(_, first)] = made.joined(0, hello(0), 0.0)
    made.asks(0, demand(0, first.sequence, service=3.0), 0.25)
    assert dict(made.turn(1.0))[0].named == {"service": 0.5}
    assert made.turn(2.0) == []
    whole = dict(made.turn(DEAD_S))[0]
    assert (whole.rest, whole.named) == (pytest.approx(1.0), {"service": pytest.approx(1.0)})
    assert made.slots().keys() == {0}


def test_an_additional_worker_gets_its_part_from_the_others() -> None:
    """
    While one worker replaces another there are N + 1: the sum stays one.
    """
    made = joined(2)
    [(_, first)] = made.joined(2, hello(2, share=FLOOR / 2), 1.0)
    made.asks(2, demand(2, first.sequence, 0.0), 1.0)
    pushes = dict(made.turn(1.25))
    assert pushes[0].rest == pushes[1].rest == pytest.approx(1 / 3)
    made.asks(0, demand(0, pushes[0].sequence, 0.0), 1.0)
    grown = dict(made.asks(1, demand(1, pushes[1].sequence, 0.0), 1.0))
    assert grown[2].rest == pytest.approx(1 / 3)


def test_who_is_unknown_changes_nothing() -> None:
    """
    A demand of another epoch, or of nobody, is not taken.
    """
    made = joined(1)
    assert made.asks(7, demand(7, 0), 0.0) == []
    assert made.asks(0, Demand(0, "older", 1, 0.25, {"service": 3.0}), 0.0) == []
    made.lost(7, 0.0)
    assert repr(made) == "<Allocator 0:1.00+0>"
    assert made.slots() == {0: {REST: 1.0}}


def test_silence_pushes_nothing() -> None:
    """
    Steady demand needs no frames: changes below 0.5 % of the limit are not worth one.
    """
    made = joined(2)
    for turn in range(40):
        for worker in (0, 1):
            made.asks(worker, demand(worker, worker + 1, service=0.4), turn / 4)
        assert made.turn(turn / 4) == [] or turn == 0


def test_shares_are_a_frame() -> None:
    """
    What is pushed names what is asked for, and the part of the rest.
    """
    [(_, shares)] = Allocator({}, 0.0).joined(0, hello(0), 0.0)
    assert shares == Shares(1, 0.5, {})
