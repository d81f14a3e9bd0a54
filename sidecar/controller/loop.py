"""
Runs the engine: frames, seconds and commands in, effects out.

Directives and breakers go to the workers in the same turn in which the engine decided them; what must be remembered
goes to the journal beside; messages and rollbacks follow. Nothing here decides anything.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import structlog

from sidecar import clock
from sidecar.config.diff import Change, touches
from sidecar.controller import effects as fx
from sidecar.controller.commands import Asking, Done, Rejected
from sidecar.controller.configuring import AUTOMATION, Configuring
from sidecar.controller.engine import Engine
from sidecar.controller.journal import Journal
from sidecar.controller.leasing import Leasing
from sidecar.controller.ports import ConfigRefused
from sidecar.controller.probing import Probing
from sidecar.controller.rollout import Rollout
from sidecar.controller.taping import Tapes
from sidecar.controller.tapping import Taps
from sidecar.controller.versions import Active, Pending
from sidecar.controller.watch import Vitals, worse
from sidecar.facts import Directive, Moment, RouteSecond
from sidecar.link.frames import (
    Ack,
    BreakerOpen,
    BreakerReset,
    Demand,
    Directives,
    Faults,
    Frame,
    Hello,
    Tapped,
    Unhealthy,
)
from sidecar.link.runtime import BootConfig, write_boot
from sidecar.link.server import LinkServer
from sidecar.notify.dispatch import Dispatcher

TICK_S: Final = 1.0
BEFORE_S: Final = 60.0  # what a new version's vitals are compared with
REVERT_S: Final = 5.0  # between two attempts


def moment() -> Moment:
    """Return now, on both clocks."""
    return Moment(clock.now(), clock.wall().timestamp())


class Loop:
    """
    The engine among its neighbours.

    Args:
        engine: Decides.
        link: The workers.
        journal: Remembers.
        configuring: Owns the config's versions.
        dispatcher: Tells people.
        runtime: Where `worker-boot.json` is written.
        inherited: What the workers may still live by that the engine does not know of: breakers that a controller
            before this one told of, and, when its memory could not be read, its directives; each until its end.
    """

    def __init__(
        self,
        engine: Engine,
        link: LinkServer,
        journal: Journal,
        configuring: Configuring,
        dispatcher: Dispatcher,
        runtime: Path,
        inherited: BootConfig | None = None,
    ) -> None:
        self.engine = engine
        self.tapes = Tapes(journal.put, moment)
        self._faults = Faults(())
        self.listeners: list[Callable[[fx.AppendEvent], None]] = []
        self.taps = Taps(link, lambda: clock.token_bytes(8).hex())
        self._link = link
        self._journal = journal
        self._configuring = configuring
        self._dispatcher = dispatcher
        dispatcher.arrived = lambda name, number: self.engine.drilling.arrived(name, number, moment())
        self._runtime = runtime
        self._decided: tuple[Directive, ...] = ()
        self._inherited = inherited.directives if inherited is not None else ()
        self._breakers = {breaker.route: breaker for breaker in inherited.breakers} if inherited is not None else {}
        self._rollout = Rollout(link)
        self._leasing = Leasing(link, inherited.shares if inherited is not None else {}, self._write_boot)
        self._probing = Probing(self._tell_health, inherited.unhealthy if inherited is not None else {})
        self._tasks: set[asyncio.Task[None]] = set()
        self._applied_at = clock.now()
        self._revert_at = 0.0
        self._log = structlog.get_logger("controller")
        self.lag_s = 0.0
        configuring.serve(self._rollout)

    def __repr__(self) -> str:
        return f"<Loop {len(self._decided)} directives, {len(self._tasks)} tasks>"

    @property
    def workers(self) -> frozenset[int]:
        """Return the workers whose link stands."""
        return self._link.workers()

    # --- in ---------------------------------------------------------------------------------------------------

    def take(self, worker: int, frame: Frame) -> None:
        """Take one frame of a worker."""
        try:
            if isinstance(frame, Hello):
                self._greet(worker, frame)
            elif isinstance(frame, Ack):
                self._rollout.take(worker, frame)
            elif isinstance(frame, Demand):
                self._leasing.take(worker, frame)
            elif isinstance(frame, Tapped):
                self.taps.take(worker, frame)
            else:
                self.carry_out(self.engine.observe(worker, frame, moment()))
        except Exception:  # a fault over one frame must not end the link: the next frame says it all again
            self._log.exception("a frame of a worker could not be taken", worker=worker, frame=type(frame).__name__)

    def lost(self, worker: int) -> None:
        """Take the end of a worker's link."""
        self._rollout.lost(worker)
        self._leasing.lost(worker)
        self.engine.lost(worker, moment())

    def command(self, command: Asking) -> Done | Rejected:
        """Do what a person asks, at once."""
        answer, effects = self.engine.command(command, moment())
        self.carry_out(effects)
        return answer

    def activate(self, active: Active, changes: Sequence[Change]) -> None:
        """Take a version that has just become active, before the workers commit it."""
        self._applied_at = clock.now()
        self._dispatcher.apply(active.compiled.receivers)
        self._write_boot()
        self._probing.apply(active.compiled.proxy.upstream)
        try:
            self.carry_out(self.engine.configured(active.row, active.compiled, touches(changes), moment()))
        except Exception:  # it is stored and the workers will run it: they must be told all the same
            self._log.exception("the engine failed over a version", version=active.version)

    async def run(self) -> None:
        """Turn once a second until cancelled."""
        self._write_boot()
        self._probing.apply(self._configuring.active.compiled.proxy.upstream)
        leasing = asyncio.create_task(self._leasing.run())
        try:
            await self._turn_on()
        finally:
            leasing.cancel()

    async def _turn_on(self) -> None:
        due = clock.now() + TICK_S
        while True:
            await asyncio.sleep(max(0.0, due - clock.now()))
            self.lag_s = max(0.0, clock.now() - due)
            due = max(due + TICK_S, clock.now())
            try:
                self._turn()
            except Exception:  # a fault of one second must not end the control plane: it is logged, and seen in tests
                self._log.exception("a second of the controller failed")

    def _turn(self) -> None:
        stored = self._journal.durable and not self._journal.waiting
        now = moment()
        self.carry_out(self.engine.tick(now, durable=stored))
        self.tapes.take(self.engine.rows, now)
        pending = self._configuring.pending
        if pending is not None:
            self._watch(pending)

    def _watch(self, pending: Pending) -> None:
        """Revert a version that waits for its confirmation when its time is over, or when things got clearly worse."""
        now = clock.now()
        if now < self._revert_at:
            return
        why = "nobody confirmed it in time" if now >= pending.by_at else self._worse(now)
        if why:
            self._revert_at = now + REVERT_S
            self._spawn(self._configuring.revert(why))

    def _worse(self, now: float) -> str:
        since = self._applied_at
        why = worse(Vitals.of(self._seconds(since - BEFORE_S, since)), Vitals.of(self._seconds(since, now)))
        return f"worse than before it: {why}" if why else ""

    def _seconds(self, since_at: float, until_at: float) -> list[RouteSecond]:
        return self.engine.window(since_at, until_at)

    # --- out --------------------------------------------------------------------------------------------------

    def carry_out(self, effects: Iterable[fx.Effect]) -> None:
        """Do what the engine wants done, in its order of urgency."""
        writes: list[fx.Write] = []
        later: list[fx.Notify | fx.Rollback] = []
        for effect in effects:
            match effect:
                case fx.SetDirectives(items):
                    self._decided = tuple(items)
                    self._write_boot()
                    self._link.push_all(Directives(self._directives()))
                case fx.OpenBreaker(route, until_at, detail, except_worker):
                    self._breakers[route] = BreakerOpen(route, until_at, detail)
                    self._write_boot()
                    self._link.push_all(self._breakers[route], but=except_worker)
                case fx.ResetBreaker(route):
                    self._breakers.pop(route, None)
                    self._write_boot()
                    self._link.push_all(BreakerReset(route))
                case fx.SetFaults(items):
                    self._faults = Faults([dataclasses.astuple(fault) for fault in items])
                    self._link.push_all(self._faults)
                case fx.Notify() | fx.Rollback():
                    later.append(effect)
                case _:
                    writes.append(effect)
        if writes:
            self._remember(writes)
        for effect in later:
            if isinstance(effect, fx.Notify):
                self._dispatcher.notify(effect.alert)
            else:
                self._spawn(self._roll_back(effect))

    def _remember(self, writes: Sequence[fx.Write]) -> None:
        self._journal.put(writes)
        for listen in self.listeners:
            for event in [write for write in writes if isinstance(write, fx.AppendEvent)]:
                listen(event)

    async def _roll_back(self, wanted: fx.Rollback) -> None:
        try:
            await self._configuring.rollback(wanted.to_version, author=AUTOMATION, reason=wanted.reason)
        except ConfigRefused as refused:
            self._log.error("the rollback was not done", incident=wanted.incident, problem=refused.problem)

    def _greet(self, worker: int, hello: Hello) -> None:
        active = self._configuring.active.row
        self._link.push(worker, Directives(self._directives()))
        self._link.push(worker, Unhealthy(self._probing.unhealthy))
        for breaker in self._open_breakers():
            self._link.push(worker, breaker)
        self._leasing.greet(worker, hello)
        self.taps.greet(worker)
        self._link.push(worker, self._faults)
        if hello.config_version != active.version:
            self._rollout.bring(worker, active.version, active.text)
        self.carry_out(self.engine.observe(worker, hello, moment()))

    def _directives(self) -> tuple[Directive, ...]:
        """Return the full set in force: what was decided, and what is inherited on other scopes."""
        now, scopes = clock.now(), {directive.scope for directive in self._decided}
        self._inherited = tuple(d for d in self._inherited if d.end_at > now and d.scope not in scopes)
        return (*self._decided, *self._inherited)

    def _open_breakers(self) -> tuple[BreakerOpen, ...]:
        now = clock.now()
        self._breakers = {route: b for route, b in self._breakers.items() if b.until_at > now}
        return tuple(self._breakers.values())

    def _write_boot(self) -> None:
        row = self._configuring.active.row
        try:
            write_boot(
                self._runtime,
                BootConfig(
                    row.version,
                    row.text,
                    row.hash,
                    self._directives(),
                    self._open_breakers(),
                    self._configuring.file_hash,
                    self._leasing.slots,
                    self._probing.unhealthy,
                ),
            )
        except OSError as error:
            self._log.error(
                "worker-boot.json cannot be written; a new worker starts from what it says", problem=str(error)
            )

    def _tell_health(self, unhealthy: Mapping[str, float]) -> None:
        self._write_boot()
        self._link.push_all(Unhealthy(unhealthy))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Ask no endpoint any more, and wait for rollbacks that are under way."""
        await self._probing.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
