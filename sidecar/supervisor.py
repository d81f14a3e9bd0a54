"""
`sidecar run`: owns the listening sockets, starts, watches, restarts and drains the other processes.

Theory
    The supervisor must outlive everything, so it does almost nothing: it imports the standard library only, parses no
    YAML and serves no request. The static keys come from a short child process (`sidecar.config.static`). Sockets are
    bound here, before any child starts, so a port in use is found at once, and the kernel queues connections while a
    child is replaced.

Tables
    phase     entered by             children that die       left when
    running   start                  are started again       SIGTERM, SIGINT
    draining  SIGTERM, SIGINT        stay dead               no worker is left, or the time is over
    stopping  no worker is left      stay dead               the controller is gone too, or 10 s are over

    A child is killed after 5 s without a heartbeat (30 s while it starts). The delay before a restart doubles from
    0.1 s to 10 s while children keep dying young, and shrinks back after 30 s of life. A worker that leaves by itself
    (somebody sent it SIGTERM) is replaced while it drains. A second SIGTERM or SIGINT ends the draining at once.

What can go wrong
    A release that cannot run here changes nothing (SIGUSR2, `supervise/upgrade.py`), and the workers of one that could
    are replaced only as far as its own become ready.
    A reload that cannot be loaded changes nothing. Changed listeners are bound before the old workers drain, so a bad
    address changes nothing either. `state` and a Unix socket's path hold a lock and cannot move while running.
    A child that cannot be started (no memory, no descriptors) is tried again as if it had died.
    After `kill -9` of the supervisor every child reads end of file on its heartbeat and ends itself; a hung one is
    ended by the kernel (`supervise/tether.py`).
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from sidecar import __version__, clock
from sidecar.link.runtime import link_path
from sidecar.supervise import handover
from sidecar.supervise.backoff import Backoff
from sidecar.supervise.child import Child, Kind, spawn
from sidecar.supervise.descriptors import raise_limit
from sidecar.supervise.handover import Handover
from sidecar.supervise.listeners import ListenError, address_of, bind_all, bind_unix
from sidecar.supervise.notify import Notifier
from sidecar.supervise.reading import Reading
from sidecar.supervise.say import say
from sidecar.supervise.signals import SignalSocket
from sidecar.supervise.stand_in import StandIn
from sidecar.supervise.start import Flags, StartError, forget_stale_boot, lock_state, private_runtime, resolve
from sidecar.supervise.trial import try_release
from sidecar.supervise.upgrade import Upgrade
from sidecar.supervise.watch import watch

TURN_S: Final = 0.25
SILENCE_S: Final = 5.0
START_S: Final = 30.0
STOP_S: Final = 10.0
SPARE_S: Final = 5.0  # beyond delay and grace, for the process itself to end
IMPATIENT_S: Final = 1.0  # a terminal and a wrapper script may both pass one Ctrl-C on
LISTENERS: Final = ("listen", "observe", "admin")


class Phase(StrEnum):
    """See the table above."""

    RUNNING = "running"
    DRAINING = "draining"
    STOPPING = "stopping"


class Supervisor:
    """
    One running sidecar.

    Args:
        flags: The command line.
        static: What `sidecar.config.static` printed.
        left: What the release before this one left, when this one takes its place.
    """

    def __init__(self, flags: Flags, static: Mapping[str, Any], left: Handover | None = None) -> None:
        self._flags = flags
        self._static = static
        self._left = left
        self._phase = Phase.RUNNING
        self._left_at = self._closing_at = self._deadline = 0.0
        self._code = 0
        self._watch = watch(os.environ, static)
        self._lock = lock_state(Path(static["state"])) if left is None else handover.lock_of(left.lock)
        self._runtime = private_runtime(Path(static["state"])) if left is None else Path(left.runtime)
        self._sockets = self._bound() if left is None else handover.listeners(left)
        self._children: list[Child] = []
        self._rolling: list[Child] = []
        self._due: list[tuple[float, Kind]] = []
        self._backoff = {kind: Backoff() for kind in Kind}
        self._outdated: list[Child] = []
        self._reading = Reading(flags.command)
        self._upgrade = Upgrade(self._runtime)
        self._notifier = Notifier(os.environ, os.getpid())
        self._facts_at = 0.0
        self._selector = selectors.DefaultSelector()
        self._stand_in = StandIn(self._selector, self._ready)

    def __repr__(self) -> str:
        return f"<Supervisor {self._phase}, {self._children}>"

    # --- the loop ---------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until told to stop; return the exit code."""
        self._signals = SignalSocket(self._selector, self._signalled)
        if self._left is None:
            self._greet()
            forget_stale_boot(self._runtime, self._static["file_hash"])
            for kind in (Kind.CONTROLLER, *[Kind.WORKER] * int(self._static["workers"])):
                self._start(kind)
        else:
            self._take_over(self._left)
        while self._phase is not Phase.STOPPING or self._children:
            for key, _ in self._selector.select(TURN_S):
                key.data(clock.now())
            self._turn(clock.now())
        self._close()
        say("stopped", code=self._code)
        return self._code

    def _turn(self, now: float) -> None:
        self._reap(now)
        self._end_silent(now)
        if self._watch is not None and self._watch.take():
            self._reload("the file has changed")
        self._finish_reload(now)
        self._finish_trial(now)
        if self._phase is Phase.RUNNING:
            self._restart_due(now)
            self._roll()
            self._roll_controller()
        self._stand_in.switch(None if self._controller_serves() else self._sockets["observe"])
        self._stand_in.expire(now)
        self._tell_facts(now)
        self._go_on_leaving(now)
        serving = sum(worker.ready and not worker.draining for worker in self._workers())
        self._notifier.turn(now, serving, int(self._static["workers"]))

    def _greet(self) -> None:
        addresses = {name: address_of(self._sockets[name]) for name in LISTENERS}
        say(
            "sidecar starts", pid=os.getpid(), **addresses, workers=self._static["workers"], state=self._static["state"]
        )
        if sys.stderr.isatty():
            urls = {
                name: f"http{'s' if name in self._static.get('secure', ()) else ''}://{addresses[name]}"
                for name in ("listen", "admin")
            }
            say(f"your API is at {urls['listen']}, the console's API at {urls['admin']}")
            say("next: `sidecar status` in another terminal; Ctrl-C drains and stops")

    def _bound(self) -> dict[str, socket.socket]:
        bound = bind_all({name: self._static[name] for name in LISTENERS})
        bound["link"] = bind_unix(link_path(self._runtime))
        return bound

    def _close(self) -> None:
        self._reading.end()
        self._upgrade.end()
        if self._watch is not None:
            self._watch.end()
        self._stand_in.switch(None)
        for name, listening in self._sockets.items():
            listening.close()
            if listening.family == socket.AF_UNIX:
                path = self._static.get(name, "").removeprefix("unix:") or str(link_path(self._runtime))
                Path(path).unlink(missing_ok=True)
        self._lock.close()

    # --- children ---------------------------------------------------------------------------------------------

    def _start(self, kind: Kind) -> None:
        index = self._free_index(kind)
        name = "controller" if kind is Kind.CONTROLLER else f"worker-{index}"
        wanted = ("observe", "admin", "link") if kind is Kind.CONTROLLER else ("listen",)
        told = {
            "runtime": str(self._runtime),
            "config_file": self._static["config_file"],
            "flags": dict(self._flags.values),
            "static": dict(self._static),
        }
        now = clock.now()
        try:
            child = spawn(kind, name, index, {n: [self._sockets[n]] for n in wanted}, told, now)
        except OSError as error:
            delay_s = self._backoff[kind].after(0.0)
            self._due.append((now + delay_s, kind))
            say(f"{name} cannot be started; again in {delay_s:.1f} s", level="error", problem=str(error))
            return
        self._keep(child)

    def _keep(self, child: Child) -> None:
        self._children.append(child)
        self._selector.register(child.heart, selectors.EVENT_READ, lambda now: self._hear(child, now))
        self._facts_at = 0.0

    def _free_index(self, kind: Kind) -> int:
        taken = {child.index for child in self._children if child.kind is kind}
        return next(index for index in range(len(taken) + 1) if index not in taken)

    def _hear(self, child: Child, now: float) -> None:
        was_ready = child.ready
        if not child.listen(now):
            self._selector.unregister(child.heart)  # it is ending; SIGCHLD follows, or silence ends it
            child.ready = False
        elif child.ready and not was_ready:
            say(f"{child.name} is ready", pid=child.process.pid)
        elif was_ready and not child.ready and not child.draining and self._phase is Phase.RUNNING:
            say(f"{child.name} leaves by itself", level="warning", pid=child.process.pid)
            child.draining = True
        if child.ready is not was_ready:
            self._facts_at = 0.0

    def _reap(self, now: float) -> None:
        for child in [c for c in self._children if c.process.poll() is not None]:
            self._forget(child)
            status = child.process.returncode
            if not child.draining and self._phase is Phase.RUNNING:
                self._schedule(child, now, status)
                continue
            say(f"{child.name} has left", pid=child.process.pid, status=status)
            if self._phase is Phase.RUNNING and child.kind is Kind.CONTROLLER:
                self._due.append((now, child.kind))

    def _forget(self, child: Child) -> None:
        self._children.remove(child)
        if child in self._rolling:
            self._rolling.remove(child)
        if child.heart in {key.fileobj for key in self._selector.get_map().values()}:
            self._selector.unregister(child.heart)
        child.heart.close()
        self._facts_at = 0.0

    def _schedule(self, child: Child, now: float, status: int) -> None:
        delay_s = self._backoff[child.kind].after(now - child.started_at)
        self._due.append((now + delay_s, child.kind))
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        say(f"{child.name} died ({how}); the next one starts in {delay_s:.1f} s", level="error", pid=child.process.pid)

    def _restart_due(self, now: float) -> None:
        due, self._due = [k for at, k in self._due if at <= now], [row for row in self._due if row[0] > now]
        for kind in due:
            self._start(kind)

    def _end_silent(self, now: float) -> None:
        for child in self._children:
            limit_s = START_S if child.heard_at is None else SILENCE_S
            if now - (child.heard_at or child.started_at) > limit_s and child.process.poll() is None:
                say(f"{child.name} was silent for {limit_s:.0f} s and is killed", level="error", pid=child.process.pid)
                child.process.kill()

    def _workers(self) -> list[Child]:
        return [child for child in self._children if child.kind is Kind.WORKER]

    def _controllers(self) -> list[Child]:
        return [child for child in self._children if child.kind is Kind.CONTROLLER]

    def _ready(self) -> bool:
        return self._phase is Phase.RUNNING and any(w.ready and not w.draining for w in self._workers())

    def _controller_serves(self) -> bool:
        return any(child.ready for child in self._controllers())

    def _tell_facts(self, now: float) -> None:
        if now < self._facts_at:
            return
        self._facts_at = now + 1.0
        workers = [
            {"index": w.index, "epoch": w.epoch, "pid": w.process.pid, "ready": w.ready, "draining": w.draining}
            for w in self._workers()
        ]
        restarts = {kind.name.lower(): self._backoff[kind].restarts for kind in Kind}
        for child in self._controllers():
            child.tell(do="facts", workers=workers, restarts=restarts, draining=self._phase is not Phase.RUNNING)

    # --- leaving ----------------------------------------------------------------------------------------------

    def _leave(self, why: str) -> None:
        now = clock.now()
        if self._phase is not Phase.RUNNING:
            if now - self._left_at >= IMPATIENT_S:
                say(f"{why} again: ending now", level="warning")
                self._deadline = now
            return
        self._phase = Phase.DRAINING
        workers = self._workers()
        # Each worker leaves by the config that it runs, which may be newer than the file's.
        policies = [worker.facts.get("drain", self._static["drain"]) for worker in workers]
        delay_s = max((policy["delay_s"] for policy in policies), default=0.0)
        grace_s = max((policy["grace_s"] for policy in policies), default=0.0)
        self._left_at, self._closing_at = now, now + delay_s
        self._deadline = now + delay_s + grace_s + SPARE_S
        say(f"{why}: finishing what is in flight", grace_s=grace_s, delay_s=delay_s)
        self._notifier.stopping(delay_s + grace_s + SPARE_S + STOP_S)
        self._due.clear()
        self._facts_at = 0.0
        for worker in workers:
            self._drain(worker)

    def _go_on_leaving(self, now: float) -> None:
        if self._phase is Phase.DRAINING and now >= self._closing_at:
            self._sockets["listen"].close()  # as the workers do now: who comes later is refused, not left waiting
        if self._phase is Phase.DRAINING and (not self._workers() or now >= self._deadline):
            self._kill_late(self._workers())
            self._phase = Phase.STOPPING
            self._deadline = now + STOP_S
            for controller in self._controllers():
                self._drain(controller, "stop")
        elif self._phase is Phase.STOPPING and now >= self._deadline:
            self._kill_late(self._children)

    def _kill_late(self, children: Sequence[Child]) -> None:
        for child in children:
            if child.process.poll() is None:
                say(f"{child.name} did not end in time and is killed", level="error", pid=child.process.pid)
                child.process.kill()
                self._code = 1

    # --- reload -----------------------------------------------------------------------------------------------

    def _reload(self, why: str) -> None:
        if self._phase is not Phase.RUNNING:
            return
        say(f"{why}: reading the configuration again")
        self._notifier.reloading(clock.now())
        try:
            self._reading.ask(clock.now())
        except OSError as error:
            self._notifier.reloaded()
            say("the configuration cannot be read; the running one stays", level="error", problem=str(error))

    def _finish_reload(self, now: float) -> None:
        try:
            found = self._reading.take(now)
            if found is None or self._phase is not Phase.RUNNING:
                return
            self._notifier.reloaded()
            if isinstance(found, str):
                say(f"{found}; the running one stays", level="error")
                self._reopen_logs()
                self._tell_controllers(do="reload_failed")
                return
            self._take_static(found)
        except (ListenError, OSError) as error:
            self._notifier.reloaded()
            say(f"{error}; what runs stays", level="error")
            self._reopen_logs()
            self._tell_controllers(do="reload_failed")
            return
        self._reopen_logs()
        self._tell_controllers(do="reload")

    def _reopen_logs(self) -> None:
        """Let the workers open the access log anew: it was rotated, or is another file now."""
        for worker in self._workers():
            worker.tell(do="reopen", path=self._static["access_log"])

    def _tell_controllers(self, **order: Any) -> None:
        for controller in self._controllers():
            if not controller.draining:
                controller.tell(**order)

    def _take_static(self, static: Mapping[str, Any]) -> None:
        old = self._static
        changed = [name for name in ("state", *LISTENERS) if static[name] != old[name]]
        fixed = [name for name in changed if name == "state" or "unix:" in (static[name][:5], old[name][:5])]
        if fixed:
            say(f"{', '.join(fixed)} cannot change while running; restart for it", level="warning")
        moved = [name for name in changed if name not in fixed]
        bound = bind_all({name: static[name] for name in moved})
        self._static = {**static, **{name: old[name] for name in fixed}}
        if {"observe", "admin"} & set(moved):
            self._stand_in.switch(None)
        for name, listening in bound.items():
            self._sockets.pop(name).close()  # the old children hold it until they have drained
            self._sockets[name] = listening
            say(f"{name} moves to {address_of(listening)}")
        if "listen" in moved or static["workers"] != old["workers"]:
            self._rolling = [worker for worker in self._workers() if not worker.draining]
        if {"observe", "admin"} & set(moved):
            for controller in self._controllers():
                self._drain(controller, "stop")  # its successor takes the new sockets

    def _roll(self) -> None:
        """Bring the workers to the wanted number; the rolling ones leave one at a time, each when a spare is ready."""
        fresh = [w for w in self._workers() if not w.draining and w not in self._rolling]
        coming = sum(kind is Kind.WORKER for _, kind in self._due)
        if coming or not all(w.ready for w in fresh):
            return
        spare = len(fresh) + len(self._rolling) - int(self._static["workers"])
        if spare > 0:
            self._drain(self._rolling.pop(0) if self._rolling else fresh[-1], replaced=True)
        elif self._rolling or spare < 0:
            self._start(Kind.WORKER)

    # --- another release --------------------------------------------------------------------------------------

    def _ask_trial(self, why: str) -> None:
        if self._phase is not Phase.RUNNING:
            return
        self._notifier.reloading(clock.now())
        try:
            self._upgrade.ask(why, clock.now())
        except OSError as error:
            self._stay(str(error))

    def _finish_trial(self, now: float) -> None:
        try:
            found = self._upgrade.take(now)
        except OSError as error:
            found = str(error)
        if found is None or self._phase is not Phase.RUNNING:
            return
        if isinstance(found, str):
            self._stay(found)
            return
        say(f"release {found['release']} can run: it takes this one's place", release=__version__)
        self._reading.end()
        self._stand_in.switch(None)
        self._stay(self._upgrade.execute(self._what_is_left(found["static"])))

    def _stay(self, problem: str) -> None:
        self._notifier.reloaded()
        say(f"{problem}; release {__version__} goes on", level="error")

    def _what_is_left(self, wanted: Mapping[str, Any]) -> Handover:
        return Handover(
            __version__,
            str(self._runtime),
            static=self._static,
            wanted=wanted,
            sockets={name: listening.fileno() for name, listening in self._sockets.items()},
            lock=self._lock.fileno(),
            children=[handover.pack(child) for child in self._children],
            restarts={kind.value: self._backoff[kind].restarts for kind in Kind},
        )

    def _take_over(self, left: Handover) -> None:
        """Watch the children of the release before, and begin to replace them: first the workers, then the controller."""
        for row in left.children:
            self._keep(handover.unpack(row))
        for kind in Kind:
            self._backoff[kind].restarts = left.restarts.get(kind.value, 0)
        handover.let_signals_in()
        say(
            f"release {__version__} has taken the place of {left.release}", pid=os.getpid(), children=len(left.children)
        )
        try:
            self._take_static(left.wanted)
        except (ListenError, OSError) as error:
            say(f"{error}; the listeners stay where they are", level="error")
        self._rolling = [worker for worker in self._workers() if not worker.draining]
        self._outdated = [controller for controller in self._controllers() if not controller.draining]
        if not self._controllers():
            self._start(Kind.CONTROLLER)

    def _roll_controller(self) -> None:
        """Replace the controller of the release before once no worker of it is left to be replaced."""
        if self._outdated and not self._rolling and self._ready():
            for controller in self._outdated:
                self._drain(controller, "stop")
            self._outdated.clear()

    def _drain(self, child: Child, order: str = "drain", *, replaced: bool = False) -> None:
        child.draining = True
        child.tell(do=order, replaced=replaced)

    def _signalled(self, number: signal.Signals) -> None:
        match number:
            case signal.SIGTERM | signal.SIGINT:
                self._leave(number.name)
            case signal.SIGHUP:
                self._reload("SIGHUP")
            case signal.SIGUSR2:
                self._ask_trial("SIGUSR2")
            case _:
                pass  # SIGCHLD: the turn reaps


def main(argv: Sequence[str] | None = None) -> int:
    """Run `sidecar run` with *argv* (without the verb) and return the exit code."""
    flags = Flags.parse(sys.argv[1:] if argv is None else argv)
    raise_limit()
    try:
        left = Handover.take(os.environ)
        if left is not None and left.trial:
            return try_release(flags, left)
        return Supervisor(flags, resolve(flags) if left is None else left.static, left).run()
    except StartError as error:
        if error.problem:
            sys.stderr.write(f"sidecar: {error.problem}\n  → {error.hint}\n")
        return error.code
    except ListenError as error:
        sys.stderr.write(f"sidecar: {error.problem}\n  → {error.hint}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
