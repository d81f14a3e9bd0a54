"""The supervisor's log: JSON lines for machines, one plain line for a person at a terminal."""

from __future__ import annotations

import json
import sys
from typing import Any

from sidecar import clock
from sidecar.supervise.at_once import AtOnce


def say(event: str, *, level: str = "info", process: str = "supervisor", **facts: Any) -> None:
    """Write one line to stderr, without waiting for who reads it; *event* is a sentence of *process*, *facts* are its values."""
    moment = clock.wall()
    if sys.stderr.isatty():
        values = " ".join(f"{name}={value}" for name, value in facts.items())
        line = f"{moment:%H:%M:%S} {level.upper():7} {process}  {event}{'  ' + values if values else ''}"
    else:
        stamp = moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        line = json.dumps({"time": stamp, "level": level, "process": process, "event": event, **facts}, default=str)
    try:
        AtOnce(sys.stderr).write(line + "\n")
    except OSError:  # nobody reads any more: a closed terminal must not stop the traffic
        return
