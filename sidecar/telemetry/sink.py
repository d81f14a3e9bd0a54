"""
Where the lines of the access log go: stdout, stderr or a file, without the event loop ever waiting for it.

Theory
------
A line is appended to a list, and a few times a second the list is handed over in one piece to a thread that does
nothing but write: the system call runs without the interpreter's lock, so a slow disk or a terminal that somebody
stopped costs the traffic nothing. Formatting stays in the event loop, because a thread that computes holds the lock
for up to 5 ms at a time. stdout is never made non-blocking: other processes share that file description.

Tables
------
    what happens                                     then
    more than `MAX_WAITING_BYTES` wait               new lines are dropped and counted
    a write fails (disk full, nobody reads)          its lines are dropped and counted, the first failure is said
    the file cannot be opened                        the same, until `reopen`
    reopen (SIGHUP)                                  what was handed over before goes to the old file, the rest to the new
    the target is a pipe                             one write for each `PIPE_BYTES` at most, at the ends of lines: whole lines
    close                                            what waits has `CLOSE_S` to be written

What can go wrong
-----------------
* The thread hangs in a write for ever (an NFS server is gone): it is a daemon and ends with the process.
"""

from __future__ import annotations

import os
import select
import stat
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Final

MAX_WAITING_BYTES: Final = 1024 * 1024
FLUSH_BYTES: Final = 32 * 1024
PIPE_BYTES: Final = 4096  # POSIX: a write of up to PIPE_BUF (4096 on Linux) is not torn
CLOSE_S: Final = 1.0
STANDARD: Final = {"stdout": 1, "stderr": 2}
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
_MODE: Final = 0o640


class Sink:
    """
    One target, written by a thread of its own.

    Args:
        target: `stdout`, `stderr` or a file's path.
        failed: Called (in the thread) with what is wrong, once until writing works again.
    """

    def __init__(self, target: str, failed: Callable[[str], None]) -> None:
        self._lines: list[bytes] = []
        self._size = 0
        self._handed = 0  # bytes; written by the event loop only
        self._refused = 0  # lines; the same
        self._orders: SimpleQueue[bytes | str | None] = SimpleQueue()
        self._writer = _Writer(target, self._orders, failed)
        self._thread = threading.Thread(target=self._writer.run, name="access-log", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<Sink {self._writer.target} {self.waiting_bytes} bytes waiting, {self.dropped} dropped>"

    @property
    def dropped(self) -> int:
        """Count the lines that were not written."""
        return self._refused + self._writer.lost

    @property
    def waiting_bytes(self) -> int:
        """Return how much is not written yet."""
        return self._size + self._handed - self._writer.done

    def put(self, line: bytes) -> None:
        """Write *line* soon; drop it when too much waits."""
        if self.waiting_bytes + len(line) > MAX_WAITING_BYTES:
            self._refused += 1
            return
        self._lines.append(line)
        self._size += len(line)
        if self._size >= FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand over what has come."""
        if self._lines:
            self._handed += self._size
            self._size = 0
            lines, self._lines = self._lines, []
            self._orders.put(b"".join(lines))

    def reopen(self, target: str) -> None:
        """Go on in *target*, opened anew: its name may mean another file now."""
        self.flush()
        self._orders.put(target)

    def close(self) -> None:
        """Write what waits, for at most a moment."""
        self.flush()
        self._orders.put(None)
        self._thread.join(CLOSE_S)


class _Writer:
    """The thread's side; `done` and `lost` are written by it alone."""

    def __init__(self, target: str, orders: SimpleQueue[bytes | str | None], failed: Callable[[str], None]) -> None:
        self.target = target
        self.done = 0
        self.lost = 0
        self._orders = orders
        self._failed = failed
        self._silent = False  # the failure was said
        self._descriptor = -1

    def run(self) -> None:
        """Write until told to end."""
        self._open(self.target)
        while (order := self._orders.get()) is not None:
            if isinstance(order, str):
                self._open(order)
            else:
                self._write(order)
                self.done += len(order)
        self._close()

    def _open(self, target: str) -> None:
        self._close()
        self.target = target
        if target in STANDARD:
            self._descriptor = STANDARD[target]
            return
        try:
            self._descriptor = os.open(target, _FLAGS, _MODE)
        except OSError as error:
            self._say(f"{target} cannot be opened: {error.strerror}")

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor > max(STANDARD.values()):
            os.close(descriptor)

    def _write(self, text: bytes) -> None:
        for piece in self._pieces(text):
            left = piece
            try:
                while left:
                    left = left[self._take(left) :]
            except OSError as error:
                self.lost += left.count(b"\n")
                self._say(f"{self.target} cannot be written: {error.strerror}")
            else:
                self._silent = False

    def _take(self, text: bytes) -> int:
        try:
            return os.write(self._descriptor, text)
        except BlockingIOError:  # somebody else made our stdout non-blocking
            waiting = select.poll()
            waiting.register(self._descriptor, select.POLLOUT)
            waiting.poll()
            return 0

    def _pieces(self, text: bytes) -> Iterator[bytes]:
        """Yield *text* as it may be written in one call each."""
        try:
            whole = not stat.S_ISFIFO(os.fstat(self._descriptor).st_mode)
        except OSError:
            whole = True
        at = 0
        while at < len(text):
            end = len(text) if whole else text.rfind(b"\n", at, at + PIPE_BYTES) + 1
            yield text[at : end or len(text)]
            at = end or len(text)

    def _say(self, problem: str) -> None:
        if not self._silent:
            self._silent = True
            self._failed(problem)
