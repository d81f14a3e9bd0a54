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
    0.1 s to 10 s while children keep dying young, and shrinks back after 30 s of life.

What can go wrong
    A reload that cannot be loaded changes nothing. Changed listeners are bound before the old workers drain, so a bad
    address changes nothing either. `state` and a Unix socket's path hold a lock and cannot move while running.
    After `kill -9` of the supervisor every child reads end of file on its heartbeat and ends itself.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from sidecar import clock
from sidecar.link.runtime import RuntimeDirError, link_path, runtime_dir
from sidecar.supervise.child import Child, Kind, spawn
from sidecar.supervise.listeners import ListenError, address_of, bind, bind_unix
from sidecar.supervise.say import say
from sidecar.supervise.stand_in import StandIn

TURN_S: Final = 0.25
SILENCE_S: Final = 5.0
START_S: Final = 30.0
STOP_S: Final = 10.0
SPARE_S: Final = 5.0  # beyond delay and grace, for the process itself to end
FIRST_DELAY_S: Final = 0.1
LONGEST_DELAY_S: Final = 10.0
SETTLED_S: Final = 30.0
LISTENERS: Final = ("listen", "observe", "admin")


class Phase(StrEnum):
    """See the table above."""

    RUNNING = "running"
    DRAINING = "draining"
    STOPPING = "stopping"


class StartError(Exception):
    """
    The sidecar cannot start; `code` is the exit code, `problem` and `hint` are for a person.

    A `problem` of "" was printed already, by the child that found it.
    """

    def __init__(self, code: int, problem: str = "", hint: str = "") -> None:
        super().__init__(problem)
        self.code = code
        self.problem = problem
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Flags:
    """The command line of `sidecar run`, as given."""

    config_file: str | None
    values: Mapping[str, str]

    @classmethod
    def parse(cls, argv: Sequence[str]) -> Flags:
        """Read *argv*; exits with 2 and the usage when it is wrong."""
        parser = argparse.ArgumentParser(prog="sidecar run", allow_abbrev=False)
        parser.add_argument("-c", "--config", metavar="FILE", help="the configuration file")
        for flag, metavar in (("--upstream", "URL"), ("--listen", "ADDR"), ("--workers", "N")):
            parser.add_argument(flag, metavar=metavar)
        given = vars(parser.parse_args(argv))
        values = {f"--{name}": value for name, value in given.items() if name != "config" and value is not None}
        return cls(given["config"], values)

    @property
    def command(self) -> list[str]:
        """Return the child's command line that resolves the static keys."""
        words = [sys.executable, "-m", "sidecar.config.static"]
        if self.config_file is not None:
            words += ["-c", self.config_file]
        return words + [word for pair in self.values.items() for word in pair]


