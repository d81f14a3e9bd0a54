from __future__ import annotations

import pytest

from sidecar.facts import Action, Mode, Scope
from sidecar.guard.guard import Ticket
from sidecar.guard.policies import RoutePolicy
from tests.support.playbook import (
    CLIENT_THROTTLED,
    ISOLATED,
    RATE_LIMITED,
    ROUTE,
    Admit,
    Playbook,
    Refuse,
    bucket,
    isolation,
    limited,
    override,
    service,
    shares,
)

ON_ROUTE = Scope.route(ROUTE)
ON_CLIENT = Scope.client(ROUTE, "k1")


def under(*directives: object, mode: Mode = Mode.ENFORCE, workers: int = 1) -> Playbook:
    """Return a playbook with *directives* in force."""
    play = Playbook(service(RoutePolicy(ROUTE), mode=mode, workers=workers))
    return play.direct(*directives)  # type: ignore[arg-type]


# --- who is refused, and how -------------------------------------------------------------------------------------


def test_only_the_isolated_client_is_cut_off() -> None:
    """
    One bad client gets 429 until the lease ends, the others keep 100 %.
    """
    play = under(isolation(ON_CLIENT, incident="12")).send()
    play.expect(*[Refuse(CLIENT_THROTTLED, 900.0, "isolation-1")] * 5).of("k2").send(100)
    play.of("k1", route="other").send(10)


def test_an_isolated_route_answers_for_the_service() -> None:
    """
    Everyone on a failing route gets 503, other routes none, and a retry within the ramp's step.
    """
    play = under(isolation(ON_ROUTE)).send().expect(Refuse(ISOLATED, 10.0, "isolation-1"))
    play.of(route="other").send(10)


def test_an_isolated_service_covers_every_route() -> None:
    """
    The widest scope refuses on all routes, each with its own sample.
    """
    play = under(isolation(Scope.service())).send().expect(Refuse(ISOLATED)).of(route="other").send()
    play.expect(Refuse(ISOLATED))


def test_the_refusal_carries_its_incident() -> None:
    """
    A refused client is told which incident it belongs to.
    """
    play = under(isolation(ON_ROUTE, incident="12"))
    play.passed(1)
    answer = play.route.admit("k1", 0.0)
    assert not isinstance(answer, Ticket)
    assert (answer.incident, answer.detail) == ("12", "isolate of route:checkout, 0% pass")


def test_the_lease_ends_by_itself() -> None:
    """
    At its end an isolation is over, without a tick, a controller or anything else.
    """
    play = under(isolation(ON_ROUTE, end_at=60.0)).at(1.0).send().at(1.1).expect(Refuse(ISOLATED))
    play.at(60.0).send(100)
    play.tick()
    play.send(10)


def test_an_isolation_that_is_over_already_never_begins() -> None:
    """
    A worker that takes over old directives drops those that ended meanwhile.
    """
    Playbook(service()).at(100.0).direct(isolation(ON_ROUTE, end_at=100.0)).send(50)


# --- shares ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 0.25, 0.3, 0.5, 0.99, 1.0])
def test_a_share_passes_every_kth(share: float) -> None:
    """
    Of n requests within an instant n·share pass, within one, and not by a die.
    """
    play = under(isolation(ON_ROUTE, share=share))
    for count in (1, 99, 900):
        play.passed(count)
        sent = {1: 1, 99: 100, 900: 1000}[count]
        assert abs(play.guard.gauges(ROUTE, 0.0).passed["isolation-1"] - sent * share) <= 1


def test_a_small_sample_always_passes() -> None:
    """
    At 100 requests a second one a second passes, though the share is nil.
    """
    assert sum(shares(under(isolation(ON_ROUTE)), 1000, 0.01)) == pytest.approx(10, abs=1)


def test_the_sample_is_at_most_a_tenth_of_a_quiet_route() -> None:
    """
    At one request in two seconds every tenth passes, not every one.
    """
    assert sum(shares(under(isolation(ON_ROUTE)), 100, 2.0)) == pytest.approx(10, abs=1)


def test_sample_and_share_do_not_add_up() -> None:
    """
    The larger of the two passes: 5 % of 100/s are 5 a second, and none on top.
    """
    assert sum(shares(under(isolation(ON_ROUTE, share=0.05)), 1000, 0.01)) == pytest.approx(50, abs=1)
    assert sum(shares(under(isolation(ON_ROUTE, share=0.005)), 1000, 0.01)) == pytest.approx(10, abs=1)


def test_workers_share_the_sample() -> None:
    """
    Each of four workers passes one request in four seconds.
    """
    assert sum(shares(under(isolation(ON_ROUTE), workers=4), 4000, 0.01)) == pytest.approx(10, abs=1)


