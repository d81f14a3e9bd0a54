"""
The supervisor's children: started, heard, started again when they die, killed when they hang.

Theory
    A child is alive as long as its heartbeat is heard; a hung process is as dead as a killed one. What is wrong with it
    is not asked: it is ended and another one takes its place, later and later while children keep dying young.

Tables
    a child                              then
    dies, or is killed                   another one after 0.1 s, doubling to 10 s; the delay shrinks after 30 s of life
    is silent for 5 s                    killed (30 s while it starts: it has imports to do, on any machine)
    stops to be ready by itself          drains (somebody sent it SIGTERM); a replacement is started meanwhile
    leaves after it was told to          nothing, but a controller has a successor at once while the sidecar runs

What can go wrong
    A child that cannot be started (no memory, no descriptors) is tried again as if it had died. The supervisor itself was
    held up: what its children said meanwhile is heard before their silence is judged. All of them were held up together (a
    paused container or virtual machine, a machine without a free core): only the time in which the supervisor itself turned
    counts as silence, so that healthy children are not killed for a pause that nobody could speak in.
"""

from __future__ import annotations

import selectors
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from sidecar import clock
from sidecar.supervise.backoff import Backoff
from sidecar.supervise.child import Child, Kind, spawn
from sidecar.supervise.say import say

SILENCE_S: Final = 5.0
START_S: Final = 30.0
LONGEST_TURN_S: Final = 1.0  # a turn takes 0.25 s at most; what it took beyond this it was held up
_INHERITS: Final = {Kind.CONTROLLER: ("observe", "admin", "link"), Kind.WORKER: ("listen",)}


