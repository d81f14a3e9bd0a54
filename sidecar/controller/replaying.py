"""
Replays beside the controller: in a child process of low priority, so that no second of the control plane is late.

    stdin   the pickled work            from our own parent over our own pipe
    stdout  the pickled answer          the same

What can go wrong
    It takes too long: it is ended after `LONGEST_S`, and the caller says so. Several are asked for: one runs, the
    others wait.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sidecar.config.policies import Compiled
from sidecar.controller.journal import Journal
from sidecar.replay.compare import Outcome, outcome
from sidecar.replay.material import Material
from sidecar.replay.reel import KEEP_S, Reel
from sidecar.store.errors import StoreError
from sidecar.store.store import Store

LONGEST_S: Final = 120.0
NICE: Final = 15
_COMMAND: Final = (sys.executable, "-m", "sidecar.controller.replaying")


class ReplayError(Exception):
    """The replay was not finished; the message says why."""


@dataclass(frozen=True, slots=True)
class Work:
    """Replay the material under each of these configs."""

    material: Material
    configs: tuple[Compiled, ...]


class Replays:
    """
    Asks children for replays.

    Args:
        journal: Where minutes come from.
        reel: Where seconds come from.
        now: Returns Unix seconds.
    """

    def __init__(self, journal: Journal, reel: Reel, now: Callable[[], float]) -> None:
        self._journal = journal
        self._reel = reel
        self._now = now
        self._turn = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Replays of {self._reel!r}>"

    async def material(self, window_s: float, routes: Sequence[str]) -> Material:
        """Return the history of the last *window_s*; of what the store cannot say only the reel's part."""
        since = self._now() - window_s
        reel = self._reel.minutes(max(since, self._now() - KEEP_S))
        begin = reel[0].unix if reel else self._now()
        minutes: Mapping[str, list[Mapping[str, Any]]] = {}
        if since < begin:
            try:
                minutes = await self._journal.read(lambda store: _minutes(store, routes, since, begin))
            except StoreError:
                minutes = {}
        return Material(minutes, reel)

    async def outcomes(self, material: Material, configs: Sequence[Compiled]) -> list[Outcome]:
        """
        Return what each config would have come to.

        Raises:
            ReplayError: when it took too long or failed.
        """
        work = pickle.dumps(Work(material, tuple(configs)))
        async with self._turn:
            return await _ask(work)


def _minutes(store: Store, routes: Sequence[str], since: float, until: float) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {
        route: list(store.rollups(route, since_unix=since, until_unix=until)) for route in routes
    }
    return {route: rows for route, rows in found.items() if rows}


async def _ask(work: bytes) -> list[Outcome]:
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*_COMMAND, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        async with asyncio.timeout(LONGEST_S):
            out, errors = await child.communicate(work)
    except TimeoutError as error:
        raise ReplayError(f"the replay was not finished in {LONGEST_S:.0f} s: ask for a shorter time") from error
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode:
        raise ReplayError(f"the replay failed: {errors.decode(errors='replace').strip()[-300:]}")
    made: list[Outcome] = pickle.loads(out)  # noqa: S301  our own child's
    return made


def main() -> int:
    """Answer one question on stdin."""
    os.nice(NICE)
    work = pickle.load(sys.stdin.buffer)  # noqa: S301  our own parent's
    pickle.dump([outcome(compiled, work.material) for compiled in work.configs], sys.stdout.buffer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
