from __future__ import annotations

import pytest

from sidecar.facts import OVERFLOW, Mode
from sidecar.guard.bucket import Bucket, KeyedBuckets, Rate, spread
from sidecar.guard.guard import Shares, Ticket
from sidecar.guard.limit import Limits
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


def keyed(rate_per_s: float, burst: float, max_keys: int) -> KeyedBuckets:
    """Return client buckets of one worker."""
    return KeyedBuckets(Rate(bucket(rate_per_s, burst), 1), max_keys, observed=False)


# --- one bucket --------------------------------------------------------------------------------------------------


def test_a_burst_passes_and_the_next_waits_for_its_token() -> None:
    """
    `burst` requests pass at once, the next one is told exactly when its token comes.
    """
    play = Playbook(limited(route=bucket(10, 5))).at(0.0).send(5)
    play.expect(Refuse(RATE_LIMITED, retry_after_s=pytest.approx(0.1), rule="limit"))


def test_the_retry_after_is_exact() -> None:
    """
    At Retry-After the request passes, a millisecond before it does not.
    """
    play = Playbook(limited(client=bucket(3, 2))).at(7.0).send(2)
    refusal = play.route.admit("k1", 7.0)
    assert isinstance(refusal, Refusal)
    play.at(7.0 + refusal.retry_after_s - 0.001).expect(NO).at(7.0 + refusal.retry_after_s).send()


def test_a_refused_request_takes_nothing() -> None:
    """
    Hammering does not push the next token away.
    """
    play = Playbook(limited(route=bucket(1, 1))).at(0.0).send()
    play.at(0.5).expect(*[NO] * 100).at(1.0).send()


def test_time_going_backwards_grants_nothing() -> None:
    """
    A clock that steps back by an hour admits nothing until it has caught up.
    """
    play = Playbook(limited(route=bucket(1, 1))).at(3600.0).send()
    play.at(0.0).expect(NO).at(3600.5).expect(NO).at(3601.0).send()


@pytest.mark.parametrize("workers", [2, 3, 8])
@pytest.mark.parametrize(
    ("rate_per_s", "burst"), [(100.0, 100.0), (10.0, 20.0), (1.0, 1.0), (0.5, 1.0), (2000.0, 4000.0)]
)
def test_n_workers_together_stay_within_the_limit_of_a_minute(rate_per_s: float, burst: float, workers: int) -> None:
    """
    However requests are spread, in a minute no more pass than burst and rate allow, and each worker passes one at once.
    """
    policy = service(limited(route=bucket(rate_per_s, burst)), workers=workers)
    plays = [Playbook(policy).at(0.0) for _ in range(workers)]
    at_once = [play.passed(int(burst) + 1) for play in plays]
    passed = sum(at_once)
    for tick in range(1, 60 * 20 + 1):
        for play in plays:
            play.now = tick / 20
            passed += play.passed(int(rate_per_s / 20) + 2)
    assert min(at_once) >= 1
    assert passed <= burst + rate_per_s * 60 + 1e-6
    assert passed >= 0.95 * rate_per_s * 60 - workers or rate_per_s < 1.0


def test_two_workers_have_a_whole_burst_each() -> None:
    """
    A burst of a second of the rate or less need not be cut: 2 % of the rate is spared for it.
    """
    assert spread(bucket(10, 10), 1) == (10.0, 10.0)
    assert spread(bucket(10, 10), 2) == (9.8, 10.0)
    assert spread(bucket(10, 20), 2) == (9.8, 16.0)
    assert spread(bucket(1, 1), 4) == (pytest.approx(0.95), 1.0)


def test_each_of_several_workers_may_use_its_share_of_the_rate() -> None:
    """
    At first that is an even part; a share changes the rate at once and keeps the tokens.
    """
    play = Playbook(service(limited(route=bucket(100, 50)), workers=2)).at(0.0).send(50).expect(NO)
    assert play.at(1.0).passed(100) == 49
    play.guard.share(Shares(0.5, {f"route:{ROUTE}": 0.9}), 1.0)
    play.expect(NO)
    assert play.at(1.5).passed(100) == 44


def test_what_is_left_is_told_so_that_the_workers_sum_is_the_limits() -> None:
    """
    Two workers with a burst of 50 each report 25 each, and what was used at one of them is missing in the sum.
    """
    plays = [Playbook(service(limited(route=bucket(100, 50)), workers=2)).at(0.0) for _ in range(2)]
    assert sum(play.guard.gauges(ROUTE, 0.0).limits["route"] for play in plays) == 50.0
    plays[0].send(50)
    assert [play.guard.gauges(ROUTE, 0.0).limits["route"] for play in plays] == [0.0, 25.0]


