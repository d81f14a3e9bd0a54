from __future__ import annotations

import pytest

from sidecar.facts import Action, Mode, Scope
from sidecar.guard.policies import (
    BreakerPolicy,
    ConcurrencyPolicy,
    LimitPolicy,
    RoutePolicy,
)
from tests.support.playbook import (
    BREAKER_OPEN,
    CLIENT_THROTTLED,
    CONCURRENCY_LIMITED,
    FAILURE,
    ISOLATED,
    OVERRIDDEN,
    PENDING,
    RATE_LIMITED,
    ROUTE,
    Admit,
    Playbook,
    Refuse,
    breaker,
    bucket,
    isolation,
    limited,
    override,
    service,
    shares,
)

ON_ROUTE = Scope.route(ROUTE)
ON_CLIENT = Scope.client(ROUTE, "k1")


def under(*directives: object) -> Playbook:
    """Return a playbook with *directives* in force."""
    return Playbook(service()).direct(*directives)  # type: ignore[arg-type]


def test_isolate_refuses_all_and_names_the_ttl() -> None:
    """
    No sample passes an operator's `isolate`; Retry-After is what is left of it.
    """
    play = under(override(ON_ROUTE, Action.ISOLATE, share_ratio=0.0)).at(100.0)
    play.expect(*[Refuse(OVERRIDDEN, 500.0, "override-route:checkout")] * 200)
    play.at(600.0).send(10)


@pytest.mark.parametrize(
    ("scope", "reason"), [(ON_CLIENT, CLIENT_THROTTLED), (ON_ROUTE, OVERRIDDEN), (Scope.service(), OVERRIDDEN)]
)
def test_on_a_client_it_is_429_on_anything_wider_503(scope: Scope, reason: object) -> None:
    """
    A blocked client is at fault, a blocked route is not its clients' fault.
    """
    play = under(override(scope, Action.ISOLATE))
    play.expect(Refuse(reason))  # type: ignore[arg-type]


def test_a_rate_paces_and_names_the_next_slot() -> None:
    """
    `throttle=10/s` passes ten a second, evenly; Retry-After is the next slot, not the ttl.
    """
    play = under(override(ON_ROUTE, Action.THROTTLE, rate_per_s=10.0))
    play.expect(Admit(directive="override-route:checkout"), Refuse(OVERRIDDEN, pytest.approx(0.1)))
    play.at(10.0)
    assert sum(shares(play, 1000, 0.01)) == pytest.approx(100, abs=1)


def test_a_rate_on_the_service_is_one_for_all_routes() -> None:
    """
    Two routes share the slots of a throttle on the service.
    """
    play = under(override(Scope.service(), Action.THROTTLE, rate_per_s=1.0))
    play.expect(Admit(directive="override-service")).of(route="other").expect(Refuse(OVERRIDDEN))


def test_another_rate_goes_on_with_the_same_debt() -> None:
    """
    Setting the override anew does not hand out a burst.
    """
    play = under(override(ON_ROUTE, Action.THROTTLE, rate_per_s=0.1))
    play.expect(Admit(directive="override-route:checkout"))
    play.direct(override(ON_ROUTE, Action.THROTTLE, rate_per_s=0.2)).expect(Refuse(OVERRIDDEN, pytest.approx(5.0)))


def test_a_share_passes_every_kth() -> None:
    """
    `throttle=10%` passes every tenth request.
    """
    play = under(override(ON_ROUTE, Action.THROTTLE, share_ratio=0.1))
    assert play.passed(1000) == 100


def test_allow_skips_isolation_and_breaker() -> None:
    """
    An allowed client passes an isolated route with an open breaker, and does not feed the breaker.
    """
    play = Playbook(breaker()).at(0.0).send(7, outcome=FAILURE)
    play.direct(isolation(ON_ROUTE), override(ON_CLIENT, Action.ALLOW)).send(50)
    play.direct(override(ON_ROUTE, Action.ALLOW)).at(5.0).send(50)
    play.tick()
    assert play.state == "half_open"