def test_an_isolation_by_rate_paces() -> None:
    """
    A throttle of 2/s passes two a second and no sample beside it.
    """
    play = under(isolation(ON_ROUTE, share=None, rate_per_s=2.0, action=Action.THROTTLE))
    assert sum(shares(play, 1000, 0.01)) == pytest.approx(20, abs=1)


def test_a_step_of_the_ramp_goes_on_where_the_last_one_was() -> None:
    """
    A renewed directive with another share keeps its credit: no burst at each step.
    """
    play = under(isolation(ON_ROUTE, share=0.5))
    assert play.passed(1) == 1
    for end_at in range(1000, 1010):
        play.direct(isolation(ON_ROUTE, share=0.5, end_at=float(end_at)))
        play.expect(Refuse(ISOLATED), Admit(directive="isolation-1"))


def test_a_request_that_a_later_guard_refuses_takes_no_slot() -> None:
    """
    The sample is of requests that reach the upstream: a rate-limited one gives its slot to the next.
    """
    play = Playbook(limited(client=bucket(0.1, 1))).direct(isolation(ON_ROUTE, share=0.1))
    play.of("a").expect(Admit(directive="isolation-1"), *[Refuse(ISOLATED)] * 9, Refuse(RATE_LIMITED))
    play.of("b").expect(Admit(directive="isolation-1"), Refuse(ISOLATED))


def test_counts_of_passed_and_held_are_cumulative() -> None:
    """
    The controller reads how many an isolation let pass and how many it held, also just after its end.
    """
    play = under(isolation(ON_ROUTE, share=0.25))
    play.passed(100)
    play.direct()
    gauges = play.guard.gauges(ROUTE, 0.0)
    assert (gauges.passed, gauges.held) == ({"isolation-1": 25}, {"isolation-1": 75})


def test_gates_of_old_isolations_are_dropped() -> None:
    """
    A thousand incidents leave a bounded number of gates.
    """
    play = under()
    for number in range(1000):
        play.direct(isolation(ON_ROUTE, number=number))
    assert len(play.route._gates) <= 66


# --- which one rules ---------------------------------------------------------------------------------------------


def test_the_most_specific_scope_rules() -> None:
    """
    A client's isolation speaks for that client, the route's for the others.
    """
    play = under(isolation(ON_ROUTE, number=1), isolation(ON_CLIENT, number=2)).at(1.0)
    play.expect(Admit(directive="isolation-2")).of("k2").expect(Admit(directive="isolation-1"))
    play.of("k1").expect(Refuse(CLIENT_THROTTLED)).of("k2").expect(Refuse(ISOLATED))


def test_a_confirmed_isolation_outranks_a_provisional_one() -> None:
    """
    On the same scope a person's word rules, whatever came later.
    """
    confirmed = isolation(ON_ROUTE, number=1, share=1.0, confirmed=True)
    under(confirmed, isolation(ON_ROUTE, number=2)).expect(*[Admit(directive="isolation-1")] * 20)


def test_among_equals_the_newest_rules() -> None:
    """
    The later of two provisional isolations of one scope decides.
    """
    play = under(isolation(ON_ROUTE, number=1), isolation(ON_ROUTE, number=2, share=1.0))
    play.expect(*[Admit(directive="isolation-2")] * 20)


def test_endpoints_are_not_the_guards() -> None:
    """
    An isolated endpoint refuses nothing here: where a request goes is decided later.
    """
    under(isolation(Scope.parse("endpoint:10.0.0.1:9000"))).send(20)


def test_an_isolation_that_does_not_act_refuses_nothing() -> None:
    """
    A directive of automation with an action that is an operator's alone is no refusal.
    """
    under(isolation(ON_ROUTE, action=Action.OBSERVE)).send(20)


# --- observing ---------------------------------------------------------------------------------------------------


def test_observe_for_all_turns_isolations_into_notes() -> None:
    """
    In `mode: observe` an isolation refuses nobody and says whom it would have, with a sample of its own.
    """
    play = under(isolation(ON_ROUTE, share=0.5), mode=Mode.OBSERVE)
    play.expect(Admit(directive="isolation-1"), Admit(would=(ISOLATED,)), Admit(directive="isolation-1"))
    assert play.guard.gauges(ROUTE, 0.0).held == {}


def test_an_observed_client_does_not_use_up_the_routes_sample() -> None:
    """
    Observed decisions leave the enforced share as it was.
    """
    watched = override(ON_CLIENT, Action.OBSERVE)
    play = under(isolation(ON_ROUTE, share=0.5), watched).of("k2").expect(Admit(directive="isolation-1"))
    play.of("k1").expect(Admit(directive="isolation-1"), Admit(would=(ISOLATED,)), Admit(directive="isolation-1"))
    play.of("k2").expect(Refuse(ISOLATED), Admit(directive="isolation-1"))