# --- cost ----------------------------------------------------------------------------------------------------------


def test_a_request_takes_its_cost_at_every_level() -> None:
    """
    A route of cost 5 empties a bucket of 20 with four requests, at each level, and waits for five tokens.
    """
    heavy = RoutePolicy(ROUTE, LimitPolicy(bucket(10, 20), bucket(10, 50), cost=5.0))
    play = Playbook(service(heavy, limited(name="light"), limit=LimitPolicy(bucket(10, 100)))).at(0.0).send(4)
    play.expect(Refuse(RATE_LIMITED, pytest.approx(0.5), "limit"))
    assert play.guard.gauges(ROUTE, 0.0).limits == {"route": 0.0, "service": 80.0}
    play.of(route="light").send()
    assert play.guard.gauges("light", 0.0).limits == {"service": 79.0}


def test_a_routes_cost_counts_where_only_the_service_is_limited() -> None:
    """
    The cost needs no limit of the route's own.
    """
    heavy = RoutePolicy(ROUTE, LimitPolicy(cost=2.5))
    play = Playbook(service(heavy, limit=LimitPolicy(bucket(1, 5)))).at(0.0).send(2)
    play.expect(Refuse(RATE_LIMITED, pytest.approx(2.5), "service.limit"))


def test_the_header_counts_requests_of_this_cost() -> None:
    """
    What a client is told are requests, not tokens.
    """
    play = Playbook(RoutePolicy(ROUTE, LimitPolicy(None, bucket(10, 20), cost=5.0))).at(0.0).send()
    assert play.limit_header("k1", 0.0) == ('"client";q=4;w=2', '"client";r=3;t=1')


def test_a_refused_request_gives_its_whole_cost_back() -> None:
    """
    Also an expensive one that concurrency refuses has taken nothing.
    """
    route = RoutePolicy(ROUTE, LimitPolicy(bucket(10, 20), bucket(10, 20), cost=5.0), ConcurrencyPolicy(1))
    play = Playbook(service(route, limit=LimitPolicy(bucket(10, 20)))).at(0.0).send(outcome=PENDING)
    play.expect(*[Refuse(CONCURRENCY_LIMITED)] * 20)
    assert play.guard.gauges(ROUTE, 0.0).limits == {"route": 15.0, "service": 15.0}


# --- levels ------------------------------------------------------------------------------------------------------


def test_the_narrowest_level_that_refuses_names_the_rule() -> None:
    """
    Client before route before service, with the longest wait of all that refuse.
    """
    policy = service(limited(route=bucket(1, 2), client=bucket(10, 1)), limit=LimitPolicy(bucket(0.1, 3)))
    play = Playbook(policy).at(0.0).send().expect(Refuse(RATE_LIMITED, pytest.approx(0.1), "limit.per_client"))
    play.of("k2").send().of("k3").expect(Refuse(RATE_LIMITED, pytest.approx(1.0), "limit"))
    play.at(1.0).send().of("k2").expect(Refuse(RATE_LIMITED, pytest.approx(9.0), "limit"))
    play.at(2.0).expect(Refuse(RATE_LIMITED, pytest.approx(8.0), "service.limit"))


def test_an_abuser_does_not_drain_what_others_share() -> None:
    """
    Tokens are taken only if every level passes: refused requests of one client leave the shared buckets alone.
    """
    policy = service(limited(route=bucket(10, 10), client=bucket(1, 2)), limit=LimitPolicy(bucket(10, 10)))
    play = Playbook(policy).at(0.0).of("abuser").send(2).expect(*[NO] * 100)
    assert play.guard.gauges(ROUTE, 0.0).limits == {"route": 8.0, "service": 8.0}
    for n in range(8):
        play.of(f"k{n}").send()


def test_a_refusing_wide_level_takes_nothing_from_the_client() -> None:
    """
    A client whose request the route refused has all its tokens.
    """
    play = Playbook(limited(route=bucket(1, 1), client=bucket(1, 1))).at(0.0).of("k1").send().of("k2").expect(NO)
    play.at(1.0).of("k2").send()


def test_a_later_guards_refusal_gives_the_tokens_back() -> None:
    """
    What concurrency refuses has taken no token at any level.
    """
    route = RoutePolicy(ROUTE, LimitPolicy(bucket(10, 10), bucket(10, 10)), ConcurrencyPolicy(1))
    play = Playbook(service(route, limit=LimitPolicy(bucket(10, 10)))).at(0.0).send(outcome=PENDING)
    play.expect(*[Refuse(CONCURRENCY_LIMITED)] * 50)
    assert play.guard.gauges(ROUTE, 0.0).limits == {"route": 9.0, "service": 9.0}
    assert play.limit_header("k1", 0.0) == ('"client";q=10;w=1', '"client";r=9;t=1')


