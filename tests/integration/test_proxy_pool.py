"""The pool on a real event loop: who is chosen, what is kept, and what a config change does to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from sidecar import clock
from sidecar.config.policies import Endpoint, UpstreamPolicy
from sidecar.proxy.deadline import Wheel
from sidecar.proxy.names import Names
from sidecar.proxy.pool import Backend, Pool
from sidecar.proxy.upstream import Upstream as Connection
from sidecar.reasons import Reason
from tests.support.patience import WAIT_S
from tests.support.sidecar import until
from tests.support.upstream import Upstream


@dataclass
class Waiting:
    """An exchange that only wants a connection."""

    got: asyncio.Future[Connection | tuple[Reason, str]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def connected(self, upstream: Connection, now: float) -> None:
        self.got.set_result(upstream)

    def not_connected(self, reason: Reason, detail: str, now: float) -> None:
        self.got.set_result((reason, detail))

    def broken(self, error: Exception) -> None:
        self.got.set_exception(error)


def chosen(pool: Pool, times: int = 64) -> set[Backend | None]:
    return {pool.choose() for _ in range(times)}


def endpoint_of(upstream: Upstream) -> Endpoint:
    return Endpoint("127.0.0.1", upstream.port)


def pool_of(*endpoints: Endpoint, most: int = 256, idle_timeout_s: float = 60.0) -> Pool:
    loop = asyncio.get_running_loop()
    return Pool(loop, Wheel(loop), UpstreamPolicy(endpoints, WAIT_S, WAIT_S, idle_timeout_s, most))


async def dial(pool: Pool) -> Connection | tuple[Reason, str]:
    waiting = Waiting()
    chosen = pool.choose()
    assert chosen is not None
    pool.dial(chosen, waiting)
    return await asyncio.wait_for(waiting.got, WAIT_S)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    with Upstream() as made:
        yield made


async def test_the_last_connection_used_is_the_next_one(upstream: Upstream) -> None:
    """
    Idle connections are a stack, so that a falling load lets the others expire; beyond `pool` they are closed.
    """
    pool = pool_of(endpoint_of(upstream), most=2)
    made = [await dial(pool) for _ in range(3)]
    backend = pool.backends[0]
    for connection in made:
        assert isinstance(connection, Connection)
        backend.give(connection, clock.now())

    assert [backend.take(clock.now()) for _ in range(3)] == [made[1], made[0], None]
    assert len(backend.open) == 2


async def test_a_connection_that_ended_while_idle_is_not_given_out(upstream: Upstream) -> None:
    """
    The kernel is asked before each use: an end that the event loop has not seen yet counts.
    """
    pool = pool_of(endpoint_of(upstream))
    connection = await dial(pool)
    assert isinstance(connection, Connection)
    pool.backends[0].give(connection, clock.now())
    until(lambda: upstream.accepted, "the API has it")
    upstream.end_connections()
    while connection.is_fresh():  # the loop gets no turn here: only the kernel can know
        continue

    assert pool.backends[0].take(clock.now()) is None
    assert not pool.backends[0].open


async def test_an_idle_connection_expires(upstream: Upstream) -> None:
    """
    A connection that nobody uses for `idle_timeout` is closed.
    """
    upstream.use(lambda conn: conn.tell(conn.wait_for_end()))
    pool = pool_of(endpoint_of(upstream), idle_timeout_s=0.2)
    connection = await dial(pool)
    assert isinstance(connection, Connection)
    backend = pool.backends[0]
    backend.give(connection, clock.now())

    assert await asyncio.to_thread(upstream.next_news) == "end"
    assert (backend.idle, backend.open) == ([], set())


async def test_a_failed_endpoint_is_skipped_for_a_time() -> None:
    """
    After a failure an endpoint is passed over; when all have failed they are tried in turn all the same.
    """
    pool = pool_of(Endpoint("127.0.0.1", 1), Endpoint("127.0.0.1", 2))
    one, two = pool.backends
    one.unreached(100.0)
    assert chosen(pool) == {two}
    pool.turn(100.9)
    assert chosen(pool) == {two}
    pool.turn(101.1)
    assert chosen(pool) == {one, two}

    one.unreached(102.0)
    two.unreached(102.0)
    assert chosen(pool) == {one, two}
    one.reached(102.1)
    assert chosen(pool) == {one}


async def test_the_only_endpoint_is_never_skipped() -> None:
    """
    A single endpoint is tried again at once: there is nobody else, and its return must be seen.
    """
    pool = pool_of(Endpoint("127.0.0.1", 1))
    pool.backends[0].unreached(clock.now())

    answer = await dial(pool)

    assert isinstance(answer, tuple)
    assert answer[0] is Reason.UPSTREAM_CONNECT_FAILED
    assert "127.0.0.1:1" in answer[1]


async def test_a_config_change_keeps_the_connections_of_endpoints_that_stay(upstream: Upstream) -> None:
    """
    Endpoints that stay keep their idle connections, those of endpoints that go are closed, now or after their request.
    """
    with Upstream() as other:
        pool = pool_of(endpoint_of(upstream), endpoint_of(other))
        made = [await dial(pool) for _ in range(4)]
        for connection in made:
            assert isinstance(connection, Connection)
            if connection is not made[3]:
                connection.home.give(connection, clock.now())
        gone = next(backend for backend in pool.backends if backend.endpoint == endpoint_of(other))
        stays = next(backend for backend in pool.backends if backend is not gone)
        kept = list(stays.idle)

        pool.apply(UpstreamPolicy((endpoint_of(upstream),)))
        late = made[3]
        assert isinstance(late, Connection)
        late.home.give(late, clock.now())

        assert pool.backends == (stays,)
        assert stays.idle[: len(kept)] == kept
        assert (gone.idle, gone.open) == ([], set())


async def test_a_cancelled_dial_leaves_nothing(upstream: Upstream) -> None:
    """
    A client that leaves while its connection is made leaves no connection and no task.
    """
    pool = pool_of(endpoint_of(upstream))
    attempt = pool.dial(pool.backends[0], Waiting())
    attempt.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert not pool.backends[0].open
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("dial")] == []


async def test_names_keep_their_last_good_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A look-up that fails leaves what was found before in force; a name that was never found says what to correct, once to
    people and at each request.
    """
    loop, told = asyncio.get_running_loop(), list[str]()
    names = Names(loop, 30.0, lambda name, addresses: None, lambda event, problem: told.append(problem))
    found = await names.addresses("localhost")

    async def down(*_: object, **__: object) -> list[object]:
        raise OSError("the name server is down")

    monkeypatch.setattr(loop, "getaddrinfo", down)  # the name service is outside; everything of ours is real
    names._asked_at["localhost"] = 0.0
    names.failed("localhost", found[0])
    await asyncio.gather(*names._running.values())

    assert set(await names.addresses("localhost")) == set(found)
    assert await names.addresses("192.0.2.1") == ("192.0.2.1",)
    for _ in range(2):
        with pytest.raises(OSError, match=r"correct upstream\.endpoints"):
            await names.addresses("never-found.test")
    assert told == ["never-found.test: the name server is down: correct upstream.endpoints or the name service"]


