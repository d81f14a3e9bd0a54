"""A drill's fault in one worker: behind the guards, counted apart, and gone without a trace."""

from __future__ import annotations

import asyncio
from typing import Any

from sidecar import clock
from sidecar.config.policies import Match, RouteRule
from sidecar.facts import Fault, Outcome, RouteGauges
from sidecar.guard.guard import Guard, Ticket
from sidecar.guard.policies import GuardPolicy
from sidecar.measure.counters import Meter
from sidecar.proxy.plane import Route
from sidecar.proxy.sabotage import Saboteurs
from sidecar.proxy.tap import Tap
from sidecar.reasons import Reason, Refusal


class Asking:
    """One request, as a saboteur sees an exchange."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self.ended = asyncio.Event()
        self.ticket: Ticket | None = None
        self.refusal: Refusal | None = None

    def admitted(self, ticket: Ticket, now: float) -> None:
        self.ticket = ticket
        self.ended.set()

    def refuse(self, refusal: Refusal, now: float) -> None:
        self.refusal = refusal
        self.ended.set()

    def broken(self, error: Exception) -> None:
        raise error


class Bench:
    """One route with its guards and counters, and what a drill does to it."""

    def __init__(self, timeout_s: float = 30.0) -> None:
        self.guard = Guard(GuardPolicy(), clock.now())
        self.meter = Meter()
        tap = Tap("e", lambda frame: True)
        rule = RouteRule("a", Match())
        self.route = Route(rule, self.guard.route("a"), self.meter.route("a"), tap.samples("a"), timeout_s)
        self.routes = {"a": self.route}
        self.saboteurs = Saboteurs(asyncio.get_running_loop(), lambda: self.routes)

    def fault(self, kind: str, *, share: float = 1.0, delay_s: float = 0.02, for_s: float = 60.0) -> None:
        fault = Fault(1, "a", kind, clock.now() + for_s, share, delay_s)
        fields = (fault.drill, fault.route, fault.kind, fault.end_at, fault.share_ratio, fault.delay_s)
        self.saboteurs.take([fields], clock.now())

    def ask(self) -> tuple[Asking, Any]:
        """Let one request meet guards and fault; return it and what it was told at once."""
        now, asking = clock.now(), Asking(self.route)
        answer: Any = self.route.admit("c", now)
        if isinstance(answer, Refusal):
            assert self.route.shaper is not None
            answer = self.route.shaper.park(asking, "c", answer, now)
        return asking, answer

    def drilled(self) -> dict[str, int]:
        tick = self.meter.route("a").tick(RouteGauges(), 0.0)
        return {} if tick is None else dict(tick.drilled)


async def test_errors_are_answered_at_once_and_told_to_the_guards() -> None:
    """
    Every request that passed gets the drill's refusal; no permit is left behind.
    """
    bench = Bench()
    bench.fault("errors")
    answers = [bench.ask()[1] for _ in range(5)]
    assert [answer.reason for answer in answers] == [Reason.DRILL] * 5
    assert bench.drilled() == {"failure": 5}
    assert bench.guard.in_flight == 0


async def test_a_share_meets_it_and_the_others_pass() -> None:
    """
    A half is every other one, the first included.
    """
    bench = Bench()
    bench.fault("errors", share=0.5)
    met = [isinstance(bench.ask()[1], Refusal) for _ in range(6)]
    assert met == [True, False] * 3


async def test_latency_lets_it_go_on_and_counts_it_apart() -> None:
    """
    It goes on to the API after the delay; what becomes of it is ignored by the counts and told to the drill.
    """
    bench = Bench()
    bench.fault("latency")
    asking, _ = bench.ask()
    assert bench.guard.in_flight == 1
    await asyncio.wait_for(asking.ended.wait(), 5)
    assert asking.ticket is not None
    assert asking.route.marked is Reason.DRILL
    asking.route.counters.end("c", ("GET", 200, None, Outcome.SUCCESS, "h:1", "/x"), 0.1, 0.01, False, None)
    tick = bench.meter.route("a").tick(RouteGauges(), 0.0)
    assert tick is not None
    assert (tick.outcomes, tick.drilled) == ({"ignored": 1}, {"success": 1})
    assert tick.latency[1] == []


async def test_a_hang_ends_with_the_timeout_or_with_the_drill() -> None:
    """
    At the response timeout it is refused; what still hangs when the drill ends goes on, the first one first.
    """
    bench = Bench(timeout_s=0.02)
    bench.fault("hang")
    asking, _ = bench.ask()
    await asyncio.wait_for(asking.ended.wait(), 5)
    assert asking.refusal is not None
    assert bench.drilled() == {"failure": 1}
    patient = Bench()
    patient.fault("hang")
    first, second = patient.ask()[0], patient.ask()[0]
    patient.saboteurs.take([], clock.now())
    await asyncio.wait_for(first.ended.wait(), 5)
    assert second.ticket is None
    await asyncio.wait_for(second.ended.wait(), 5)
    assert (first.refusal, second.refusal) == (None, None)
    assert patient.guard.in_flight == 2


async def test_what_is_delayed_waits_for_its_own_end() -> None:
    """
    The end of a latency drill sends no herd to the API: each request goes on when its delay is over.
    """
    bench = Bench()
    bench.fault("latency", delay_s=0.05)
    asking, _ = bench.ask()
    bench.saboteurs.take([], clock.now())
    assert asking.ticket is None
    await asyncio.wait_for(asking.ended.wait(), 5)
    assert asking.ticket is not None


async def test_a_client_that_leaves_gives_its_permit_back() -> None:
    """
    Nothing stays in flight for a client that is gone.
    """
    bench = Bench()
    bench.fault("hang")
    _, held = bench.ask()
    held.leave()
    assert bench.guard.in_flight == 0


async def test_nothing_is_left_when_it_is_over() -> None:
    """
    The route asks its guard itself again: at the end, at the fault's own time, and for a route of another config.
    """
    bench = Bench()
    plain, shaper = bench.route.admit, bench.route.shaper
    bench.fault("errors")
    assert bench.route.admit != plain
    bench.saboteurs.take([], clock.now())
    assert (bench.route.admit, bench.route.shaper) == (plain, shaper)
    bench.fault("errors", for_s=0.0)
    assert bench.route.admit == plain
    bench.fault("errors")
    bench.routes = {}
    bench.saboteurs.look(clock.now())
    assert bench.route.admit == plain
