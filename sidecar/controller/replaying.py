"""
Replays beside the controller: in a child process of low priority (`replayer.py`), so that no second here is late.

What can go wrong
    It takes too long: it is ended after `LONGEST_S` (a study `STUDY_S`), and the caller says so. Several are asked for: one runs, the
    others wait.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from sidecar.config.policies import Compiled
from sidecar.controller.journal import Journal
from sidecar.replay.learned import Learned
from sidecar.replay.material import Material
from sidecar.replay.reel import KEEP_S, Reel
from sidecar.store.errors import StoreError
from sidecar.store.store import Store

if TYPE_CHECKING:  # a start needs no replay
    from sidecar.controller.studying import Lesson, Study, Work
    from sidecar.replay.compare import Outcome

LONGEST_S: Final = 120.0
STUDY_S: Final = 900.0
_COMMAND: Final = (sys.executable, "-m", "sidecar.controller.replayer")


class ReplayError(Exception):
    """The replay was not finished; the message says why."""


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

    async def outcomes(self, material: Material, configs: Sequence[Compiled], learned: Learned) -> list[Outcome]:
        """
        Return what each config would have come to.

        Raises:
            ReplayError: when it took too long or failed.
        """
        from sidecar.controller.studying import Work  # noqa: PLC0415  as above

        found: list[Outcome] = await self._ask(Work(material, tuple(configs), learned), LONGEST_S)
        return found

    async def study(self, asked: Study) -> Lesson:
        """
        Return what an incident teaches.

        Raises:
            ReplayError: when it took too long or failed.
        """
        found: Lesson = await self._ask(asked, STUDY_S)
        return found

    async def _ask(self, work: Work | Study, longest_s: float) -> Any:
        async with self._turn:
            return await _ask(pickle.dumps(work), longest_s)


def _minutes(store: Store, routes: Sequence[str], since: float, until: float) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {
        route: list(store.rollups(route, since_unix=since, until_unix=until)) for route in routes
    }
    return {route: rows for route, rows in found.items() if rows}


async def _ask(work: bytes, longest_s: float) -> Any:
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*_COMMAND, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        async with asyncio.timeout(longest_s):
            out, errors = await child.communicate(work)
    except TimeoutError as error:
        raise ReplayError(f"the replay was not finished in {longest_s:.0f} s: ask for a shorter time") from error
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode:
        raise ReplayError(f"the replay failed: {errors.decode(errors='replace').strip()[-300:]}")
    return pickle.loads(out)  # noqa: S301  our own child's
