"""Several endpoints: whose turn it is, who rests, and for how long."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from sidecar import clock
from sidecar.config.policies import Endpoint, UpstreamPolicy
from sidecar.facts import Action, Directive, Scope
from sidecar.proxy.deadline import Wheel
from sidecar.proxy.pool import Backend, Pool
from sidecar.reasons import Reason


def chosen(pool: Pool, times: int = 64) -> set[Backend | None]:
    return {pool.choose() for _ in range(times)}


def several(count: int, **changes: object) -> Pool:
    loop = asyncio.get_running_loop()
    endpoints = tuple(Endpoint("127.0.0.1", index + 1) for index in range(count))
    return Pool(loop, Wheel(loop), UpstreamPolicy(endpoints, **changes), seed="test")  # type: ignore[arg-type]


def fail(backend: Backend, times: int, now: float) -> None:
    for _ in range(times):
        backend.judge(now, failed=True)


def stands(pool: Pool, now: float) -> list[str]:
    return [stand for stand, _, _ in pool.states(now).values()]


async def test_weights_make_the_shares() -> None:
    """
    An endpoint of weight 3 is chosen three times as often as one of weight 1, as long as nobody is loaded.
    """
    loop = asyncio.get_running_loop()
    endpoints = (Endpoint("127.0.0.1", 1), Endpoint("127.0.0.1", 2, weight=3))
    pool = Pool(loop, Wheel(loop), UpstreamPolicy(endpoints))
    counted = Counter(str(pool.choose().endpoint) for _ in range(400))  # type: ignore[union-attr]
    assert counted == {"127.0.0.1:1": 100, "127.0.0.1:2": 300}


async def test_the_less_loaded_of_two_is_chosen() -> None:
    """
    Requests in flight, and those that wait for a connection, count against an endpoint, by its weight.
    """
    pool = several(2)
    one, two = pool.backends
    one.dialling = 1
    assert chosen(pool) == {two}
    two.dialling = 2
    assert chosen(pool) == {one}
    two.weight = 4.0
    assert chosen(pool) == {two}


async def test_an_outlier_is_ejected_and_returns_slowly() -> None:
    """
    Five failures in a row while the others do well: it is not chosen for its time, then takes a growing part.
    """
    pool = several(3)
    one, two, three = pool.backends
    now = clock.now()
    for backend in (two, three):
        backend.judge(now, failed=False)
    fail(one, 5, now)

    assert stands(pool, now) == ["ejected", "up", "up"]
    assert chosen(pool) == {two, three}
    assert [ejections for *_, ejections in pool.states(now).values()] == [1, 0, 0]
    pool.turn(now + 31.0)
    parts = Counter(pool.choose() for _ in range(1000))
    assert 20 < parts[one] < 100
    pool.turn(now + 42.0)
    assert 300 < Counter(pool.choose() for _ in range(1000))[one] < 370


async def test_nobody_is_ejected_when_all_fail() -> None:
    """
    An endpoint that fails no more than the others is no outlier: the API is down, and that is the breaker's part.
    """
    pool = several(3)
    now = clock.now()
    for _ in range(30):
        for backend in pool.backends:
            backend.judge(now, failed=True)

    assert stands(pool, now) == ["up"] * 3


async def test_at_most_a_part_is_ejected_and_never_the_last_one() -> None:
    """
    Of four endpoints two may be ejected, of two endpoints one; a single one is not even watched.
    """
    for count, most in ((4, 2), (3, 1), (2, 1)):
        pool = several(count)
        now = clock.now()
        for _ in range(100):
            pool.backends[-1].judge(now, failed=False)
        for backend in pool.backends[:-1]:
            fail(backend, 20, now)
        assert stands(pool, now).count("ejected") == most
    assert not several(1).backends[0].watched


async def test_unreachable_endpoints_leave_one_that_serves() -> None:
    """
    The last endpoint in service is not ejected, whatever made the others rest.
    """
    pool = several(2)
    one, two = pool.backends
    now = clock.now()
    one.unreached(now)
    fail(two, 50, now)
    assert stands(pool, now) == ["unreachable", "up"]
    assert chosen(pool) == {two}


async def test_when_all_rest_all_are_used() -> None:
    """
    Health checks that fail everywhere take nothing out of service: refusing everything would be worse.
    """
    pool = several(2)
    now = clock.now()
    pool.check({"127.0.0.1:1": now + 15.0}, now)
    assert chosen(pool) == {pool.backends[1]}
    pool.check({"127.0.0.1:1": now + 15.0, "127.0.0.1:2": now + 15.0}, now)
    assert chosen(pool) == set(pool.backends)
    assert stands(pool, now) == ["unhealthy", "unhealthy"]
    pool.turn(now + 16.0)
    assert stands(pool, now + 16.0) == ["up", "up"]


def override(endpoint: str, action: Action, end_at: float, share: float | None = None) -> Directive:
    scope = Scope.parse(f"endpoint:{endpoint}")
    return Directive(f"override-{scope}", scope, action, end_at, share_ratio=share)


async def test_an_operator_isolates_an_endpoint() -> None:
    """
    It is not chosen until the override ends, not even when all others rest; when all are isolated requests are refused.
    """
    pool = several(2)
    one, two = pool.backends
    now = clock.now()
    pool.direct([override("127.0.0.1:1", Action.ISOLATE, now + 10.0)], now)
    two.unreached(now)
    assert chosen(pool) == {two}

    both = [override(f"127.0.0.1:{port}", Action.ISOLATE, now + 10.0) for port in (1, 2)]
    pool.direct(both, now)
    assert chosen(pool) == {None}
    refusal = pool.refusal(now)
    assert (refusal.reason, refusal.retry_after_s) == (Reason.OVERRIDDEN, pytest.approx(10.0))
    pool.turn(now + 10.1)
    assert chosen(pool) == {one, two}


async def test_an_operator_throttles_and_spares_endpoints() -> None:
    """
    A share is a part of the weight; `allow` and `observe` keep automation away from an endpoint.
    """
    pool = several(2)
    one, two = pool.backends
    now = clock.now()
    pool.direct([override("127.0.0.1:1", Action.THROTTLE, now + 10.0, share=0.25)], now)
    assert Counter(pool.choose() for _ in range(1000))[one] == pytest.approx(200, abs=10)

    pool.direct([override("127.0.0.1:1", Action.ALLOW, now + 10.0)], now)
    assert (one.watched, two.watched) == (False, True)


async def test_a_config_change_keeps_what_is_known_of_endpoints() -> None:
    """
    A new weight changes the shares and neither ends an ejection nor closes a connection.
    """
    pool = several(3)
    now = clock.now()
    pool.backends[1].judge(now, failed=False)
    fail(pool.backends[0], 5, now)
    before = pool.backends

    pool.apply(UpstreamPolicy(tuple(replace(each.endpoint, weight=2) for each in before)))
    assert pool.backends == before
    assert stands(pool, clock.now()) == ["ejected", "up", "up"]
