"""
One child process as the supervisor sees it: a pid, a heartbeat and what it last said of itself.

The heartbeat is one end of a stream socket pair. The child writes a JSON line a second; the supervisor writes JSON
lines of what to do. When either side is gone the other one reads end of file, so no child outlives a killed
supervisor.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol

MAX_LINE_BYTES: Final = 64 * 1024


class Kind(StrEnum):
    """The two kinds of child; the value is the module that runs it."""

    WORKER = "sidecar.entry.worker"
    CONTROLLER = "sidecar.entry.controller"


class Process(Protocol):
    """What the supervisor does with a child's process; `subprocess.Popen` is one."""

    pid: int
    returncode: int | Any

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal; None while it lives."""

    def kill(self) -> None:
        """End it at once."""


class Adopted:
    """A child that another program of this process started: the release before this one (`handover.py`)."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def __repr__(self) -> str:
        return f"<Adopted {self.pid}{'' if self.returncode is None else f' ended with {self.returncode}'}>"

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal; None while it lives."""
        if self.returncode is None:
            try:
                found, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # somebody else took its status
                self.returncode = 0
            else:
                self.returncode = os.waitstatus_to_exitcode(status) if found else None
        return self.returncode

    def kill(self) -> None:
        """End it at once."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


@dataclass(slots=True)
class Child:
    """
    One running child.

    Attributes:
        heard_at: Monotonic seconds of the last heartbeat; None until the first one.
        ready: What it said last.
        draining: It was told to leave.
        facts: The rest of its last heartbeat.
        unread: The beginning of a line whose end has not come yet.
        silent_s: For how long nothing came while the supervisor listened (`crew.py`).
    """

    name: str
    kind: Kind
    index: int
    epoch: str
    process: Process
    heart: socket.socket
    started_at: float
    heard_at: float | None = None
    ready: bool = False
    draining: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)
    unread: str = ""
    silent_s: float = 0.0

    def __repr__(self) -> str:
        return f"<{self.name} pid {self.process.pid}{' ready' if self.ready else ''}{' draining' if self.draining else ''}>"

    def tell(self, **order: Any) -> None:
        """Send one order; a child that is gone or does not read will be noticed by its heartbeat."""
        try:
            self.heart.send(json.dumps(order).encode() + b"\n", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            return

    def listen(self, now: float) -> bool:
        """Read what it says; False when it closed its end."""
        try:
            received = self.heart.recv(MAX_LINE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not received:
            return False
        for line in self._lines(received):
            self.heard_at, self.silent_s = now, 0.0
            self.ready = bool(line.get("ready"))
            self.facts = line
        return True

    def _lines(self, received: bytes) -> Iterator[Mapping[str, Any]]:
        *lines, rest = (self.unread + received.decode("ascii", "replace")).split("\n")
        self.unread = rest[-MAX_LINE_BYTES:]
        for line in lines:
            try:
                made = json.loads(line)
            except ValueError:
                continue
            if isinstance(made, dict):
                yield made


def spawn(
    kind: Kind, name: str, index: int, fds: Mapping[str, Sequence[socket.socket]], told: Mapping[str, Any], now: float
) -> Child:
    """
    Start one child in a session of its own, so that a terminal's Ctrl-C reaches the supervisor alone.

    Args:
        fds: The listening sockets that it inherits, by listener.
        told: What else it must know: `runtime`, `config_file`, `flags`, `static`.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    epoch = os.urandom(8).hex()
    numbers: dict[str, Any] = {listener: [s.fileno() for s in sockets] for listener, sockets in fds.items()}
    inherited = [number for group in numbers.values() for number in group] + [theirs.fileno()]
    numbers["heartbeat"] = theirs.fileno()
    facts = {"name": name, "index": index, "epoch": epoch, "supervisor": os.getpid(), "fds": numbers, **told}
    try:
        process = subprocess.Popen(  # the module's name is a literal of this file
            [sys.executable, "-m", kind.value],
            env={**os.environ, "SIDECAR_CHILD": json.dumps(facts)},
            stdin=subprocess.DEVNULL,
            pass_fds=inherited,
            start_new_session=True,
        )
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    return Child(name, kind, index, epoch, process, ours, now)