class Supervisor:
    """
    One running sidecar.

    Args:
        flags: The command line.
        static: What `sidecar.config.static` printed.
    """

    def __init__(self, flags: Flags, static: Mapping[str, Any]) -> None:
        self._flags = flags
        self._static = static
        self._phase = Phase.RUNNING
        self._deadline = 0.0
        self._code = 0
        self._lock = _lock_state(Path(static["state"]))
        self._runtime = _runtime(Path(static["state"]))
        self._sockets = {name: bind(name, static[name]) for name in LISTENERS}
        self._sockets["link"] = bind_unix(link_path(self._runtime))
        self._children: list[Child] = []
        self._rolling: list[Child] = []
        self._due: list[tuple[float, Kind]] = []
        self._young_deaths = dict.fromkeys(Kind, 0)
        self._restarts = dict.fromkeys(Kind, 0)
        self._reloading: subprocess.Popen[bytes] | None = None
        self._facts_at = 0.0
        self._selector = selectors.DefaultSelector()
        self._stand_in = StandIn(self._selector, self._ready)

    def __repr__(self) -> str:
        return f"<Supervisor {self._phase}, {self._children}>"

    # --- the loop ---------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until told to stop; return the exit code."""
        self._take_signals()
        self._greet()
        for kind in (Kind.CONTROLLER, *[Kind.WORKER] * int(self._static["workers"])):
            self._start(kind)
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
        self._finish_reload()
        if self._phase is Phase.RUNNING:
            self._restart_due(now)
            self._roll()
        self._stand_in.switch(None if self._controller_serves() else self._sockets["observe"])
        self._stand_in.expire(now)
        self._tell_facts(now)
        self._go_on_leaving(now)

    def _greet(self) -> None:
        addresses = {name: address_of(self._sockets[name]) for name in LISTENERS}
        say(
            "sidecar starts", pid=os.getpid(), **addresses, workers=self._static["workers"], state=self._static["state"]
        )
        if sys.stderr.isatty():
            say(f"your API is at http://{addresses['listen']}, the console's API at http://{addresses['admin']}")
            say("next: `sidecar status` in another terminal; Ctrl-C drains and stops")

    def _close(self) -> None:
        self._stand_in.switch(None)
        for name, listening in self._sockets.items():
            listening.close()
            if listening.family == socket.AF_UNIX:
                path = self._static.get(name, "").removeprefix("unix:") or str(link_path(self._runtime))
                Path(path).unlink(missing_ok=True)
        self._lock.close()

    # --- children ---------------------------------------------------------------------------------------------

    def _start(self, kind: Kind) -> Child:
        index = self._free_index(kind)
        name = "controller" if kind is Kind.CONTROLLER else f"worker-{index}"
        wanted = ("observe", "admin", "link") if kind is Kind.CONTROLLER else ("listen",)
        told = {
            "runtime": str(self._runtime),
            "config_file": self._static["config_file"],
            "flags": dict(self._flags.values),
            "static": dict(self._static),
        }
        child = spawn(kind, name, index, {n: [self._sockets[n]] for n in wanted}, told, clock.now())
        self._children.append(child)
        self._selector.register(child.heart, selectors.EVENT_READ, lambda now: self._hear(child, now))
        return child

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

    def _reap(self, now: float) -> None:
        for child in [c for c in self._children if c.process.poll() is not None]:
            self._children.remove(child)
            if child.heart in {key.fileobj for key in self._selector.get_map().values()}:
                self._selector.unregister(child.heart)
            child.heart.close()
            status = child.process.returncode
            if child in self._rolling:
                self._rolling.remove(child)
            if child.draining or self._phase is not Phase.RUNNING:
                say(f"{child.name} has left", pid=child.process.pid, status=status)
                if self._phase is Phase.RUNNING and child.kind is Kind.CONTROLLER:
                    self._due.append((now, child.kind))
                continue
            self._schedule(child, now, status)

    def _schedule(self, child: Child, now: float, status: int) -> None:
        young = now - child.started_at < SETTLED_S
        deaths = self._young_deaths[child.kind] + 1 if young else 1
        self._young_deaths[child.kind] = deaths
        self._restarts[child.kind] += 1
        spread = 1 + int.from_bytes(clock.token_bytes(1)) / 512  # up to half more, so that children do not die in step
        delay_s = min(FIRST_DELAY_S * 2 ** min(deaths - 1, 16), LONGEST_DELAY_S) * spread
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
        restarts = {"worker": self._restarts[Kind.WORKER], "controller": self._restarts[Kind.CONTROLLER]}
        for child in self._controllers():
            child.tell(do="facts", workers=workers, restarts=restarts, draining=self._phase is not Phase.RUNNING)

    # --- leaving ----------------------------------------------------------------------------------------------

    def _leave(self, why: str) -> None:
        if self._phase is not Phase.RUNNING:
            return
        drain = self._static["drain"]
        self._phase = Phase.DRAINING
        self._deadline = clock.now() + drain["delay_s"] + drain["grace_s"] + SPARE_S
        say(f"{why}: finishing what is in flight", grace_s=drain["grace_s"], delay_s=drain["delay_s"])
        self._due.clear()
        self._facts_at = 0.0
        for worker in self._workers():
            self._drain(worker)

    def _go_on_leaving(self, now: float) -> None:
        if self._phase is Phase.DRAINING and (not self._workers() or now > self._deadline):
            for worker in self._workers():
                say(f"{worker.name} did not end in time and is killed", level="error", pid=worker.process.pid)
                worker.process.kill()
                self._code = 1
            self._phase = Phase.STOPPING
            self._deadline = now + STOP_S
            for controller in self._controllers():
                self._drain(controller, "stop")
        elif self._phase is Phase.STOPPING and now > self._deadline:
            for child in self._children:
                child.process.kill()

    # --- reload -----------------------------------------------------------------------------------------------

    def _reload(self) -> None:
        if self._reloading is None and self._phase is Phase.RUNNING:
            say("SIGHUP: reading the configuration again")
            self._reloading = subprocess.Popen(self._flags.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)

    def _finish_reload(self) -> None:
        if self._reloading is None or self._reloading.poll() is None:
            return
        done, self._reloading = self._reloading, None
        output = done.communicate()[0]
        if done.returncode != 0:
            say("the configuration is not valid; the running one stays", level="error")
            return
        try:
            self._take_static(json.loads(output))
        except ListenError as error:
            say(f"{error}; the running listeners stay", level="error")
            return
        for controller in self._controllers():
            controller.tell(do="reload")

    def _take_static(self, static: Mapping[str, Any]) -> None:
        fixed = [
            n for n in ("state", *LISTENERS) if static[n] != self._static[n] and (n == "state" or ":/" in static[n])
        ]
        if fixed:
            say(f"{', '.join(fixed)} cannot change while running; restart for it", level="warning")
        moved = [n for n in LISTENERS if static[n] != self._static[n] and n not in fixed]
        bound = {name: bind(name, static[name]) for name in moved}
        workers_differ = static["workers"] != self._static["workers"]
        self._static = {**static, **{name: self._static[name] for name in fixed}}
        for name, listening in bound.items():
            self._sockets.pop(name).close()  # the old children hold it until they have drained
            self._sockets[name] = listening
            say(f"{name} moves to {address_of(listening)}")
        if "listen" in moved or workers_differ:
            self._rolling = self._workers()
        if {"observe", "admin"} & set(moved):
            self._stand_in.switch(None)
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
            self._drain(self._rolling.pop(0) if self._rolling else fresh[-1])
        elif self._rolling or spare < 0:
            self._start(Kind.WORKER)

    def _drain(self, child: Child, order: str = "drain") -> None:
        child.draining = True
        child.tell(do=order)

    # --- signals ----------------------------------------------------------------------------------------------

    def _take_signals(self) -> None:
        woken, waker = socket.socketpair()
        woken.setblocking(False)
        waker.setblocking(False)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        self._selector.register(woken, selectors.EVENT_READ, lambda _: self._signalled(woken.recv(4096)))
        self._waker = waker
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)  # the wake-up descriptor carries it into the loop

    def _signalled(self, numbers: bytes) -> None:
        for number in numbers:
            match number:
                case signal.SIGTERM | signal.SIGINT:
                    self._leave(signal.Signals(number).name)
                case signal.SIGHUP:
                    self._reload()
                case _:
                    pass  # SIGCHLD: the turn reaps


