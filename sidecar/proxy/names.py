"""
The addresses of the endpoints' names, looked up beside the traffic and kept when a look-up fails.

A name is looked up when the first connection to it is made, then every 30 s, and sooner (at most once a second) when a
connection fails. A look-up that fails or finds nothing leaves the last good addresses in force: a name server that
is down must not take the API with it. An IP address needs no look-up.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Final

from sidecar import clock

REFRESH_S: Final = 30.0  # as nginx's resolver with no TTL at hand: getaddrinfo(3) tells none
_RETRY_S: Final = 1.0


class Names:
    """The last good addresses by name; a look-up runs in the event loop's thread pool."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._good: dict[str, tuple[str, ...]] = {}
        self._asked_at: dict[str, float] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    def __repr__(self) -> str:
        return f"<Names {self._good}>"

    async def addresses(self, name: str) -> tuple[str, ...]:
        """
        Return the addresses to try in order; wait only when none was ever found.

        Raises:
            OSError: when *name* was never found and is not found now.
        """
        if _is_address(name):
            return (name,)
        if name not in self._good:
            await asyncio.shield(self._look_up(name))
        elif clock.now() - self._asked_at[name] > REFRESH_S:
            self._look_up(name)
        good = self._good.get(name)
        if good is None:
            raise OSError(f"the name {name} has no address: correct upstream.endpoints or the name service")
        return good

    def failed(self, name: str) -> None:
        """Look *name* up anew: a connection to one of its addresses failed."""
        if not _is_address(name) and clock.now() - self._asked_at.get(name, 0.0) > _RETRY_S:
            self._look_up(name)

    def close(self) -> None:
        """Wait for no look-up any more."""
        for task in self._running.values():
            task.cancel()

    def _look_up(self, name: str) -> asyncio.Task[None]:
        running = self._running.get(name)
        if running is None:
            self._asked_at[name] = clock.now()
            running = self._running[name] = self._loop.create_task(self._ask(name), name=f"look up {name}")
        return running

    async def _ask(self, name: str) -> None:
        try:
            found = await self._loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except OSError:
            return
        finally:
            del self._running[name]
        if found:
            self._good[name] = tuple(dict.fromkeys(str(address[0]) for *_, address in found))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