async def test_a_name_is_looked_up_again_and_lets_go_of_old_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Every `resolve` the name is asked for; the pool hears of a name that lost an address, and of no other change.
    """
    loop = asyncio.get_running_loop()
    told: list[tuple[str, object]] = []
    answers = [("192.0.2.1", "192.0.2.2"), ("192.0.2.2", "192.0.2.1"), ("192.0.2.2", "192.0.2.3")]

    async def look_up(*_: object, **__: object) -> list[object]:
        return [(0, 0, 0, "", (address, 0)) for address in answers.pop(0)]

    monkeypatch.setattr(loop, "getaddrinfo", look_up)  # the name service is outside; everything of ours is real
    names = Names(loop, 30.0, lambda name, addresses: told.append((name, addresses)))
    assert [await names.addresses("api.test") for _ in range(2)] == [
        ("192.0.2.1", "192.0.2.2"),
        ("192.0.2.2", "192.0.2.1"),
    ]

    for late_s in (31.0, 62.0):
        names.turn(clock.now() + late_s)
        await asyncio.gather(*names._running.values())
        names._asked_at["api.test"] = clock.now() + late_s
    assert told == [("api.test", ("192.0.2.2", "192.0.2.3"))]
    assert answers == []


async def test_connections_to_an_address_that_is_gone_are_let_go(upstream: Upstream) -> None:
    """
    An idle one is closed at once, one in use after its request.
    """
    pool = pool_of(endpoint_of(upstream))
    idle, used = await dial(pool), await dial(pool)
    assert isinstance(idle, Connection)
    assert isinstance(used, Connection)
    backend = pool.backends[0]
    backend.give(idle, clock.now())

    backend.moved(("127.0.0.1",))
    assert backend.idle == [idle]
    backend.moved(("192.0.2.1",))
    assert (backend.idle, backend.open) == ([], {used})
    backend.give(used, clock.now())
    assert backend.open == set()
