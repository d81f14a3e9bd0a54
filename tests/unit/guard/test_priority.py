from __future__ import annotations

from collections import deque

import pytest

from sidecar.facts import Action, Scope
from sidecar.guard.concurrency import MAX_RECORDS, ServiceConcurrency
from sidecar.guard.policies import (
    BreakerPolicy,
    ConcurrencyPolicy,
    GuardPolicy,
    LimitPolicy,
    Priority,
    RoutePolicy,
)
from sidecar.reasons import Refusal
from tests.support.playbook import (
    CONCURRENCY_LIMITED,
    FAILURE,
    OVERRIDDEN,
    PENDING,
    RATE_LIMITED,
    Admit,
    Playbook,
    Refuse,
    bucket,
    isolation,
    override,
    service,
)

NO = Refuse(CONCURRENCY_LIMITED, rule="service.concurrency")


def of(*priorities: Priority, most: int = 20) -> GuardPolicy:
    """Return a service with a route of each priority, named after it."""
    routes = [RoutePolicy(priority.value, priority=priority) for priority in priorities]
    return service(*routes, concurrency=ConcurrencyPolicy(most))


# --- reserves ----------------------------------------------------------------------------------------------------


def test_lower_priorities_are_refused_first() -> None:
    """
    At 80 % of the service's permits low stops, at 95 % normal, at 100 % high.
    """
    play = Playbook(of(Priority.LOW, Priority.NORMAL, Priority.HIGH)).at(0.0)
    play.of("a", route="low").send(16, outcome=PENDING).expect(NO)
    play.of("b", route="normal").send(3, outcome=PENDING).expect(NO)
    play.of("c", route="high").send(1, outcome=PENDING).expect(NO)


@pytest.mark.parametrize(
    ("priorities", "caps"),
    [
        ((Priority.NORMAL,), {"normal": 20}),
        ((Priority.LOW,), {"low": 20}),
        ((Priority.LOW, Priority.NORMAL), {"low": 16, "normal": 20}),
        ((Priority.LOW, Priority.HIGH), {"low": 16, "high": 20}),
        ((Priority.NORMAL, Priority.HIGH), {"normal": 19, "high": 20}),
        ((Priority.NORMAL, Priority.PROBE), {"normal": 20}),
    ],
)
def test_permits_are_kept_only_for_priorities_that_exist(
    priorities: tuple[Priority, ...], caps: dict[str, int]
) -> None:
    """
    Who writes no priority has every permit, as before.
    """
    play = Playbook(of(*priorities))
    assert caps == {name: play.guard._shared.concurrency.reaches[Priority(name)].cap for name in caps}


def test_the_last_permit_of_a_small_limit_is_for_anybody() -> None:
    """
    80 % of one permit is one permit.
    """
    play = Playbook(of(Priority.LOW, Priority.HIGH, most=1)).of(route="low").send(outcome=PENDING)
    play.expect(NO).of(route="high").expect(NO)


def test_reserves_follow_a_limit_that_changes() -> None:
    """
    Live, and also when the service's limit is learned.
    """
    play = Playbook(of(Priority.LOW, Priority.NORMAL, most=10)).of(route="low").send(8, outcome=PENDING).expect(NO)
    play.apply(of(Priority.LOW, Priority.NORMAL, most=100)).send(72, outcome=PENDING).expect(NO)
    learned = service(
        RoutePolicy("low", priority=Priority.LOW),
        RoutePolicy("normal"),
        concurrency=ConcurrencyPolicy(200, min_in_flight=1),
    )
    play = Playbook(learned).of(route="low")
    assert play.guard._shared.concurrency.reaches[Priority.LOW].cap == 16


def test_a_routes_own_limit_knows_no_priority() -> None:
    """
    Only what is shared has an order.
    """
    low = RoutePolicy("low", concurrency=ConcurrencyPolicy(5), priority=Priority.LOW)
    play = Playbook(service(low, RoutePolicy("n"), concurrency=ConcurrencyPolicy(50))).of(route="low")
    play.send(5, outcome=PENDING).expect(Refuse(CONCURRENCY_LIMITED, rule="concurrency"))


# --- probes ------------------------------------------------------------------------------------------------------


def everything_shut() -> Playbook:
    """Return a service at all its limits, with an open breaker, isolated, and a route for probes."""
    probe = RoutePolicy(
        "health",
        LimitPolicy(bucket(0.001, 1), bucket(0.001, 1)),
        ConcurrencyPolicy(1),
        BreakerPolicy(consecutive=2),
        Priority.PROBE,
    )
    policy = service(probe, RoutePolicy("a"), limit=LimitPolicy(bucket(0.001, 3)), concurrency=ConcurrencyPolicy(3))
    play = Playbook(policy).at(0.0).of("k1", route="a").send(3, outcome=PENDING)
    play.direct(isolation(Scope.service()))
    return play.of("kubelet", route="health")


def test_probes_pass_whatever_is_refused_to_others() -> None:
    """
    Limits, concurrency, breaker and isolations do not stop an orchestrator's health check, nor its failures.
    """
    play = everything_shut().send(10, outcome=FAILURE).send(10, outcome=PENDING)
    assert play.tick() == []
    play.send(5)
    assert play.guard.gauges("health", 0.0).in_flight == 10
    play.end()
    assert play.guard.in_flight == 0


