"""Signals as events of a selector: nothing runs inside a handler."""

from __future__ import annotations

import selectors
import signal
import socket
from collections.abc import Callable
from typing import Final

TAKEN: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD)


class SignalSocket:
    """
    Hands the signals in `TAKEN` to *take*, from within `select`; from the main thread only.

    Args:
        selector: Its keys carry callbacks as data.
        take: Told of each signal.
    """

    def __init__(self, selector: selectors.BaseSelector, take: Callable[[signal.Signals], None]) -> None:
        self._take = take
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        selector.register(self._woken, selectors.EVENT_READ, self._read)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        for number in TAKEN:
            signal.signal(number, lambda *_: None)  # the wake-up descriptor carries it into the loop

    def __repr__(self) -> str:
        return f"<SignalSocket {[number.name for number in TAKEN]}>"

    def end(self) -> None:
        """Ignore from now on what asks to end: the exit code is settled."""
        for number in TAKEN:
            if number is not signal.SIGCHLD:
                signal.signal(number, signal.SIG_IGN)

    def _read(self, _: float) -> None:
        for number in self._woken.recv(4096):
            if number in TAKEN:
                self._take(signal.Signals(number))
