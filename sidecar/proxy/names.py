"""
The addresses of the endpoints' names, looked up beside the traffic and kept when a look-up fails.

Theory.   A name is looked up when the worker starts, or when the first connection to it is made, then every `upstream.resolve`, and sooner (at most once a second)
          when a connection fails. A look-up that fails or finds nothing leaves the last good addresses in force: a name
          server that is down must not take the API with it. An IP address needs no look-up.

          Each new connection begins with the next address, so that all of them are used; one that could not be reached is tried
          last until the next look-up.

What can go wrong. A name whose addresses changed has connections to the old ones: the pool is told (`moved`) and lets go of them. A name
          with more than `MOST` addresses: the rest is left out. A name that was never found: people are told, once until it is.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from sidecar import clock
from sidecar.proxy.alerts import Complain, unheard

MOST: Final = 16
_RETRY_S: Final = 1.0
_REMEDY: Final = "correct upstream.endpoints or the name service"

Moved = Callable[[str, Sequence[str]], None]


class Names:
    """
    The last good addresses by name; a look-up runs in the event loop's thread pool.

    Args:
        refresh_s: A name is looked up again after this; nginx's resolver takes the TTL, which getaddrinfo(3) tells not.
        moved: Is told the addresses of a name that lost one.
        complain: Is told of a name that has no address.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, refresh_s: float, moved: Moved, complain: Complain = unheard
    ) -> None:
        self.refresh_s = refresh_s
        self._loop = loop
        self._moved = moved
        self._complain = complain
        self._told: set[str] = set()
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
        good = self._good.get(name)
        if good is None:
            raise OSError(f"the name {name} has no address: {_REMEDY}")
        self._good[name] = (*good[1:], good[0])
        return good

    def expect(self, names: Iterable[str]) -> None:
        """Look up what will be needed and was never found, before a request waits for it."""
        for name in names:
            if name and name not in self._good and not _is_address(name):
                self._look_up(name)

    def failed(self, name: str, address: str) -> None:
        """Try *address* last from now on, and look *name* up anew: a connection failed."""
        good = self._good.get(name)
        if good is None:
            return
        if address in good:
            self._good[name] = (*(each for each in good if each != address), address)
        if clock.now() - self._asked_at[name] > _RETRY_S:
            self._look_up(name)

    def turn(self, now: float) -> None:
        """Look up again what was looked up too long ago."""
        for name, asked_at in tuple(self._asked_at.items()):
            if now - asked_at > self.refresh_s:
                self._look_up(name)

    def keep(self, names: frozenset[str]) -> None:
        """Forget all names but these."""
        for name in self._asked_at.keys() - names:
            del self._asked_at[name]
            self._good.pop(name, None)
        self._told &= names

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
        except OSError as error:
            if name in self._asked_at and name not in self._good and name not in self._told:
                self._told.add(name)
                self._complain("an endpoint's name has no address", f"{name}: {error.strerror or error}: {_REMEDY}")
            return
        finally:
            del self._running[name]
        addresses = tuple(dict.fromkeys(str(address[0]) for *_, address in found))[:MOST]
        if not addresses or name not in self._asked_at:
            return
        self._told.discard(name)
        before = self._good.get(name, ())
        if set(before) != set(addresses):
            self._good[name] = addresses
            if set(before) - set(addresses):
                self._moved(name, addresses)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
