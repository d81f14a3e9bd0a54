"""The queue of a route that shapes, on a real event loop and a real guard."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

from sidecar import clock
from sidecar.guard.guard import Guard, Ticket
from sidecar.guard.policies import (
    BucketPolicy,
    ConcurrencyPolicy,
    GuardPolicy,
    LimitMode,
    LimitPolicy,
    RoutePolicy,
)
from sidecar.proxy.shaper import Place, Shaper
from sidecar.reasons import Reason, Refusal
from tests.support.lag import Lag


class Request:
    """What waits, and what became of it."""

    def __init__(self, bench: Bench, client: str, now: float) -> None:
        self.client = client
        self.bench = bench
        self.sent_at = now
        self.place: Place | None = None
        self.answer: Ticket | Refusal | None = None
        self.waited_s = 0.0
        self.errors: list[Exception] = []

    def admitted(self, ticket: Ticket, now: float) -> None:
        """Take the ticket."""
        self._ended(ticket, now)

    def refuse(self, refusal: Refusal, now: float) -> None:
        """Take the no."""
        self._ended(refusal, now)

    def broken(self, error: Exception) -> None:
        """Take a fault."""
        self.errors.append(error)

    def _ended(self, answer: Ticket | Refusal, now: float) -> None:
        assert self.answer is None
        self.answer, self.waited_s = answer, now - self.sent_at
        self.bench.order.append(self.client)

    @property
    def passed(self) -> bool:
        """Tell whether it was admitted."""
        return isinstance(self.answer, Ticket)


async def until(true: Callable[[], object]) -> None:
    """Ask until it is true; the test's own timeout ends a vain wait."""
    while not true():  # noqa: ASYNC110 - what is waited for has no event of its own
        await asyncio.sleep(0.002)


class Bench:
    """One shaper and its guard."""

    def __init__(self, limit: LimitPolicy, *, service: LimitPolicy | None = None, most: int = 0) -> None:
        self.route = RoutePolicy("r", limit, ConcurrencyPolicy(most) if most else None)
        self.guard = Guard(GuardPolicy({"r": self.route}, service), clock.now())
        self.bound = self.guard.route("r")
        self.shaper = Shaper(asyncio.get_running_loop(), self.bound, limit)
        self.order: list[str] = []
        self.sent: list[Request] = []

    def send(self, client: str = "a", count: int = 1) -> list[Request]:
        """Send requests as an exchange does."""
        now = clock.now()
        made = [Request(self, client, now) for _ in range(count)]
        for request in made:
            answer = self.shaper.admit(client, now)
            if isinstance(answer, Refusal):
                place = self.shaper.park(request, client, answer, now)
                if isinstance(place, Refusal):
                    request.refuse(place, now)
                else:
                    request.place = place
            else:
                request.admitted(answer, now)
        self.sent += made
        return made

    async def all_ended(self) -> None:
        """Wait until nothing waits."""
        await until(lambda: all(request.answer is not None or request.errors for request in self.sent))


def shaping(
    rate: float | None = 100.0, *, client: float | None = None, burst: int = 1, wait_s: float = 1.0, queue: int = 100
) -> LimitPolicy:
    """Return a limit that shapes."""
    return LimitPolicy(
        None if rate is None else BucketPolicy(rate, burst),
        None if client is None else BucketPolicy(client, burst),
        mode=LimitMode.SHAPE,
        max_wait_s=wait_s,
        max_queue=queue,
    )


async def test_what_exceeds_the_limit_leaves_at_its_pace() -> None:
    """
    Twenty at once at 100/s and burst 5: five pass at once, the last after 0.15 s, none is refused, in their order.
    """
    bench = Bench(shaping(burst=5, wait_s=60.0))
    async with Lag() as lag:
        requests = bench.send(count=20)
        assert [request.passed for request in requests] == [True] * 5 + [False] * 15
        await bench.all_ended()
    assert all(request.passed for request in requests)
    assert 0.145 <= requests[-1].waited_s <= 0.3 + lag.seconds
    assert [r.waited_s for r in requests] == sorted(r.waited_s for r in requests)
    assert bench.shaper.waiting == 0


