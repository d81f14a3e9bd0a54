"""
A release takes the place of another one: what goes from the old supervisor to the new one, in one process.

Theory.   The supervisor replaces its own program by exec(2). The process stays, and with it the pid that systemd and the children
          know, the listening sockets, the heartbeats and the lock of the state directory; only the code is another one. What the
          kernel does not keep is what the old program knew of these descriptors and pids: it goes along in `SIDECAR_HANDOVER`.
          (nginx and unicorn start a second master on SIGUSR2; HAProxy's master executes itself anew, as here.)

Tables.   goes along       as                                    then
          sockets, lock    descriptors, inheritable for the time served on: the kernel queues connections meanwhile
          children         pid, heartbeat, what is known of each watched as before, then replaced one after the other
          static keys      as the new release read them          `state` and Unix sockets stay as they are
          signals          blocked across exec                   kept by the kernel until the new one listens to them

What can go wrong.   exec fails (the program is gone): everything is as it was. The new program ends before it watches the children:
          the kernel ends them (`tether.py`), and systemd starts anew; `trial.py` is there so that it does not come to that.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self, TextIO

from sidecar.supervise.child import Adopted, Child, Kind
from sidecar.supervise.signals import TAKEN
from sidecar.supervise.start import StartError

VARIABLE: Final = "SIDECAR_HANDOVER"
PROTOCOL: Final = 1


@dataclass(frozen=True, slots=True)
class Handover:
    """
    What one release leaves to the next.

    Attributes:
        release: Who leaves it.
        runtime: The private directory of both.
        trial: Only find out whether this release could run; the other fields are empty then.
        static: The static keys that hold.
        wanted: The static keys as the new release read them.
        sockets: Listener → descriptor.
        lock: The descriptor that holds the state directory.
        children: One row each.
        restarts: Kind of child → restarts so far.
    """

    release: str
    runtime: str
    trial: bool = False
    static: Mapping[str, Any] = field(default_factory=dict)
    wanted: Mapping[str, Any] = field(default_factory=dict)
    sockets: Mapping[str, int] = field(default_factory=dict)
    lock: int = -1
    children: Sequence[Mapping[str, Any]] = field(default_factory=list)
    restarts: Mapping[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Handover from {self.release}{', on trial' if self.trial else f', {len(self.children)} children'}>"

    @property
    def text(self) -> str:
        """The variable's text."""
        return json.dumps({"protocol": PROTOCOL, **asdict(self)})

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> Self | None:
        """
        Take the variable out of *environ*; None when this is a start as any other.

        Raises:
            StartError: when another release left what this one does not understand.
        """
        text = environ.pop(VARIABLE, None)
        if text is None:
            return None
        try:
            row = dict(json.loads(text))
            spoken = row.pop("protocol", None)
            if spoken == PROTOCOL:
                return cls(**row)
        except (ValueError, TypeError) as error:
            raise StartError(
                1, f"{VARIABLE} cannot be read: {error}", "unset it: only a running sidecar sets it"
            ) from error
        problem = f"the running release hands over by protocol {spoken}, this one by {PROTOCOL}"
        raise StartError(1, problem, "restart instead")


def pack(child: Child) -> Mapping[str, Any]:
    """Return *child* as a row."""
    return {
        "kind": child.kind.value, "name": child.name, "index": child.index, "epoch": child.epoch, "pid": child.process.pid,
        "heart": child.heart.fileno(), "started_at": child.started_at, "heard_at": child.heard_at, "ready": child.ready,
        "draining": child.draining, "facts": dict(child.facts), "unread": child.unread,
    }  # fmt: skip


def unpack(row: Mapping[str, Any]) -> Child:
    """Return the child of a row; from now on this program watches it."""
    return Child(
        row["name"], Kind(row["kind"]), row["index"], row["epoch"], Adopted(row["pid"]), listener(row["heart"]),
        row["started_at"], row["heard_at"], row["ready"], row["draining"], row["facts"], row["unread"],
    )  # fmt: skip


def listener(descriptor: int) -> socket.socket:
    """Return an inherited socket that is not inherited further."""
    os.set_inheritable(descriptor, False)
    return socket.socket(fileno=descriptor)


def lock_of(descriptor: int) -> TextIO:
    """Return the state directory's lock, which was never let go."""
    os.set_inheritable(descriptor, False)
    return os.fdopen(descriptor, "a", encoding="ascii")


def command() -> list[str]:
    """
    Return the command line that this program was started by, so that it leads to the release which is installed now.

    A script (`/opt/sidecar/bin/sidecar`) is executed by its name: its first line names the interpreter of its release.
    """
    given = sys.orig_argv[1:]
    if given and given[0] == sys.argv[0] and os.access(given[0], os.X_OK):
        return given
    return [sys.executable, *given]


def execute(words: Sequence[str], handover: Handover) -> OSError:
    """Become the program *words*; returns only why that failed, and then nothing has changed."""
    numbers = [*handover.sockets.values(), handover.lock, *(row["heart"] for row in handover.children)]
    sys.stderr.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, TAKEN)
    for number in numbers:
        os.set_inheritable(number, True)
    try:
        os.execvpe(words[0], list(words), {**os.environ, VARIABLE: handover.text})  # noqa: S606  our own command line
    except OSError as error:
        for number in numbers:
            os.set_inheritable(number, False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, TAKEN)
        return error


def let_signals_in() -> None:
    """Take the signals that came while one program became the other."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, TAKEN)


def listeners(left: Handover) -> dict[str, socket.socket]:
    """Return the listening sockets, by listener."""
    return {name: listener(descriptor) for name, descriptor in left.sockets.items()}
