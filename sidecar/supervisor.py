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

    How children are heard, killed and started again is `supervise/crew.py`'s. A worker that leaves by itself (somebody sent
    it SIGTERM) is replaced while it drains. A second SIGTERM or SIGINT ends the draining at once.

What can go wrong
    A release that cannot run here changes nothing (SIGUSR2, `supervise/upgrade.py`), and the workers of one that could
    are replaced only as far as its own become ready.
    A reload that cannot be loaded changes nothing. Changed listeners are bound before the old workers drain, so a bad
    address changes nothing either. `state` and a Unix socket's path hold a lock and cannot move while running.
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
from sidecar.supervise.child import Child, Kind
from sidecar.supervise.crew import Crew
from sidecar.supervise.descriptors import raise_limit
from sidecar.supervise.greet import greet
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
        self._rolling: list[Child] = []
        self._outdated: list[Child] = []
        self._reading = Reading(flags.command)
        self._why = ""
        self._upgrade = Upgrade(self._runtime)
        self._notifier = Notifier(os.environ, os.getpid())
        self._facts_at = 0.0
        self._selector = selectors.DefaultSelector()
        self._crew = Crew(self._selector, self._sockets, self._told)
        self._stand_in = StandIn(self._selector, self._ready)

    def __repr__(self) -> str:
        return f"<Supervisor {self._phase}, {self._crew!r}>"

    # --- the loop ---------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until told to stop; return the exit code."""
        self._signals = SignalSocket(self._selector, self._signalled)
        if self._left is None:
            greet(self._static, {name: address_of(self._sockets[name]) for name in LISTENERS})
            forget_stale_boot(self._runtime, self._static["file_hash"])
            for kind in (Kind.CONTROLLER, *[Kind.WORKER] * int(self._static["workers"])):
                self._crew.start(kind)
        else:
            self._take_over(self._left)
        while self._phase is not Phase.STOPPING or self._crew:
            for key, _ in self._selector.select(self._crew.pause_s(clock.now(), TURN_S)):
                key.data(clock.now())
            self._turn(clock.now())
        self._close()
        say("stopped", code=self._code)
        return self._code

    def _turn(self, now: float) -> None:
        self._crew.turn(now)
        if self._watch is not None and self._watch.take():
            self._reload("the file has changed")
        self._finish_reload(now)
        self._finish_trial(now)
        if self._phase is Phase.RUNNING:
            self._roll()
            self._roll_controller()
        self._stand_in.switch(None if self._crew.controlled else self._sockets["observe"])
        self._stand_in.expire(now)
        self._tell_facts(now)
        self._go_on_leaving(now)
        self._notifier.turn(now, self._crew.serving, int(self._static["workers"]), controlled=self._crew.controlled)

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
        self._signals.end()

    # --- children ---------------------------------------------------------------------------------------------

    def _told(self) -> dict[str, Any]:
        return {
            "runtime": str(self._runtime),
            "config_file": self._static["config_file"],
            "flags": dict(self._flags.values),
            "static": dict(self._static),
        }

    def _ready(self) -> bool:
        return self._phase is Phase.RUNNING and self._crew.serving > 0

    def _tell_facts(self, now: float) -> None:
        if now < self._facts_at and not self._crew.news:
            return
        self._facts_at, self._crew.news = now + 1.0, False
        facts = self._crew.facts()
        for child in self._crew.controllers:
            child.tell(do="facts", draining=self._phase is not Phase.RUNNING, **facts)

    # --- leaving ----------------------------------------------------------------------------------------------

    def _leave(self, why: str) -> None:
        now = clock.now()
        if self._phase is not Phase.RUNNING:
            if now - self._left_at >= IMPATIENT_S:
                say(f"{why} again: ending now", level="warning")
                self._deadline = now
            return
        self._phase = Phase.DRAINING
        workers = self._crew.workers
        delay_s, grace_s = self._crew.leaving_s(self._static["drain"])
        self._left_at, self._closing_at = now, now + delay_s
        self._deadline = now + delay_s + grace_s + SPARE_S
        say(f"{why}: finishing what is in flight", grace_s=grace_s, delay_s=delay_s)
        self._notifier.stopping(delay_s + grace_s + SPARE_S + STOP_S)
        self._crew.leave()
        for worker in workers:
            self._drain(worker)

    def _go_on_leaving(self, now: float) -> None:
        if self._phase is Phase.DRAINING and now >= self._closing_at:
            self._sockets["listen"].close()  # as the workers do now: who comes later is refused, not left waiting
        if self._phase is Phase.DRAINING and (not self._crew.workers or now >= self._deadline):
            self._code |= self._crew.kill(self._crew.workers)
            self._phase = Phase.STOPPING
            self._deadline = now + STOP_S
            for controller in self._crew.controllers:
                self._drain(controller, "stop")
        elif self._phase is Phase.STOPPING and now >= self._deadline:
            self._code |= self._crew.kill(self._crew.everybody)

    # --- reload -----------------------------------------------------------------------------------------------

    def _reload(self, why: str) -> None:
        if self._phase is not Phase.RUNNING:
            return
        self._why = why
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
        self._tell_controllers(do="reload", why=self._why)

    def _reopen_logs(self) -> None:
        """Let the workers open the access log anew: it was rotated, or is another file now."""
        for worker in self._crew.workers:
            worker.tell(do="reopen", path=self._static["access_log"])

    def _tell_controllers(self, **order: Any) -> None:
        for controller in self._crew.controllers:
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
            self._rolling = [worker for worker in self._crew.workers if not worker.draining]
        if {"observe", "admin"} & set(moved):
            for controller in self._crew.controllers:
                self._drain(controller, "stop")  # its successor takes the new sockets

    def _roll(self) -> None:
        """Bring the workers to the wanted number; the rolling ones leave one at a time, each when a spare is ready."""
        self._rolling = [worker for worker in self._rolling if worker in self._crew.workers]
        fresh = [w for w in self._crew.workers if not w.draining and w not in self._rolling]
        if self._crew.workers_coming or not all(w.ready for w in fresh):
            return
        spare = len(fresh) + len(self._rolling) - int(self._static["workers"])
        if spare > 0:
            self._drain(self._rolling.pop(0) if self._rolling else fresh[-1], replaced=True)
        elif self._rolling or spare < 0:
            self._crew.start(Kind.WORKER)

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
            children=[handover.pack(child) for child in self._crew.everybody],
            restarts={kind.value: count for kind, count in self._crew.restarts.items()},
        )

    def _take_over(self, left: Handover) -> None:
        """Watch the children of the release before, and begin to replace them: first the workers, then the controller."""
        for row in left.children:
            self._crew.keep(handover.unpack(row))
        self._crew.restarts = {kind: left.restarts.get(kind.value, 0) for kind in Kind}
        handover.let_signals_in()
        say(
            f"release {__version__} has taken the place of {left.release}", pid=os.getpid(), children=len(left.children)
        )
        try:
            self._take_static(left.wanted)
        except (ListenError, OSError) as error:
            say(f"{error}; the listeners stay where they are", level="error")
        self._rolling = [worker for worker in self._crew.workers if not worker.draining]
        self._outdated = [controller for controller in self._crew.controllers if not controller.draining]
        if not self._crew.controllers:
            self._crew.start(Kind.CONTROLLER)

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