def test_allow_never_skips_limits() -> None:
    """
    Limits hold for whom an operator allows.
    """
    play = Playbook(limited(client=bucket(1, 3))).direct(override(ON_CLIENT, Action.ALLOW)).send(3)
    play.expect(Refuse(RATE_LIMITED))


def test_observe_refuses_nothing_and_notes_everything() -> None:
    """
    On the scope of an `observe` override each guard only says what it would have done.
    """
    route = RoutePolicy(ROUTE, LimitPolicy(bucket(1, 1)), ConcurrencyPolicy(1), BreakerPolicy())
    play = Playbook(service(route)).direct(isolation(ON_ROUTE, share=0.1), override(ON_ROUTE, Action.OBSERVE))
    play.guard.open_breaker(ROUTE, 60.0, "another", 0.0)
    play.expect(Admit(would=(BREAKER_OPEN,), directive="isolation-1"))
    play.expect(Admit(would=(ISOLATED, RATE_LIMITED, CONCURRENCY_LIMITED, BREAKER_OPEN)))


def test_observed_requests_leave_enforced_buckets_alone() -> None:
    """
    What an observed client sends beyond its limits costs the others nothing.
    """
    play = Playbook(limited(route=bucket(1, 5), client=bucket(1, 2)))
    play.direct(override(ON_CLIENT, Action.OBSERVE)).send(2)
    play.expect(*[Admit(would=(RATE_LIMITED,))] * 50).of("k2").send(2).of("k3").send(1).expect(Refuse(RATE_LIMITED))


def test_observed_requests_hold_no_permit_that_they_would_not_have_got() -> None:
    """
    An observed client beyond an enforced limit is noted; the limit still sees the real load.
    """
    play = Playbook(RoutePolicy(ROUTE, concurrency=ConcurrencyPolicy(1)))
    play.direct(override(ON_CLIENT, Action.OBSERVE)).send(outcome=PENDING)
    play.expect(Admit(would=(CONCURRENCY_LIMITED,))).of("k2").expect(Refuse(CONCURRENCY_LIMITED))


def test_the_most_specific_override_wins() -> None:
    """
    A client's `allow` stands against the route's `isolate`, and the route's against the service's.
    """
    directives = [
        override(Scope.service(), Action.ISOLATE),
        override(ON_ROUTE, Action.THROTTLE, share_ratio=1.0),
        override(ON_CLIENT, Action.ALLOW),
    ]
    play = under(*directives).send(5).of("k2").expect(Admit(directive="override-route:checkout"))
    play.of(route="other").expect(Refuse(OVERRIDDEN))


def test_at_the_same_scope_the_newest_wins() -> None:
    """
    The later of two overrides of one scope decides.
    """
    first = override(ON_ROUTE, Action.ISOLATE, id="override-a")
    under(first, override(ON_ROUTE, Action.ALLOW, id="override-b")).send(10)


def test_two_shares_never_multiply() -> None:
    """
    An operator's throttle speaks in place of the isolation of the same or a wider scope.
    """
    play = under(isolation(ON_ROUTE, share=0.1), override(ON_ROUTE, Action.THROTTLE, share_ratio=0.5))
    assert play.passed(1000) == 500


def test_a_narrower_isolation_stays_under_a_throttle() -> None:
    """
    A throttled route does not open the door to its isolated client.
    """
    play = under(isolation(ON_CLIENT), override(ON_ROUTE, Action.THROTTLE, share_ratio=1.0))
    assert play.passed(100) <= 1
    assert play.of("k2").passed(100) == 100


def test_an_override_acts_in_observe_mode() -> None:
    """
    An operator's command outranks the config's `mode: observe`.
    """
    play = Playbook(service(mode=Mode.OBSERVE)).direct(override(ON_ROUTE, Action.ISOLATE))
    play.expect(Refuse(OVERRIDDEN))
