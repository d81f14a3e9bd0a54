from __future__ import annotations

from sidecar.facts import Mode
from sidecar.guard.concurrency import Concurrency
from sidecar.guard.policies import ConcurrencyPolicy, RoutePolicy
from tests.support.playbook import CONCURRENCY_LIMITED, PENDING, ROUTE, Admit, Playbook, Refuse, service

NO = Refuse(CONCURRENCY_LIMITED)


def at_most(count: int, mode: Mode = Mode.ENFORCE) -> RoutePolicy:
    """Return a route with a concurrency limit."""
    return RoutePolicy(ROUTE, concurrency=ConcurrencyPolicy(count, mode))


def test_admits_the_limit_and_one_more_for_each_that_ends() -> None:
    """
    The permit of a request that ended goes to the next one.
    """
    play = Playbook(at_most(2)).send(2, outcome=PENDING).expect(Refuse(CONCURRENCY_LIMITED, 1.0, "concurrency"))
    play.end(1).send(1, outcome=PENDING).expect(NO)


def test_the_service_limit_counts_all_routes() -> None:
    """
    Requests of one route take the service's permits from another.
    """
    play = Playbook(service(at_most(5), concurrency=ConcurrencyPolicy(3)))
    play.send(2, outcome=PENDING).of(route="other").send(1, outcome=PENDING)
    play.expect(Refuse(CONCURRENCY_LIMITED, rule="service.concurrency"))


def test_workers_round_their_part_up() -> None:
    """
    Each of three workers of a limit of 4 has 2, never 0.
    """
    play = Playbook(service(at_most(4), workers=3)).send(2, outcome=PENDING).expect(NO)
    assert play.guard.gauges(ROUTE, 0.0).concurrency_limit == 2


def test_observing_counts_only_what_it_would_have_refused() -> None:
    """
    Requests beyond an observed limit pass, and do not fill the place of those that it would have admitted.
    """
    play = Playbook(at_most(2, Mode.OBSERVE)).send(2, outcome=PENDING)
    play.expect(*[Admit(would=(CONCURRENCY_LIMITED,))] * 3)
    play.end(1).send(1, outcome=PENDING).expect(Admit(would=(CONCURRENCY_LIMITED,)))
    play.end()
    assert play.route._concurrency.in_flight == play.route._concurrency.beyond == 0


def test_a_live_change_keeps_what_is_in_flight() -> None:
    """
    A lower limit refuses until enough have ended; a limit that appears knows the load that it meets.
    """
    play = Playbook(service()).send(5, outcome=PENDING).apply(at_most(3)).expect(NO)
    play.end(2).expect(NO).end(1).send(1, outcome=PENDING).expect(NO)
    play.apply(at_most(3, Mode.OFF)).send(10, outcome=PENDING)


def test_repr_shows_permits() -> None:
    """
    It says how many of how many.
    """
    assert repr(Concurrency("concurrency")) == "<Concurrency 0/∞>"