def test_the_service_limit_is_shared_by_all_routes() -> None:
    """
    Two routes drain one bucket, also one that no policy names.
    """
    play = Playbook(service(limited(name="a"), limit=LimitPolicy(bucket(1, 2)))).at(0.0)
    play.of(route="a").send().of(route="unnamed").send().of(route="a").expect(NO)


# --- keys --------------------------------------------------------------------------------------------------------


def test_a_full_table_sends_unknown_keys_to_the_overflow_bucket() -> None:
    """
    Beyond `max_keys` unknown clients share one bucket, and known ones keep theirs.
    """
    play = Playbook(limited(client=bucket(0.001, 2), max_keys=3)).at(0.0)
    for key in ("a", "b", "c"):
        play.of(key).send()
    play.of("d").send().of("e").send().of("f").expect(NO).of("a").send().expect(NO)


def test_an_evicted_key_does_not_return_with_a_full_bucket() -> None:
    """
    A debtor keeps its place however many strangers come (envoy gateway#9973).
    """
    play = Playbook(limited(client=bucket(1, 2), max_keys=10)).at(0.0).of("abuser").send(2).expect(NO)
    for n in range(1000):
        play.route.admit(f"stranger-{n}", 0.5)
    play.at(0.5).of("abuser").expect(NO)


def test_a_key_with_a_full_bucket_makes_room() -> None:
    """
    Who has all its tokens again loses nothing by leaving.
    """
    play = Playbook(limited(client=bucket(1, 1), max_keys=2)).at(0.0).of("a").send().of("b").send()
    play.at(1.0).of("c").send().of("d").send().of("e").send().expect(NO)


def test_the_tick_lets_idle_keys_go() -> None:
    """
    A table is not kept at its bound by clients that left.
    """
    play = Playbook(limited(client=bucket(10, 1))).at(0.0)
    for n in range(300):
        play.of(f"k{n}").send()
    play.at(10.0).tick()
    play.tick()
    assert play.route._levels.client is not None
    assert len(play.route._levels.client) == 0


# --- live changes ------------------------------------------------------------------------------------------------


def test_a_live_change_does_not_forget_the_keys() -> None:
    """
    A client that owes 20 tokens owes them under the new rate too.
    """
    play = Playbook(limited(client=bucket(10, 20))).at(0.0).send(20)
    play.apply(limited(client=bucket(5, 20))).expect(Refuse(RATE_LIMITED, pytest.approx(0.2))).of("new").send(20)


def test_a_rollback_of_a_far_too_low_limit_frees_its_clients_at_once() -> None:
    """
    After a minute under 1/min a client passes in the very moment in which 10/s is back.
    """
    play = Playbook(limited(route=bucket(100, 100), client=bucket(10, 20))).at(0.0).send(15)
    play.apply(limited(route=bucket(1 / 60, 1), client=bucket(1 / 60, 1))).expect(*[NO] * 50)
    play.at(60.0).send().expect(NO)
    play.apply(limited(route=bucket(100, 100), client=bucket(10, 20))).send(19)


def test_a_debt_is_never_more_than_a_whole_bucket() -> None:
    """
    From a large bucket to a small one the wait is at most what refills the small one.
    """
    play = Playbook(limited(route=bucket(1, 1000))).at(0.0).send(1000)
    play.apply(limited(route=bucket(1, 2))).expect(Refuse(RATE_LIMITED, pytest.approx(1.0)))


def test_fewer_keys_keep_the_debtors() -> None:
    """
    When `max_keys` shrinks, those with the emptiest buckets stay, and the overflow bucket owes what the rest owed.
    """
    table = keyed(1.0, 10.0, 10)
    for n in range(5):
        for _ in range(n + 1):
            Limits(table, None, None).take(f"k{n}", 0.0)
    table.apply(table.rate, 2, observed=False, now=0.0)
    assert table.tats == {"k4": 5.0, "k3": 4.0, OVERFLOW: 3.0}


def test_a_limit_that_goes_and_comes_starts_full() -> None:
    """
    Switched off it keeps nothing.
    """
    play = Playbook(limited(route=bucket(1, 1))).at(0.0).send()
    play.apply(limited(route=bucket(1, 1), mode=LimitMode.OFF)).send(10)
    play.apply(limited(route=bucket(1, 1))).send().expect(NO)