def _lock_state(state: Path) -> Any:
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (state / "lock").open("a")
    except OSError as error:
        raise StartError(
            1,
            f"the state directory {state} cannot be written: {error.strerror}",
            "give this user write access, or set another: SIDECAR__STATE=/path",
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise StartError(
            1,
            f"another sidecar runs on the state directory {state}",
            "stop it, or give this one its own: SIDECAR__STATE=/path",
        ) from error
    return lock


def _runtime(state: Path) -> Path:
    try:
        return runtime_dir(state)
    except RuntimeDirError as error:
        problem, _, hint = str(error).partition("; ")
        raise StartError(1, problem, hint or "set XDG_RUNTIME_DIR to a directory of yours") from error


def resolve(flags: Flags) -> Mapping[str, Any]:
    """
    Return the static keys.

    Raises:
        StartError: when the config is not valid; the child has printed why.
    """
    done = subprocess.run(flags.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise StartError(done.returncode if done.returncode > 0 else 1)
    static: Mapping[str, Any] = json.loads(done.stdout)
    return static


def main(argv: Sequence[str] | None = None) -> int:
    """Run `sidecar run` with *argv* (without the verb) and return the exit code."""
    flags = Flags.parse(sys.argv[1:] if argv is None else argv)
    try:
        return Supervisor(flags, resolve(flags)).run()
    except StartError as error:
        if error.problem:
            sys.stderr.write(f"sidecar: {error.problem}\n  → {error.hint}\n")
        return error.code
    except ListenError as error:
        sys.stderr.write(f"sidecar: {error.problem}\n  → {error.hint}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