async def test_the_pace_loses_nothing_to_late_timers() -> None:
    """
    Over half a second of waiting the whole rate passes, within a few percent.
    """
    bench = Bench(shaping(400.0, burst=20, queue=1000, wait_s=60.0))
    async with Lag() as lag:
        requests = bench.send(count=220)
        await bench.all_ended()
    assert 0.49 <= requests[-1].waited_s <= 0.7 + lag.seconds


async def test_clients_take_turns() -> None:
    """
    Who sends fifty waits behind itself: another one's first request is next.
    """
    bench = Bench(shaping(200.0, wait_s=60.0))
    many = bench.send("many", 50)
    bench.send("few", 2)
    await bench.all_ended()
    assert Counter(bench.order[1:5]) == {"many": 2, "few": 2}
    assert many[-1].waited_s >= 0.2


async def test_nobody_passes_by_those_who_wait() -> None:
    """
    A steady stream of newcomers does not take the tokens that others wait for.
    """
    bench = Bench(shaping(100.0))
    bench.send("first", 10)
    for _ in range(60):
        bench.send("stream")
        await asyncio.sleep(0.001)
    assert Counter(bench.order[:9])["first"] >= 4
    await bench.all_ended()


async def test_a_wait_is_bounded() -> None:
    """
    Whose turn would come too late is refused at once, and told when; nobody waits longer than `max_wait`.
    """
    bench = Bench(shaping(20.0, wait_s=0.225))
    requests = bench.send(count=10)
    refused = [request for request in requests if isinstance(request.answer, Refusal)]
    assert len(refused) == 5
    assert refused[0].answer == Refusal(Reason.RATE_LIMITED, pytest.approx(0.25, abs=0.02), "limit", "4 requests wait")
    async with Lag() as lag:
        await bench.all_ended()
    assert max(request.waited_s for request in requests) <= 0.3 + lag.seconds
    assert sum(request.passed for request in requests) == 5 or lag.seconds > 0.02  # the last one has 25 ms to spare


async def test_who_waited_in_vain_is_told_when_a_token_comes() -> None:
    """
    A limit that was lowered meanwhile: after `max_wait` the answer is 429 with the guard's own Retry-After.
    """
    bench = Bench(shaping(20.0, wait_s=0.1))
    requests = bench.send(count=3)
    bench.guard.apply(GuardPolicy({"r": RoutePolicy("r", shaping(0.01))}), clock.now())
    async with Lag() as lag:
        await bench.all_ended()
    answer = requests[-1].answer
    assert isinstance(answer, Refusal)
    assert (answer.reason, answer.rule) == (Reason.RATE_LIMITED, "limit")
    assert 50.0 - lag.seconds <= answer.retry_after_s <= 100.0
    assert 0.09 <= requests[-1].waited_s <= 0.3 + lag.seconds


async def test_a_queue_is_bounded_and_its_places_are_shared() -> None:
    """
    When it is full the longest lane gives its newest place to a client with fewer; within one client the newcomer is refused.
    """
    bench = Bench(shaping(10.0, queue=5, wait_s=10.0))
    flood = bench.send("flood", 7)
    assert [request.answer is not None for request in flood] == [True, *[False] * 5, True]
    late = bench.send("late", 2)
    assert [request.place is not None for request in late] == [True, True]
    assert [request.answer is not None for request in flood] == [True, *[False] * 3, *[True] * 3]
    assert bench.shaper.waiting == 5
    bench.shaper.drain(clock.now())


async def test_a_place_is_free_when_its_client_leaves() -> None:
    """
    At once, and twice is once; what left is neither admitted nor refused.
    """
    bench = Bench(shaping(20.0, queue=2))
    _, first, second = bench.send("a", 3)
    assert first.place is not None
    first.place.leave()
    first.place.leave()
    assert bench.shaper.waiting == 1
    third = bench.send("b")[0]
    assert third.place is not None
    await until(lambda: second.answer is not None and third.answer is not None)
    assert first.answer is None
    assert second.passed