# --- observing ---------------------------------------------------------------------------------------------------


def test_an_observing_limit_counts_what_it_would_have_refused() -> None:
    """
    Beyond the limit all pass with a note, and its bucket refills as if they had been refused.
    """
    play = Playbook(limited(route=bucket(1, 1), mode=LimitMode.OBSERVE)).at(0.0).send()
    play.expect(*[Admit(would=(RATE_LIMITED,))] * 10).at(1.0).expect(Admit(), Admit(would=(RATE_LIMITED,)))


def test_an_observing_limit_leaves_the_enforced_one_alone() -> None:
    """
    What only the route's observing limit would refuse still costs the service a token, and never the other way.
    """
    route = limited(route=bucket(1, 1), mode=LimitMode.OBSERVE)
    play = Playbook(service(route, limit=LimitPolicy(bucket(1, 3)))).at(0.0)
    play.send().expect(Admit(would=(RATE_LIMITED,)), Admit(would=(RATE_LIMITED,)))
    play.expect(Refuse(RATE_LIMITED, rule="service.limit"))
    assert play.guard.gauges(ROUTE, 0.0).limits == {"route": 0.0, "service": 0.0}


def test_observe_for_all_turns_every_limit_into_a_counting_one() -> None:
    """
    `mode: observe` above overrules a limit's own `enforce`, and `off` above keeps none.
    """
    policy = service(limited(route=bucket(1, 1)), limit=LimitPolicy(bucket(1, 1)), mode=Mode.OBSERVE)
    play = Playbook(policy).at(0.0).send().expect(Admit(would=(RATE_LIMITED,)))
    assert play.limit_header("k1", 0.0) is None
    play.apply(service(limited(route=bucket(1, 1)), mode=Mode.OFF)).send(10)


def test_a_cancelled_observing_token_returns() -> None:
    """
    A refusal by concurrency also gives back what an observing limit took.
    """
    route = RoutePolicy(ROUTE, LimitPolicy(bucket(1, 9), bucket(1, 9), mode=LimitMode.OBSERVE), ConcurrencyPolicy(1))
    play = Playbook(service(route, limit=LimitPolicy(bucket(1, 9)))).at(0.0)
    play.send(outcome=PENDING).expect(*[Refuse(CONCURRENCY_LIMITED)] * 20)
    assert play.guard.gauges(ROUTE, 0.0).limits == {"route": 8.0, "service": 8.0}


def test_an_observing_client_limit_uses_the_overflow_bucket_too() -> None:
    """
    Bounded keys hold in the observing path as well.
    """
    play = Playbook(limited(client=bucket(0.001, 1), max_keys=1, mode=LimitMode.OBSERVE)).at(0.0)
    play.of("a").send().of("b").send().of("c").expect(Admit(would=(RATE_LIMITED,)))


# --- headers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (0, ('"client";q=20;w=2', '"client";r=20;t=0')),
        (5, ('"client";q=20;w=2', '"client";r=15;t=1')),
        (20, ('"client";q=20;w=2', '"client";r=0;t=2')),
    ],
)
def test_the_header_names_the_most_binding_level(sent: int, expected: tuple[str, str]) -> None:
    """
    The level with the fewest tokens left speaks, with its quota and window.
    """
    play = Playbook(limited(route=bucket(100, 200), client=bucket(10, 20))).at(0.0).send(sent)
    assert play.limit_header("k1", 0.0) == expected


def test_a_wide_level_that_binds_more_speaks() -> None:
    """
    A fresh client on an almost drained route is told the route's numbers.
    """
    play = Playbook(limited(route=bucket(1, 3), client=bucket(10, 20))).at(0.0).send(2)
    assert play.limit_header("new", 0.0) == ('"route";q=3;w=3', '"route";r=1;t=2')


def test_no_limit_no_header() -> None:
    """
    Without an enforced limit there is nothing to say.
    """
    assert Playbook(service()).limit_header("k1", 0.0) is None


def test_reprs_are_for_humans() -> None:
    """
    Every stateful object says in one line what it is.
    """
    rate = Rate(bucket(10, 20), 2)
    assert repr(rate) == "<Rate 10/s burst 20 over 2 workers>"
    assert repr(Bucket(rate, observed=False, now=1.0)) == "<Bucket 10/s burst 20 over 2 workers tat=1.000>"
    assert repr(keyed(1.0, 2.0, 5)) == "<KeyedBuckets 1/s burst 2 keys=0/5>"
    assert "client=None" in repr(Limits(None, None, None))
    assert repr(Ticket("k1", 0.0)) == "<Ticket k1 admitted g-1>"
