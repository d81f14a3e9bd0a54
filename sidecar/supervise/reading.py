"""The static keys, read again on SIGHUP: in a short child process, without the supervisor waiting for it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, Final

LONGEST_S: Final = 30.0  # a file on a dead network mount must not end reloading for ever


class Reading:
    """
    One reading at a time; a wish that comes meanwhile is another one afterwards, because the file may be newer.

    Args:
        command: Prints the static keys as JSON, or what is wrong on stderr, and exits with 0 or another code.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._child: subprocess.Popen[bytes] | None = None
        self._until_at = 0.0
        self._again = False

    def __repr__(self) -> str:
        return f"<Reading {'under way' if self._child else 'idle'}{', once more after it' if self._again else ''}>"

    def ask(self, now: float) -> None:
        """
        Begin to read, or read once more after the present reading.

        Raises:
            OSError: when no process can be started.
        """
        if self._child is not None:
            self._again = True
            return
        self._child = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self._until_at = now + LONGEST_S

    def take(self, now: float) -> Mapping[str, Any] | str | None:
        """Return the static keys, or what is wrong, once a reading has ended; None before."""
        child = self._child
        if child is None:
            return None
        if child.poll() is None:
            if now < self._until_at:
                return None
            child.kill()
        self._child = None
        printed = child.communicate()[0]
        if self._again:
            self._again = False
            self.ask(now)
            return None
        if child.returncode < 0:
            return f"the configuration could not be read within {LONGEST_S:.0f} s"
        try:
            made = json.loads(printed) if child.returncode == 0 else None
        except ValueError:
            made = None
        return made if isinstance(made, dict) else "the configuration is not valid"

    def end(self) -> None:
        """End a reading that is under way."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None