class Crew:
    """
    All children of one supervisor.

    Args:
        selector: Hears their hearts.
        sockets: The listening sockets by name, as they are now.
        told: Returns what a new child must know.

    Attributes:
        replaced: Who dies is started again; False once the sidecar leaves.
        news: Something has changed that the others should be told.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        sockets: Mapping[str, socket.socket],
        told: Callable[[], Mapping[str, Any]],
    ) -> None:
        self.replaced = self.news = True
        self._selector = selector
        self._sockets = sockets
        self._told = told
        self._children: list[Child] = []
        self._due: list[tuple[float, Kind]] = []
        self._turned_at = clock.now()
        self._backoff = {kind: Backoff() for kind in Kind}

    def __repr__(self) -> str:
        return f"<Crew {self._children}{'' if self.replaced else ', nobody is replaced'}>"

    def __len__(self) -> int:
        return len(self._children)

    # --- who there is -----------------------------------------------------------------------------------------

    @property
    def workers(self) -> list[Child]:
        """The workers, the draining ones too."""
        return [child for child in self._children if child.kind is Kind.WORKER]

    @property
    def controllers(self) -> list[Child]:
        """The controllers, the draining ones too."""
        return [child for child in self._children if child.kind is Kind.CONTROLLER]

    @property
    def everybody(self) -> list[Child]:
        """All children."""
        return list(self._children)

    @property
    def serving(self) -> int:
        """How many workers take new connections."""
        return sum(worker.ready and not worker.draining for worker in self.workers)

    @property
    def controlled(self) -> bool:
        """Tell whether a controller serves."""
        return any(child.ready for child in self.controllers)

    @property
    def workers_coming(self) -> int:
        """How many workers will be started again."""
        return sum(kind is Kind.WORKER for _, kind in self._due)

    def facts(self) -> dict[str, Any]:
        """Return what a controller is told of the others."""
        workers = [
            {"index": w.index, "epoch": w.epoch, "pid": w.process.pid, "ready": w.ready, "draining": w.draining}
            for w in self.workers
        ]
        return {"workers": workers, "restarts": {kind.name.lower(): count for kind, count in self.restarts.items()}}

    @property
    def restarts(self) -> dict[Kind, int]:
        """How many were started again so far."""
        return {kind: backoff.restarts for kind, backoff in self._backoff.items()}

    @restarts.setter
    def restarts(self, counts: Mapping[Kind, int]) -> None:
        for kind, count in counts.items():
            self._backoff[kind].restarts = count

    # --- their lives ------------------------------------------------------------------------------------------

    def start(self, kind: Kind) -> None:
        """Start one more child of *kind*."""
        index = self._free_index(kind)
        name = "controller" if kind is Kind.CONTROLLER else f"worker-{index}"
        now = clock.now()
        try:
            child = spawn(kind, name, index, {n: [self._sockets[n]] for n in _INHERITS[kind]}, self._told(), now)
        except OSError as error:
            delay_s = self._backoff[kind].after(0.0)
            self._due.append((now + delay_s, kind))
            say(f"{name} cannot be started; again in {delay_s:.1f} s", level="error", problem=str(error))
            return
        self.keep(child)

    def keep(self, child: Child) -> None:
        """Take care of a child that runs already."""
        self._children.append(child)
        self._selector.register(child.heart, selectors.EVENT_READ, lambda now: self._hear(child, now))
        self.news = True

    def turn(self, now: float) -> None:
        """Bury the dead, end the hung, and start whose time has come."""
        self._reap(now)
        self._end_silent(now)
        due, self._due = [k for at, k in self._due if at <= now], [row for row in self._due if row[0] > now]
        for kind in due:
            self.start(kind)

    def pause_s(self, now: float, longest_s: float) -> float:
        """Return how long nothing has to be done, at most *longest_s*."""
        return max(0.0, min([longest_s, *(at - now for at, _ in self._due)]))

    def leave(self) -> None:
        """Replace nobody any more."""
        self.replaced = False
        self._due.clear()
        self.news = True

    def leaving_s(self, usual: Mapping[str, float]) -> tuple[float, float]:
        """Return the delay and the grace of the slowest worker: each leaves by the config that it runs, not by the file's."""
        policies = [worker.facts.get("drain", usual) for worker in self.workers]
        return max((it["delay_s"] for it in policies), default=0.0), max(
            (it["grace_s"] for it in policies), default=0.0
        )

    def kill(self, children: Sequence[Child]) -> bool:
        """End who did not end in time; tell whether there was anybody."""
        late = [child for child in children if child.process.poll() is None]
        for child in late:
            say(f"{child.name} did not end in time and is killed", level="error", pid=child.process.pid)
            child.process.kill()
        return bool(late)

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
        elif was_ready and not child.ready and not child.draining and self.replaced:
            say(f"{child.name} leaves by itself", level="warning", pid=child.process.pid)
            child.draining = True
        if child.ready is not was_ready:
            self.news = True

    def _reap(self, now: float) -> None:
        for child in [c for c in self._children if c.process.poll() is not None]:
            self._forget(child)
            status = child.process.returncode
            if not child.draining and self.replaced:
                self._schedule(child, now, status)
                continue
            say(f"{child.name} has left", pid=child.process.pid, status=status)
            if self.replaced and child.kind is Kind.CONTROLLER:
                self._due.append((now, child.kind))

    def _forget(self, child: Child) -> None:
        self._children.remove(child)
        if child.heart in {key.fileobj for key in self._selector.get_map().values()}:
            self._selector.unregister(child.heart)
        child.heart.close()
        self.news = True

    def _schedule(self, child: Child, now: float, status: int) -> None:
        delay_s = self._backoff[child.kind].after(now - child.started_at)
        self._due.append((now + delay_s, child.kind))
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        say(f"{child.name} died ({how}); the next one starts in {delay_s:.1f} s", level="error", pid=child.process.pid)

    def _end_silent(self, now: float) -> None:
        turned_at, self._turned_at = self._turned_at, now
        for child in self._children:
            since_at = max(turned_at, child.heard_at or child.started_at)
            child.silent_s += max(0.0, min(now - since_at, LONGEST_TURN_S))
            limit_s = START_S if child.heard_at is None else SILENCE_S
            if child.silent_s > limit_s and child.process.poll() is None:
                say(f"{child.name} was silent for {limit_s:.0f} s and is killed", level="error", pid=child.process.pid)
                child.process.kill()
                child.silent_s = 0.0  # it is said once; the next turn buries it
