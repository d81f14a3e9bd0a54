"""
The running release's part of an upgrade: SIGUSR2 → a trial → the new program in this one's place.

    SIGUSR2 while          then
    nothing is tried       the installed release is tried (`trial.py`)
    one is tried           once more after it: the release may be another one by now
    the trial failed       what runs stays, and says why
    the trial succeeded    exec (`handover.py`); when that fails, what runs stays
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sidecar import __version__
from sidecar.supervise import handover
from sidecar.supervise.handover import VARIABLE, Handover
from sidecar.supervise.reading import Reading
from sidecar.supervise.say import say
from sidecar.supervise.trial import LONGEST_S


class Upgrade:
    """
    At most one trial at a time.

    Args:
        runtime: The private runtime directory, from which workers boot.
    """

    def __init__(self, runtime: Path) -> None:
        self._command = handover.command()
        trial = Handover(__version__, str(runtime), trial=True)
        self._trial = Reading(
            self._command,
            environ={**os.environ, VARIABLE: trial.text},
            longest_s=LONGEST_S,
            late=f"the release did not say within {LONGEST_S:.0f} s whether it can run",
            wrong="the installed release cannot run",
        )

    def __repr__(self) -> str:
        return f"<Upgrade by {' '.join(self._command)}: {self._trial}>"

    def ask(self, why: str, now: float) -> None:
        """
        Begin to try the installed release.

        Raises:
            OSError: when no process can be started.
        """
        say(f"{why}: trying the installed release", command=self._command)
        self._trial.ask(now)

    def take(self, now: float) -> Mapping[str, Any] | str | None:
        """Return what the release said of itself, or what is wrong, once the trial has ended; None before."""
        found = self._trial.take(now)
        if found is None or isinstance(found, str):
            return found
        return (
            found
            if isinstance(found.get("static"), dict)
            else "the installed release knows no handover: restart for it"
        )

    def execute(self, left: Handover) -> str:
        """Become the installed release; returns only what is wrong."""
        error = handover.execute(self._command, left)
        return f"{self._command[0]} cannot be executed: {error.strerror or error}"

    def end(self) -> None:
        """End a trial that is under way."""
        self._trial.end()
