from __future__ import annotations

from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sidecar.controller.shares import DEAD_S, split
from sidecar.guard.bucket import KeyedBuckets, Rate
from sidecar.guard.policies import BucketPolicy, LimitPolicy
from tests.support.crew import Crew
from tests.support.playbook import ROUTE, limited, service

NAMES = ("service", f"route:{ROUTE}", f"client:{ROUTE}:a", f"client:{ROUTE}:b", "*")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.floats(0.0, 50.0), min_size=1, max_size=8))
def test_a_split_is_whole_and_leaves_nobody_out(asked: list[float]) -> None:
    """
    The parts sum to one, each is above zero, and who asks more gets no less.
    """
    parts = split(asked)
    assert abs(sum(parts) - 1.0) < 1e-9
    assert min(parts) > 0.0
    order = sorted(range(len(asked)), key=lambda index: asked[index])
    assert all(parts[low] <= parts[high] + 1e-9 for low, high in pairwise(order))


class Sharing(RuleBasedStateMachine):
    """Traffic that moves, links that break, controllers that die, frames that take their time."""

    @initialize(
        workers=st.integers(2, 4),
        delay=st.sampled_from([0.0, 0.02, 0.4]),
        rate=st.sampled_from([2.0, 30.0]),
        burst=st.sampled_from([2, 20]),
    )
    def begin(self, workers: int, delay: float, rate: float, burst: int) -> None:
        policy = BucketPolicy(rate, burst)
        self.policy = policy
        self.cut_s = 0.0
        self.crew = Crew(
            service(limited(route=policy, client=policy), limit=LimitPolicy(policy)), workers, delay_s=delay
        )

    @rule(
        seconds=st.sampled_from([0.1, 0.5, 3.0]),
        worker=st.integers(0, 3),
        client=st.sampled_from(["a", "b"]),
        rate=st.sampled_from([1.0, 20.0, 200.0]),
        everywhere=st.booleans(),
    )
    def traffic(self, seconds: float, worker: int, client: str, rate: float, everywhere: bool) -> None:
        workers = range(self.crew.workers) if everywhere else [worker % self.crew.workers]
        self.cut_s += seconds
        if self.cut_s >= 0.9 * DEAD_S:
            self.mend()
        self.crew.run(seconds, {(each, client): rate for each in workers}, step_s=0.05)

    @rule(worker=st.integers(0, 3))
    def cut(self, worker: int) -> None:
        if self.crew.connected[worker % self.crew.workers]:
            if all(self.crew.connected):
                self.cut_s = 0.0
            self.crew.cut(worker % self.crew.workers)

    @rule()
    def mend(self) -> None:
        for worker, connected in enumerate(self.crew.connected):
            if not connected:
                self.crew.mend(worker)

    @rule()
    def replace_controller(self) -> None:
        self.mend()
        self.crew.new_controller()

    @invariant()
    def parts_are_never_more_than_the_whole(self) -> None:
        if hasattr(self, "crew"):
            assert all(self.crew.held(name) <= 1.0 + 1e-6 for name in NAMES)

    def teardown(self) -> None:
        if hasattr(self, "crew"):
            allowed = self.policy.burst + 60.0 * self.policy.rate_per_s
            allowed = max(allowed, self.crew.workers)
            assert self.crew.most_in(60.0) <= allowed + 1e-6
            assert self.crew.most_in(60.0, "a") <= allowed + 1e-6


# A link that stays cut for longer than `DEAD_S` belongs to a process that is dead: the machine never waits so long.
TestSharing = Sharing.TestCase
TestSharing.settings = settings(
    max_examples=30, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)


@settings(max_examples=100, deadline=None)
@given(
    moves=st.lists(st.tuples(st.floats(0.001, 1.0), st.floats(0.0, 3.0), st.integers(0, 9)), min_size=1, max_size=30)
)
def test_moving_a_share_makes_no_token(moves: list[tuple[float, float, int]]) -> None:
    """
    A client's bucket that gets another share, or loses it, has as many tokens as before.
    """
    policy, now = BucketPolicy(10.0, 20), 0.0
    table = KeyedBuckets(Rate(policy, 2), 100, observed=False)
    table.place("a", now)
    for share, step, spent in moves:
        now += step
        bucket = table.leases.get("a")
        tat, rate = (table.tats["a"], table.rate) if bucket is None else (bucket.tat, bucket.rate)
        charged = max(tat, now) + min(spent, rate.tokens(tat, now)) * rate.cost
        if bucket is None:
            table.tats["a"] = charged
        else:
            bucket.tat = charged
        before = rate.tokens(charged, now)
        table.lease({"a": Rate(policy, 2, share)} if spent % 3 else {}, now)
        bucket = table.leases.get("a")
        after = table.rate.tokens(table.tats["a"], now) if bucket is None else bucket.rate.tokens(bucket.tat, now)
        assert abs(after - before) < 1e-6
