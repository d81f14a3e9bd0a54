from __future__ import annotations

import pytest

from sidecar.facts import Scope
from sidecar.guard.guard import Ticket
from tests.support.playbook import (
    BREAKER_OPEN,
    CANCELLED,
    FAILURE,
    IGNORED,
    PENDING,
    ROUTE,
    SUCCESS,
    Admit,
    Playbook,
    Refuse,
    breaker,
    closed_again,
    half_open,
    isolation,
    opened,
    shares,
)

NO = Refuse(BREAKER_OPEN)


# --- half open ---------------------------------------------------------------------------------------------------


def test_closes_after_eight_of_ten() -> None:
    """
    Two failed probes among ten do not keep it open.
    """
    play = half_open().send(2, outcome=FAILURE).send(7)
    assert play.state == "half_open"
    play.send()
    assert play.state == "closed"


def test_reopens_on_the_third_failure() -> None:
    """
    One or two unlucky probes decide nothing, the third does.
    """
    play = half_open().send(5).send(2, outcome=FAILURE)
    assert play.state == "half_open"
    play.send(outcome=FAILURE).expect(Refuse(BREAKER_OPEN, retry_after_s=pytest.approx(10.0)))
    assert play.tick() == ["consecutive", "probes"]


def test_one_lucky_probe_does_not_close() -> None:
    """
    A single success leaves it half open (Polly#2381, Sentinel#2370).
    """
    play = half_open().send()
    assert play.state == "half_open"


def test_a_404_is_a_sign_of_life_while_half_open() -> None:
    """
    A route of 404s closes again; an ignored outcome that is no 4xx stays neutral.
    """
    play = half_open().send(20, outcome=IGNORED)
    assert play.state == "half_open"
    play.send(8, outcome=IGNORED, client_error=True)
    assert play.state == "closed"


def test_a_slow_success_is_a_failed_probe() -> None:
    """
    A breaker that slowness tripped does not close on slow answers.
    """
    play = half_open(slow_s=1.0).send(3, latency_s=1.5)
    assert play.state == "open"


@pytest.mark.parametrize("outcome", [SUCCESS, FAILURE, IGNORED, CANCELLED])
def test_every_way_out_returns_the_probe(outcome: object) -> None:
    """
    Whatever became of a probe, its slot is free again.
    """
    play = half_open().send(5, outcome=PENDING).expect(NO)
    play.end(1, outcome=outcome)  # type: ignore[arg-type]
    play.send(1, outcome=PENDING).expect(NO)


def test_a_probe_that_hangs_returns_its_slot_as_a_failure() -> None:
    """
    At its deadline a probe without a first byte has failed; its late outcome is dropped.
    """
    play = half_open(probe_timeout_s=10.0).send(2, outcome=PENDING)
    play.at(15.0).tick()
    assert play.state == "half_open"
    assert play.route.breaker is not None
    assert play.route.breaker.probing == 0
    play.end(2).send(6)
    assert play.state == "half_open"
    play.send(outcome=FAILURE)
    assert play.state == "open"


def test_a_probe_that_streams_is_a_success_at_its_deadline() -> None:
    """
    A route of endless streams closes too: what has a first byte at its deadline works.
    """
    play = half_open(probe_timeout_s=10.0, close_successes=5).send(5, outcome=PENDING)
    for route, ticket in play.pending:
        route.first_byte(ticket, 5.2)
    play.at(15.0).expect(Admit())
    assert play.state == "closed"


def test_three_hanging_probes_open_again_on_the_next_request() -> None:
    """
    Deadlines also act when a request asks, not only in the tick.
    """
    half_open(probe_timeout_s=10.0).send(5, outcome=PENDING).at(15.0).expect(Refuse(BREAKER_OPEN, pytest.approx(10.0)))


