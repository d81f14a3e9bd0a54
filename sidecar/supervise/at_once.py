"""
Writes to stderr without ever waiting for its reader.

Theory
    A terminal that somebody stopped (Ctrl-S), a pager that is not scrolled, a log collector that hangs: the kernel's buffer
    fills up, and then a write waits for as long as nobody reads. A controller that waits is silent and gets killed; a
    supervisor that waits replaces nobody and hears no SIGTERM. So a line that finds no room is lost, not waited for.

Tables
    stderr is      written
    a file         as always: it takes everything, or says why not
    a socket       with MSG_DONTWAIT (journald)
    a pipe, a      through a file description of our own that does not block: other processes share the inherited one,
    terminal       and are not to find it changed
    neither        only when it is ready (a terminal of another user cannot be opened anew)

What can go wrong
    A long line stops in the middle when the room ends there; the next one begins behind it. A burst is given `WAIT_S` to go
    through, once a line.
"""

from __future__ import annotations

import os
import select
import socket
import stat
from collections.abc import Callable
from typing import Final, TextIO

WAIT_S: Final = 0.02


class AtOnce:
    """
    A text stream that loses what it would have to wait for.

    Args:
        stream: What it writes to; one without a descriptor is written as it is.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __repr__(self) -> str:
        return f"<AtOnce {self._stream!r}>"

    def isatty(self) -> bool:
        """Tell whether a person may look on."""
        return self._stream.isatty()

    def flush(self) -> None:
        """Nothing is kept back."""

    def write(self, text: str) -> int:
        """
        Write *text*, or what there is room for; return its length.

        Raises:
            OSError: when it cannot be written at all.
        """
        try:
            descriptor = self._stream.fileno()
        except (OSError, ValueError):  # a stream in memory
            self._stream.write(text)
            self._stream.flush()
        else:
            _write(descriptor, text.encode("utf-8", "backslashreplace"))
        return len(text)


def _write(descriptor: int, data: bytes) -> None:
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISSOCK(kind):
        with socket.socket(fileno=os.dup(descriptor)) as ours:
            _as_far_as_it_goes(
                ours.fileno(), data, lambda rest: ours.send(rest, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            )
    elif stat.S_ISFIFO(kind) or stat.S_ISCHR(kind):
        _write_anew(descriptor, data)
    else:
        os.write(descriptor, data)


def _write_anew(descriptor: int, data: bytes) -> None:
    try:
        own = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        if _has_room(descriptor):
            os.write(descriptor, data)
        return
    try:
        _as_far_as_it_goes(own, data, lambda rest: os.write(own, rest))
    finally:
        os.close(own)


def _as_far_as_it_goes(descriptor: int, data: bytes, write: Callable[[bytes], int]) -> None:
    while data:
        try:
            data = data[write(data) :]
        except BlockingIOError:
            if not _has_room(descriptor):
                return


def _has_room(descriptor: int) -> bool:
    waiting = select.poll()
    waiting.register(descriptor, select.POLLOUT)
    return any(events & select.POLLOUT for _, events in waiting.poll(WAIT_S * 1000))