def test_a_probe_is_stopped_by_an_operator_who_isolates() -> None:
    """
    A person's word outranks it; a throttle or an observing override does not.
    """
    play = everything_shut()
    play.direct(override(Scope.route("health"), Action.THROTTLE, rate_per_s=0.001)).send(5)
    play.direct(override(Scope.route("health"), Action.ISOLATE, share_ratio=0.0)).expect(Refuse(OVERRIDDEN))


# --- clients that drive the overload -------------------------------------------------------------------------------


def flood(play: Playbook, client: str, count: int) -> int:
    """Send *count* requests of *client* that stay in flight; return how many passed."""
    passed = 0
    for _ in range(count):
        answer = play.of(client).route.admit(client, play.now)
        if not isinstance(answer, Refusal):
            play.pending.append((play.route, answer))
            passed += 1
    return passed


def test_a_client_that_floods_is_held_back_and_others_get_the_permits() -> None:
    """
    One sends twenty times what the other does, ten times what the service takes: the other gets half of its requests through.

    Without records both would get the same tenth.
    """
    play = Playbook(of(Priority.NORMAL, most=10)).of(route="normal")
    ends: deque[int] = deque()
    accepted = {"flood": 0, "polite": 0}
    for ms in range(20_000):
        play.at(ms / 1000)
        while ends and ends[0] <= ms:
            ends.popleft()
            play.end(1)
        for client in ("polite", "flood") if ms % 20 == 0 else ("flood",):
            if flood(play, client, 1):
                ends.append(ms + 100)
                accepted[client] += ms >= 5000
    assert sum(accepted.values()) >= 0.95 * 1500
    assert accepted["polite"] / 750 >= 0.4
    assert accepted["flood"] / 15_000 <= 0.1


@pytest.mark.parametrize(("requests", "accepts"), [(100, 10), (1000, 100), (40, 30), (10, 0)])
def test_the_documented_formula_says_how_many_are_held_back(requests: int, accepts: int) -> None:
    """
    Error diffusion refuses the sum of the probabilities, to less than one request.
    """
    made = ServiceConcurrency()
    made.limit_to(0)
    for _ in range(requests):
        made.ask("k", Priority.NORMAL, 0.0)
    record = made._records["k", Priority.NORMAL]
    record.requests, record.accepts, record.credit = float(requests), float(accepts), 0.0
    expected = held = 0.0
    for number in range(50):
        expected += max(0.0, (requests + number - 2 * accepts) / (requests + number + 1))
        answer = made.ask("k", Priority.NORMAL, 0.0)
        assert answer is not None
        held += "accepted" in answer.detail
    assert abs(held - expected) < 1.0


def test_a_few_refusals_decide_nothing() -> None:
    """
    A record begins with ten accepted requests: the first ten refused ones are told the limit's own reason.
    """
    play = Playbook(of(Priority.NORMAL, most=1)).of(route="normal").send(outcome=PENDING).expect(*[NO] * 10)
    play.end().send(20)


def test_each_priority_has_a_record_of_its_own() -> None:
    """
    A client whose background jobs are refused still gets its important requests through.
    """
    play = Playbook(of(Priority.LOW, Priority.HIGH, most=10)).of("k", route="low").send(8, outcome=PENDING)
    flood(play, "k", 200)
    assert play.of("k", route="high").passed(50) == 50


def test_records_fade_when_the_overload_is_over() -> None:
    """
    Who was not refused for 30 s is forgotten, and the hot path is open again.
    """
    play = Playbook(of(Priority.NORMAL, most=1)).of(route="normal").send(outcome=PENDING)
    flood(play, "k", 100)
    reach = play.guard._shared.concurrency.reaches[Priority.NORMAL]
    assert reach.gate < 0
    assert repr(reach) == "<Reach 100% 1 shut>"
    play.end()
    for now in (29.0, 31.0, 62.0):
        play.at(now).tick()
    assert reach.gate == reach.cap == 1
    assert play.passed(50) == 50


def test_records_are_bounded() -> None:
    """
    A million clients at the limit leave memory flat.
    """
    play = Playbook(of(Priority.NORMAL, most=1)).of(route="normal").send(outcome=PENDING)
    for number in range(MAX_RECORDS + 500):
        flood(play, f"k{number}", 1)
    assert len(play.guard._shared.concurrency._records) == MAX_RECORDS


def test_an_observed_limit_holds_nobody_back() -> None:
    """
    What only counts keeps no record, and lets every priority pass with a note.
    """
    policy = service(
        RoutePolicy("low", priority=Priority.LOW), RoutePolicy("n"), concurrency=ConcurrencyPolicy(10), mode="observe"
    )
    play = Playbook(policy).of(route="low").send(8, outcome=PENDING).expect(*[Admit(would=(CONCURRENCY_LIMITED,))] * 40)
    assert play.guard._shared.concurrency._records == {}


def test_what_is_held_back_gives_its_tokens_back() -> None:
    """
    As every refusal of a later guard does.
    """
    route = RoutePolicy("n", LimitPolicy(bucket(1, 50)))
    play = Playbook(service(route, concurrency=ConcurrencyPolicy(1))).of(route="n").send(outcome=PENDING)
    flood(play, "k1", 500)
    assert play.guard.gauges("n", 0.0).limits == {"route": 49.0}
    play.end()
    assert play.of("k2").passed(500) == 49
    play.expect(Refuse(RATE_LIMITED))