def test_an_outcome_of_an_older_generation_is_dropped() -> None:
    """
    Requests from before the trip neither close nor re-open it (Polly#217).
    """
    play = Playbook(breaker()).at(0.0).send(20, outcome=PENDING).send(7, outcome=FAILURE)
    play.at(5.0).send(1, outcome=PENDING)
    play.end(20, outcome=FAILURE)
    assert play.state == "half_open"
    play.end(1)
    assert play.state == "half_open"


# --- the ramp ----------------------------------------------------------------------------------------------------


def test_ramps_on_evidence() -> None:
    """
    After closing 25, 50, 75 and 100 % pass, each step after its time and eight successes.
    """
    play = closed_again()
    passed = [sum(shares(play, 200, 0.01)) / 200 for _ in range(4)]
    assert passed == pytest.approx([0.25, 0.5, 0.75, 1.0], abs=0.02)


def test_time_alone_does_not_climb() -> None:
    """
    An hour without a request leaves the ramp where it was.
    """
    play = closed_again().at(3600.0)
    play.tick()
    assert play.route.breaker is not None
    assert play.route.breaker.share == 0.25


def test_successes_alone_do_not_climb() -> None:
    """
    A hundred successes within one instant do not make the step shorter than its time.
    """
    play = closed_again()
    play.passed(400)
    assert play.route.breaker is not None
    assert play.route.breaker.share == 0.25


def test_a_step_that_fails_does_not_climb() -> None:
    """
    With a third of failures (half of the error ratio is a quarter) the step starts to count anew.
    """
    play = closed_again()
    for second in range(10, 40):
        play.at(float(second)).send(outcome=FAILURE if second % 3 == 0 else SUCCESS)
    assert play.route.breaker is not None
    assert play.route.breaker.share == 0.25


def test_a_step_is_not_held_back_for_ever() -> None:
    """
    A third of failures that does not trip within six windows climbs too.
    """
    play = closed_again()
    for second in range(10, 100):
        play.at(float(second)).send(outcome=FAILURE if second % 3 == 0 else SUCCESS)
    assert play.route.breaker is not None
    assert play.route.breaker.share > 0.25


def test_a_quiet_route_is_not_held_by_its_ramp() -> None:
    """
    One request a second always passes: a ramp guards against a flood, not against a trickle.
    """
    play = closed_again().at(10.0)
    assert all(shares(play, 8, 1.0))


def test_a_failing_ramp_trips_again() -> None:
    """
    The three trip rules hold on the ramp, and the doubling goes on.
    """
    play = closed_again()
    for second in range(10, 17):
        play.at(float(second)).send(outcome=FAILURE)
    play.expect(Refuse(BREAKER_OPEN, pytest.approx(10.0)))


# --- beside an isolation -----------------------------------------------------------------------------------------


def test_trials_of_an_isolation_bypass_the_open_breaker_and_close_it() -> None:
    """
    Under an isolation of the route its trials are the probes, and only the isolation ramps.
    """
    play = opened().at(1.0).direct(isolation(Scope.route(ROUTE), share=0.5))
    assert sum(shares(play, 20, 0.01)) == 10
    assert play.state == "open"
    play.at(5.0)
    assert sum(shares(play, 16, 0.01)) == 8
    assert play.state == "closed"
    play.direct()
    assert sum(shares(play, 100, 0.01)) == 100


def test_failing_trials_open_again() -> None:
    """
    Three failed trials while half open are three failed probes.
    """
    play = opened().at(5.0).direct(isolation(Scope.route(ROUTE), share=1.0))
    for _ in range(3):
        ticket = play.route.admit("k1", 5.0)
        assert isinstance(ticket, Ticket)
        play.route.settle(ticket, FAILURE, 5.0)
    assert play.tick() == ["consecutive", "probes"]


def test_an_isolated_client_does_not_bypass() -> None:
    """
    The sample of one client is no probe of the whole route.
    """
    opened().at(1.0).direct(isolation(Scope.client(ROUTE, "k1"), share=1.0)).expect(NO)
