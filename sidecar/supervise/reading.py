"""What a short child process says, without the supervisor waiting for it: static keys on SIGHUP, a release on trial."""

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
        command: Prints a JSON object, or what is wrong on stderr, and exits with 0 or another code.
        environ: Its environment; None: ours.
        longest_s: After so long it is killed.
        late, wrong: What to say when it was killed, or when it did not exit with 0.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environ: Mapping[str, str] | None = None,
        longest_s: float = LONGEST_S,
        late: str = f"the configuration could not be read within {LONGEST_S:.0f} s",
        wrong: str = "the configuration is not valid",
    ) -> None:
        self._command = command
        self._environ = environ
        self._longest_s = longest_s
        self._late = late
        self._wrong = wrong
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
        self._child = subprocess.Popen(
            self._command, env=self._environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        self._until_at = now + self._longest_s

    def take(self, now: float) -> Mapping[str, Any] | str | None:
        """Return what it printed, or what is wrong, once a reading has ended; None before."""
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
            return self._late
        try:
            made = json.loads(printed) if child.returncode == 0 else None
        except ValueError:
            made = None
        return made if isinstance(made, dict) else self._wrong

    def end(self) -> None:
        """End a reading that is under way."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None