async def test_draining_refuses_who_waits_and_who_would() -> None:
    """
    503 draining, and no place any more.
    """
    bench = Bench(shaping(10.0))
    waiting = bench.send(count=3)[1:]
    bench.shaper.drain(clock.now())
    late = bench.send()[0]
    for request in (*waiting, late):
        assert isinstance(request.answer, Refusal)
        assert request.answer.reason is Reason.DRAINING
    assert bench.shaper.waiting == 0


async def test_a_route_that_shapes_no_more_gives_everybody_a_turn() -> None:
    """
    Under the limit as it is now.
    """
    bench = Bench(shaping(10.0, burst=2))
    waiting = bench.send(count=5)[2:]
    bench.guard.apply(GuardPolicy({"r": RoutePolicy("r")}), clock.now())
    bench.shaper.close(clock.now())
    assert all(request.passed for request in waiting)


async def test_clients_wait_for_their_own_tokens_side_by_side() -> None:
    """
    Where each client is limited, one that waits does not delay another one, nor one that has tokens.
    """
    bench = Bench(shaping(None, client=20.0, wait_s=60.0))
    async with Lag() as lag:
        slow, other = bench.send("slow", 5), bench.send("other", 3)
        await asyncio.sleep(0.01)
        assert bench.send("fresh")[0].passed
        await bench.all_ended()
    assert all(request.passed for request in (*slow, *other))
    assert 0.09 <= other[-1].waited_s <= 0.19 + lag.seconds
    assert 0.19 <= slow[-1].waited_s <= 0.4 + lag.seconds


async def test_a_route_with_both_limits_keeps_both() -> None:
    """
    100/s for all and 20/s for each: ten clients of two requests each leave at the route's pace, and none too early.
    """
    bench = Bench(shaping(100.0, client=20.0, burst=2, wait_s=60.0))
    begun = clock.now()
    async with Lag() as lag:
        for number in range(10):
            bench.send(f"c{number}", 2)
        await bench.all_ended()
    assert 0.17 <= clock.now() - begun <= 0.4 + lag.seconds
    assert all(request.passed for request in bench.sent)


async def test_only_the_limits_of_the_route_are_waited_for() -> None:
    """
    What the service's limit or concurrency refuses is refused at once, also when its turn has come.
    """
    bench = Bench(shaping(100.0), service=LimitPolicy(BucketPolicy(0.1, 3)))
    requests = bench.send(count=5)
    await bench.all_ended()
    assert [request.passed for request in requests] == [True, True, True, False, False]
    assert isinstance(requests[3].answer, Refusal)
    assert requests[3].answer.rule == "service.limit"

    crowded = Bench(shaping(100.0), most=1)
    first, second = crowded.send(count=2)
    await crowded.all_ended()
    assert first.passed
    assert isinstance(second.answer, Refusal)
    assert second.answer.reason is Reason.CONCURRENCY_LIMITED


async def test_a_fault_of_one_exchange_costs_the_others_nothing() -> None:
    """
    It is told to that exchange, and the queue goes on.
    """
    bench = Bench(shaping(100.0))
    _, bad, good = bench.send(count=3)

    def fail(ticket: Ticket, now: float) -> None:
        raise RuntimeError("a fault")

    bad.admitted = fail  # type: ignore[method-assign]
    await bench.all_ended()
    assert [str(error) for error in bad.errors] == ["a fault"]
    assert good.passed


async def test_an_idle_shaper_holds_no_task() -> None:
    """
    After the last one has left there is nothing to run, and its words are for humans.
    """
    bench = Bench(shaping(50.0))
    requests = bench.send(count=3)
    assert repr(bench.shaper) == "<Shaper r 2/100 in 1 lanes>"
    assert repr(requests[1].place) == "<Place of a>"
    await bench.all_ended()
    await asyncio.sleep(0)
    await until(lambda: bench.shaper._pump is None)
    assert {task for task in asyncio.all_tasks() if "shaper" in task.get_name()} == set()
