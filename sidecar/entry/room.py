"""How many clients this process has descriptors for."""

from __future__ import annotations

import resource

from sidecar.proxy.room import Room
from sidecar.supervise.say import say


def room_here(process: str, configured: int) -> Room:
    """Return the room that this process has; say so when *configured*, the `max_connections`, is more than that."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = Room.of(-1 if limit == resource.RLIM_INFINITY else limit)
    if room.connections < configured:
        say(
            f"downstream.max_connections: {configured} is more than the file limit of {limit} allows; "
            f"{room.connections} hold: raise it (ulimit -n, LimitNOFILE=), or lower the setting",
            level="warning",
            process=process,
        )
    return room
