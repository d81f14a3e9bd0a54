"""
The worker's composition root: `python -m sidecar.entry.worker`, started by the supervisor.

It inherits the `listen` sockets and a heartbeat, and connects to the controller through the runtime directory. It needs
neither to serve: without a controller it goes on with what it has and boots from `worker-boot.json`.

    heard                         done
    Prepare, Commit               compile in a child process, answer, swap the policies without dropping a request
    Directives, Shares            handed to the guards, the full set; what they say of endpoints to the pool
    Unhealthy                     handed to the pool, the full set
    BreakerOpen, BreakerReset     handed to the guard
    Tap                           handed to the witness, which shows requests while somebody looks on
    reopen on the heartbeat       the access log is opened anew
    Drain; drain on the           not ready; leave as `leaving.py` says, exit 0
      heartbeat; SIGTERM
    end of the heartbeat          the supervisor is gone: exit at once
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any, Final

import uvloop

from sidecar import clock
from sidecar.config.certificates import CertificateError
from sidecar.config.policies import Compiled
from sidecar.entry.access import AccessLog
from sidecar.entry.compiling import CompileError, compile_now
from sidecar.entry.leaving import leave
from sidecar.entry.room import room_here
from sidecar.entry.sharing import Sharing
from sidecar.entry.told import Told, install_of
from sidecar.entry.versions import Versions
from sidecar.link.client import LinkClient
from sidecar.link.frames import (
    Ack,
    BreakerOpen,
    BreakerReset,
    Commit,
    Decided,
    Directives,
    Drain,
    Faults,
    Frame,
    Hello,
    Prepare,
    Sample,
    Shares,
    Tap,
    Tapped,
    Trip,
    Unhealthy,
)
from sidecar.link.runtime import BootConfig, link_path, read_boot
from sidecar.proxy.door import Door
from sidecar.proxy.plane import Plane
from sidecar.proxy.sabotage import Saboteurs
from sidecar.proxy.tap import Tap as Telling
from sidecar.supervise.say import say
from sidecar.supervise.tether import tether

BACKLOG: Final = 4096
HEARTBEAT_S: Final = 1.0
TURN_S: Final = 0.25
TURNS_A_SECOND: Final = 4
INVALID: Final = 2
_GC: Final = (20_000, 50, 100)  # the hot path makes no cycles: collecting young objects often finds nothing


class Worker:
    """One worker process, from its start to its end."""

    def __init__(self, told: Told, boot: BootConfig | None, text: str, compiled: Compiled) -> None:
        now = clock.now()
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._install = install_of(Path(told.static["state"]))
        self._tap = Telling(told.epoch, self._send)
        version = boot.version if boot is not None else 0
        room = room_here(told.name, compiled.proxy.downstream.max_connections)
        self.plane = Plane(
            self._loop, self._install, self._shared(compiled), version, self._tap, now, told.epoch, room, self._complain
        )
        self._door = Door(self.plane, compiled.proxy.tls, self._complain)
        path = told.static.get("access_log", compiled.static.access_log)
        self._access = AccessLog(path, compiled.access_log, self.plane.witness, told.name)
        self._born_at = clock.now()
        self._saboteurs = Saboteurs(self._loop, lambda: self.plane.live.routes)
        self._link = LinkClient(link_path(told.runtime), self._hello, self._take)
        self._versions = Versions(told, (text, compiled), self._apply, self._send)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._servers: list[asyncio.Server] = []
        self._left = asyncio.Event()
        self._news = asyncio.Event()
        self._drain = compiled.drain
        self._leaving = False
        self._sequence = 0
        self._lag_s = 0.0
        kept = boot.shares if boot is not None else {}
        self._sharing = Sharing(told.index, told.epoch, told.workers, self.plane.guard, kept, now)
        if boot is not None:
            self.plane.direct(boot.directives, now)
            self.plane.pool.check(boot.unhealthy, now)
            for breaker in boot.breakers:
                self.plane.guard.open_breaker(breaker.route, breaker.until_at, breaker.detail, now)

    def __repr__(self) -> str:
        return f"<Worker {self._told.name} {self.plane!r}>"

    async def run(self) -> int:
        """Serve until told to leave; return the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self.leave)
        for descriptor in self._told.listen:
            listening = socket.socket(fileno=descriptor)
            listening.setblocking(False)
            self._servers.append(await self._loop.create_server(self._door, sock=listening, backlog=BACKLOG))
        self._link.start()
        self.plane.pool.resolve()
        self._start(self._beat())
        turns = self._start(self._turn())
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC)
        await self._left.wait()
        turns.cancel()
        self._report(clock.now())
        await self._link.close()
        self.plane.close()
        self._access.close()
        return 0

    def leave(self, delay_s: float | None = None, grace_s: float | None = None, *, replaced: bool = False) -> None:
        """Begin to leave, see `leaving.py`; *replaced* when another worker takes the new connections already."""
        if not self._leaving:
            self._leaving = True
            self._news.set()
            delay_s = self._drain.delay_s if delay_s is None else delay_s
            grace_s = self._drain.grace_s if grace_s is None else grace_s
            self._start(self._finish(delay_s, grace_s, replaced=replaced))

    async def _finish(self, delay_s: float, grace_s: float, *, replaced: bool) -> None:
        await leave(self.plane, self._servers, delay_s, grace_s, replaced=replaced)
        self._left.set()

    def _complain(self, event: str, problem: str) -> None:
        say(event, level="warning", process=self._told.name, problem=problem)

    def _start(self, coroutine: Any) -> asyncio.Task[Any]:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._loop.call_exception_handler({"message": "a task failed", "exception": task.exception(), "task": task})

    # --- time -------------------------------------------------------------------------------------------------

    async def _turn(self) -> None:
        turn = 0
        while True:
            due_at = clock.now() + TURN_S
            await asyncio.sleep(TURN_S)
            now = clock.now()
            self._lag_s = max(self._lag_s, now - due_at)
            turn += 1
            self._tell_trips(now)
            self._access.turn()
            self.plane.pool.turn(now)
            self._sharing.turn(self._link, now, leaving=self._leaving)
            if turn % (TURNS_A_SECOND // 2) == 0:
                self.plane.look_at_held(now)
            if turn % TURNS_A_SECOND == 0:
                self._tap.second()
                self._saboteurs.look(now)
                self.plane.witness.second(now)
                self.plane.second(now)
                self._door.turn(now)
                self._report(now)

    def _tell_trips(self, now: float) -> None:
        for trip in self.plane.guard.tick(now):
            if trip.enforced:
                self._send(
                    Trip(self._told.index, trip.route, trip.at, trip.generation, trip.rule, trip.detail, trip.open_s)
                )

    def _report(self, now: float) -> None:
        plane = self.plane
        self._sequence += 1
        tick = plane.meter.tick(
            self._told.index,
            self._told.epoch,
            self._sequence,
            now,
            plane.guard,
            lag_s=self._lag_s,
            connections=len(plane.connections),
            config_version=plane.live.version,
            dropped=self._link.dropped,
            draining=self._leaving,
            since_at=self._born_at,
            endpoints=plane.pool.states(now),
            retries=(plane.retries.sent, plane.retries.denied),
        )
        self._lag_s = 0.0
        tick = dataclasses.replace(
            tick,
            untold=self._tap.dropped,
            log_dropped=self._access.dropped,
            handshakes_failed=self._door.failed,
            tunnels=len(plane.tunnels),
            tunnels_opened=plane.tunnels.opened,
            tunnel_bytes=dict(zip(("up", "down"), plane.tunnels.carried, strict=True)),
        )
        if not self._link.send(tick):
            plane.meter.resend()

    # --- the controller ---------------------------------------------------------------------------------------

    def _send(self, frame: Decided | Sample | Tapped | Trip | Ack) -> None:
        self._link.send(frame)

    def _hello(self) -> Hello:
        self.plane.meter.resend()
        told, sharing = self._told, self._sharing
        return Hello(
            told.index,
            told.epoch,
            os.getpid(),
            self.plane.live.version,
            self._born_at,
            sharing.workers,
            sharing.begin_link(),
        )

    def _take(self, frame: Frame) -> None:  # noqa: C901  a case a frame
        now, guard = clock.now(), self.plane.guard
        match frame:
            case Prepare():
                self._versions.prepare(frame)
            case Commit():
                self._start(self._versions.commit(frame.version))
            case Directives():
                self.plane.direct(frame.items, now)
            case Unhealthy():
                self.plane.pool.check(frame.until_at, now)
            case Shares():
                self._sharing.take(self._link, frame, now, leaving=self._leaving)
            case Faults():
                self._saboteurs.take(frame.items, now)
            case BreakerOpen():
                guard.open_breaker(frame.route, frame.until_at, frame.detail, now)
            case BreakerReset():
                guard.reset_breaker(frame.route, now)
            case Tap():
                self.plane.witness.tap(frame, now)
            case Drain():
                self.leave(frame.delay_s, frame.grace_s)
            case _:
                pass  # what workers say is for the controller

    def _apply(self, compiled: Compiled, version: int) -> None:
        entry = self._door.prepared(compiled.proxy.tls)
        self.plane.apply(self._shared(compiled), version, clock.now())
        self.plane.pool.resolve()
        self._door.use(entry)
        self._saboteurs.look(clock.now())
        self._drain = compiled.drain
        self._access.apply(compiled.access_log)

    def _shared(self, compiled: Compiled) -> Compiled:
        """Return *compiled* as one of several workers of this install runs it."""
        guard = dataclasses.replace(compiled.guard, seed=self._install.pseudonym, workers=self._told.workers)
        return dataclasses.replace(compiled, guard=guard)

    # --- the supervisor ---------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        heart = socket.socket(fileno=self._told.heartbeat)
        heart.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=heart)
        orders = asyncio.create_task(self._obey(reader))
        while not orders.done():
            self._news.clear()
            plane = self.plane
            line = {
                "ready": not self._leaving,
                "connections": len(plane.connections),
                "in_flight": plane.in_flight,
                "config_version": plane.live.version,
                "timers": len(plane.wheel),
                "tasks": len(asyncio.all_tasks()),
                "drain": {"delay_s": self._drain.delay_s, "grace_s": self._drain.grace_s},
            }
            writer.write(json.dumps(line).encode() + b"\n")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), HEARTBEAT_S)
        os._exit(0)  # the supervisor is gone: nobody is left to end this process in order

    async def _obey(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                order = _order(line)
                if order.get("do") == "drain":
                    self.leave(replaced=bool(order.get("replaced")))
                elif order.get("do") == "reopen":
                    self._access.reopen(str(order.get("path")))
                self._news.set()  # any line is answered at once
        self._news.set()


def _order(line: bytes) -> dict[str, Any]:
    """Return what the supervisor wants done; a torn line wants nothing."""
    try:
        made = json.loads(line)
    except ValueError:
        return {}
    return made if isinstance(made, dict) else {}


def compiled_for(told: Told, boot: BootConfig | None) -> tuple[str, Compiled]:
    """
    Return the config to boot with, as text and compiled: the active one; when there is none, or another release wrote it, the file's.

    Raises:
        CompileError, OSError: when neither can be had.
    """
    if boot is not None:
        try:
            return boot.text, compile_now(boot.text, name=f"version {boot.version}", flags=told.flags)
        except CompileError as error:
            problem = "the active version cannot run here: the file's is taken"
            say(problem, level="error", process=told.name, version=boot.version, problem=str(error))
    text = told.config_file.read_bytes().decode() if told.config_file is not None else ""
    return text, compile_now(text, name=str(told.config_file or "(no file)"), flags=told.flags)


def main() -> int:
    """Run one worker and return its exit code."""
    told = Told.read(os.environ["SIDECAR_CHILD"])
    if told.supervisor:
        tether(told.supervisor)
    boot = read_boot(told.runtime)
    try:
        text, compiled = compiled_for(told, boot)
    except (CompileError, OSError, UnicodeDecodeError) as error:
        say("no configuration can run", level="error", process=told.name, problem=str(error))
        return INVALID

    async def serve() -> int:
        return await Worker(told, boot, text, compiled).run()

    try:
        return uvloop.run(serve())
    except CertificateError as error:
        say("no client can be served", level="error", process=told.name, problem=f"{error.at}: {error}")
        return INVALID


if __name__ == "__main__":
    sys.exit(main())
