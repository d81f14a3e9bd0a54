"""The supervisor's log: JSON lines for machines, one plain line for a person at a terminal."""

from __future__ import annotations

import json
import sys
from typing import Any

from sidecar import clock


def say(event: str, *, level: str = "info", process: str = "supervisor", **facts: Any) -> None:
    """Write one line to stderr; *event* is a sentence of *process*, *facts* are its values."""
    moment = clock.wall()
    if sys.stderr.isatty():
        values = " ".join(f"{name}={value}" for name, value in facts.items())
        line = f"{moment:%H:%M:%S} {level.upper():7} {process}  {event}{'  ' + values if values else ''}"
    else:
        stamp = moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        line = json.dumps({"time": stamp, "level": level, "process": process, "event": event, **facts}, default=str)
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except OSError:  # nobody reads any more: a closed terminal must not stop the traffic
        return
