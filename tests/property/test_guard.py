from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sidecar.facts import Action, BreakerState, Mode, Outcome, Scope
from sidecar.guard.bucket import Bucket, KeyedBuckets, Rate
from sidecar.guard.guard import Guard, RouteGuard, Ticket
from sidecar.guard.limit import Limits
from sidecar.guard.policies import (
    BreakerPolicy,
    BucketPolicy,
    ConcurrencyPolicy,
    GuardPolicy,
    LimitMode,
    LimitPolicy,
    Priority,
    RoutePolicy,
)
from sidecar.reasons import Refusal
from tests.support.playbook import isolation, override

BOUNDED = settings(max_examples=60, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck))
QUICK = settings(max_examples=150, deadline=None)

ROUTES = ("a", "b")
CLIENTS = ("k1", "k2", "k3")
BREAKER = BreakerPolicy(min_requests=4, consecutive=3, slow_s=0.5, probe_timeout_s=4.0, open_s=1.0, max_open_s=8.0)

limits = st.builds(
    LimitPolicy,
    st.none() | st.builds(BucketPolicy, st.sampled_from([0.5, 5.0, 100.0]), st.sampled_from([1, 3, 50])),
    st.none() | st.builds(BucketPolicy, st.sampled_from([0.5, 5.0]), st.sampled_from([1, 4])),
    st.sampled_from([1, 2, 100]),
    st.sampled_from([LimitMode.ENFORCE, LimitMode.ENFORCE, LimitMode.OBSERVE, LimitMode.OFF]),
)
modes = st.sampled_from([Mode.ENFORCE, Mode.ENFORCE, Mode.ENFORCE, Mode.OBSERVE, Mode.OFF])
concurrency = st.none() | st.builds(
    ConcurrencyPolicy, st.sampled_from([1, 3, 20]), modes, st.sampled_from([None, None, 1])
)
priorities = st.sampled_from([Priority.NORMAL, Priority.NORMAL, Priority.LOW, Priority.HIGH, Priority.PROBE])
breakers = st.none() | st.builds(
    lambda mode, slow: BreakerPolicy(
        min_requests=4, consecutive=3, slow_s=slow, probe_timeout_s=4.0, open_s=1.0, max_open_s=8.0, mode=mode
    ),
    modes,
    st.sampled_from([None, 0.5, 2.0]),
)
policies = st.builds(
    lambda rows, limit, most, mode, workers: GuardPolicy(
        {name: RoutePolicy(name, *row) for name, row in zip(ROUTES, rows, strict=True)},
        limit,
        most,
        mode,
        "seed",
        workers,
    ),
    st.tuples(*[st.tuples(st.none() | limits, concurrency, breakers, priorities)] * 2),
    st.none() | limits,
    concurrency,
    modes,
    st.sampled_from([1, 1, 3]),
)
scopes = st.sampled_from([Scope.service(), *map(Scope.route, ROUTES), Scope.client("a", "k1"), Scope.client("b", "k2")])
isolations = st.builds(
    lambda scope, number, share, end, sure: isolation(scope, number=number, share=share, end_at=end, confirmed=sure),
    scopes,
    st.integers(1, 5),
    st.sampled_from([0.0, 0.01, 0.25, 1.0]),
    st.floats(0, 60),
    st.booleans(),
)
overrides = st.builds(
    lambda scope, action, share, rate, end: override(
        scope, action, share_ratio=share, rate_per_s=rate if share is None else None, end_at=end
    ),
    scopes,
    st.sampled_from(Action),
    st.none() | st.sampled_from([0.0, 0.5]),
    st.sampled_from([1.0, 20.0]),
    st.floats(0, 60),
)
outcomes = st.sampled_from([Outcome.SUCCESS, Outcome.FAILURE, Outcome.FAILURE, Outcome.IGNORED, Outcome.CANCELLED])


