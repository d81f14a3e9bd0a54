"""The first words of a start: where everything listens; a person at a terminal is also told what comes next."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from sidecar.compiled import WHY
from sidecar.supervise.say import say


def greet(static: Mapping[str, Any], addresses: Mapping[str, str]) -> None:
    """
    Say that the sidecar starts.

    Args:
        static: The static keys.
        addresses: Of `listen`, `observe` and `admin`, as they were bound.
    """
    say(
        "sidecar starts",
        pid=os.getpid(),
        **addresses,
        workers=static["workers"],
        state=static["state"],
        code=WHY or "compiled",
    )
    if sys.stderr.isatty():
        urls = {
            name: f"http{'s' if name in static.get('secure', ()) else ''}://{addresses[name]}"
            for name in ("listen", "admin")
        }
        say(f"your API is at {urls['listen']}, the admin API at {urls['admin']}")
        say("next: `sidecar status` in another terminal; Ctrl-C drains and stops")