class WholeGuard(RuleBasedStateMachine):
    """Every interleaving of requests, ends, time, live changes and directives."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 10.0
        self.flying: list[tuple[RouteGuard, Ticket]] = []
        self.ended: list[tuple[RouteGuard, Ticket]] = []
        self.generations = dict.fromkeys(ROUTES, 0)
        self.extra_settles = 0

    @initialize(policy=policies)
    def begin(self, policy: GuardPolicy) -> None:
        self.guard = Guard(policy, self.now)

    @rule(route=st.sampled_from(ROUTES), client=st.sampled_from(CLIENTS), count=st.integers(1, 6), again=st.booleans())
    def admit(self, route: str, client: str, count: int, again: bool) -> None:
        bound = self.guard.route(route)
        for _ in range(count):
            answer = bound.admit_again(client, self.now) if again else bound.admit(client, self.now)
            if isinstance(answer, Refusal):
                assert answer.retry_after_s >= 0.0
                assert answer.rule
                assert self.guard.policy.mode is Mode.ENFORCE or answer.rule.startswith("override-")
                continue
            self.flying.append((bound, answer))
            breaker = bound.breaker
            if breaker is not None and not breaker.observed and answer.directive is None and answer.generation >= 0:
                assert breaker.state is not BreakerState.OPEN, "open admits nothing"

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), byte=st.booleans())
    def move(self, data: st.DataObject, byte: bool) -> None:
        bound, ticket = data.draw(st.sampled_from(self.flying))
        bound.sent(ticket, self.now)
        if byte:
            bound.first_byte(ticket, self.now)

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), outcome=outcomes, client_error=st.booleans(), latency=st.sampled_from([None, 0.1, 3.0]))
    def settle(self, data: st.DataObject, outcome: Outcome, client_error: bool, latency: float | None) -> None:
        index = data.draw(st.integers(0, len(self.flying) - 1))
        bound, ticket = self.flying.pop(index)
        bound.settle(ticket, outcome, self.now, client_error=client_error, latency_s=latency)
        self.ended.append((bound, ticket))

    @precondition(lambda self: self.ended)
    @rule(data=st.data(), outcome=outcomes)
    def settle_again(self, data: st.DataObject, outcome: Outcome) -> None:
        bound, ticket = data.draw(st.sampled_from(self.ended))
        bound.settle(ticket, outcome, self.now)
        self.extra_settles += 1

    @rule(step=st.sampled_from([0.01, 0.3, 1.0, 5.0, 30.0, -3.0]), tick=st.booleans())
    def pass_time(self, step: float, tick: bool) -> None:
        self.now = max(0.0, self.now + step)
        if tick:
            for trip in self.guard.tick(self.now):
                assert trip.route in ROUTES
                assert trip.open_s > 0.0

    @rule(policy=policies)
    def apply(self, policy: GuardPolicy) -> None:
        self.guard.apply(policy, self.now)

    @rule(items=st.lists(isolations | overrides, max_size=4))
    def direct(self, items: list[object]) -> None:
        self.guard.direct(items, self.now)  # type: ignore[arg-type]

    @rule(route=st.sampled_from(ROUTES), reset=st.booleans())
    def by_hand(self, route: str, reset: bool) -> None:
        if reset:
            self.guard.reset_breaker(route, self.now)
        else:
            self.guard.open_breaker(route, self.now + 2.0, "another", self.now)

    @invariant()
    def counts_agree(self) -> None:
        if not hasattr(self, "guard"):
            return
        for name in ROUTES:
            mine = [ticket for bound, ticket in self.flying if bound.name == name]
            gauges = self.guard.gauges(name, self.now)
            waiting = [t for t in mine if t.sent_at is not None and t.first_byte_at is None]
            assert gauges.in_flight == len(mine)
            assert len(gauges.waiting_ages_s) == len(waiting)
            assert all(left >= 0.0 for left in gauges.limits.values())
            breaker = self.guard.route(name).breaker
            if breaker is not None:
                assert breaker.probing <= BREAKER.probes, "half open has at most the probes in flight"
                assert breaker.state is BreakerState.HALF_OPEN or breaker.probing == 0
                assert breaker.generation >= self.generations[name]
                self.generations[name] = breaker.generation
        assert self.guard._shared.concurrency.in_flight == len(self.flying)
        assert self.guard.faults == self.extra_settles

    def teardown(self) -> None:
        if not hasattr(self, "guard"):
            return
        for bound, ticket in self.flying:
            bound.settle(ticket, Outcome.SUCCESS, self.now)
        for name in ROUTES:
            bound = self.guard.route(name)
            assert bound.gauges(self.now).in_flight == bound._concurrency.beyond == 0
            assert not bound._waiting
            assert not bound._late
            assert bound.breaker is None or bound.breaker.probing == 0
        assert self.guard._shared.concurrency.in_flight == self.guard._shared.concurrency.beyond == 0


TestWholeGuard = WholeGuard.TestCase
TestWholeGuard.settings = BOUNDED


steps = st.lists(st.tuples(st.sampled_from(["k1", "k2"]), st.floats(-2.0, 3.0)), min_size=1, max_size=80)
buckets = st.builds(BucketPolicy, st.floats(0.1, 50.0), st.integers(1, 10))


@QUICK
@given(client=buckets, route=buckets, service=buckets, cost=st.sampled_from([1.0, 1.0, 2.5]), script=steps)
def test_admitted_in_any_window_is_at_most_burst_and_rate(
    client: BucketPolicy, route: BucketPolicy, service: BucketPolicy, cost: float, script: list[tuple[str, float]]
) -> None:
    """
    In every window w of every level at most burst + rate·w tokens are taken, also when the clock steps back.
    """
    policy = GuardPolicy({"a": RoutePolicy("a", LimitPolicy(route, client, cost=cost))}, LimitPolicy(service))
    stack = Guard(policy, 100.0).route("a")
    now = latest = 100.0
    admitted: list[tuple[str, float]] = []
    for key, step in script:
        now += step
        latest = max(now, latest)
        if isinstance(stack.admit(key, now), Ticket):
            admitted.append((key, latest))
    keys = {"k1": [at for key, at in admitted if key == "k1"], "k2": [at for key, at in admitted if key == "k2"]}
    for level, moments in (
        (client, keys["k1"]),
        (client, keys["k2"]),
        *[(p, [a for _, a in admitted]) for p in (route, service)],
    ):
        for first in range(len(moments)):
            for last in range(first, len(moments)):
                window = moments[last] - moments[first]
                taken = (last - first + 1) * cost
                assert taken <= max(level.burst, cost) + level.rate_per_s * window + 1e-6


@QUICK
@given(client=buckets, route=buckets, script=steps)
def test_a_retry_after_is_exact(client: BucketPolicy, route: BucketPolicy, script: list[tuple[str, float]]) -> None:
    """
    Whoever waits as long as told passes, and a moment earlier does not.
    """
    stack = Limits(
        KeyedBuckets(Rate(client, 1), 10, observed=False), Bucket(Rate(route, 1), observed=False, now=0.0), None
    )
    now = 100.0
    for key, step in script:
        now += abs(step) / 10
        refusal = stack.take(key, now)
        if refusal is not None:
            if refusal.retry_after_s > 1e-3:
                assert stack.take(key, now + refusal.retry_after_s - 1e-4) is not None
            now += refusal.retry_after_s
            assert stack.take(key, now) is None


@QUICK
@given(old=buckets, new=buckets, script=steps)
def test_a_live_change_neither_forgives_nor_adds(
    old: BucketPolicy, new: BucketPolicy, script: list[tuple[str, float]]
) -> None:
    """
    After a change a key has the tokens that it had, as far as the new bucket holds them, and never waits longer than one takes.
    """
    table = KeyedBuckets(Rate(old, 1), 10, observed=False)
    stack, now = Limits(table, None, None), 100.0
    for key, step in script:
        now += abs(step)
        stack.take(key, now)
    owed = {key: old.burst - table.rate.tokens(table.tat(key, now), now) for key in ("k1", "k2")}
    table.apply(Rate(new, 1), 10, observed=False, now=now)
    for key, tokens in owed.items():
        left = table.rate.tokens(table.tat(key, now), now)
        assert abs(left - max(0.0, new.burst - tokens)) < 1e-6
        assert table.tat(key, now) - table.rate.slack() - now <= table.rate.cost + 1e-6


events = st.lists(
    st.tuples(st.sampled_from(CLIENTS), st.sampled_from([0.0, 0.05, 0.4, 2.0]), st.booleans(), st.booleans()),
    max_size=120,
)


@QUICK
@given(script=events)
def test_both_paths_give_the_same_answers(script: list[tuple[str, float, bool, bool]]) -> None:
    """
    The plain path and the full one (directives, observing) are one stack: same tape, same decisions.
    """
    limit = LimitPolicy(BucketPolicy(20.0, 8), BucketPolicy(5.0, 4), 2)
    route = RoutePolicy("a", limit, ConcurrencyPolicy(5), BREAKER)
    policy = GuardPolicy({"a": route}, LimitPolicy(BucketPolicy(15.0, 9)), ConcurrencyPolicy(6), seed="seed")
    pair = [Guard(policy, 0.0).route("a"), Guard(policy, 0.0).route("a")]
    tapes: list[list[object]] = [[], []]
    for bound, tape, full in zip(pair, tapes, (False, True), strict=True):
        bound._plain = not full
        now, flying = 0.0, []
        for client, step, good, ends in script:
            now += step
            answer = bound.admit(client, now)
            tape.append(answer if isinstance(answer, Refusal) else answer.generation)
            if isinstance(answer, Ticket):
                bound.sent(answer, now)
                flying.append(answer)
            if ends and flying:
                outcome = Outcome.SUCCESS if good else Outcome.FAILURE
                bound.settle(flying.pop(0), outcome, now, latency_s=step)
        tape.append(bound.gauges(now))
    assert tapes[0] == tapes[1]
