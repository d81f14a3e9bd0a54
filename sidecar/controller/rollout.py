"""
Two phases over all workers: prepare, then commit.

Theory
    `Prepare` makes every worker compile the text and keep it; `Commit` makes it run. A worker that says no, or says
    nothing for `ANSWER_S`, stops the change before anybody runs it. A worker that dies on the way is no refusal: its
    successor boots from the file that is written before `Commit`, and its Hello is answered with what is active.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from sidecar.link.frames import Ack, Commit, Frame, Prepare
from sidecar.link.server import LinkServer

ANSWER_S: Final = 5.0
PREPARE: Final = "prepare"
COMMIT: Final = "commit"


@dataclass(slots=True)
class _Round:
    """One question to some workers, and who has answered."""

    phase: str
    version: int
    waiting: set[int]
    problems: dict[int, str] = field(default_factory=dict)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def answered(self, worker: int, problem: str) -> None:
        self.waiting.discard(worker)
        if problem:
            self.problems[worker] = problem
        if not self.waiting:
            self.done.set()


class Rollout:
    """
    Asks workers through the link and gathers their acknowledgements.

    Args:
        link: The workers.
        answer_s: A worker that says nothing for so long has refused.
    """

    def __init__(self, link: LinkServer, *, answer_s: float = ANSWER_S) -> None:
        self._link = link
        self._answer_s = answer_s
        self._round: _Round | None = None

    def __repr__(self) -> str:
        return f"<Rollout {self._round or 'idle'}>"

    @property
    def workers(self) -> frozenset[int]:
        """Return the workers that are connected now."""
        return self._link.workers()

    def take(self, worker: int, ack: Ack) -> None:
        """Take a worker's answer."""
        asked = self._round
        if asked is not None and (ack.phase, ack.version) == (asked.phase, asked.version):
            asked.answered(worker, ack.problem)

    def lost(self, worker: int) -> None:
        """A worker's link ended: it is no longer waited for."""
        if self._round is not None:
            self._round.answered(worker, "")

    async def prepare(self, version: int, text: str) -> tuple[frozenset[int], str]:
        """Return the workers that have *version* ready, and what is wrong; "" when nothing is."""
        return await self._ask(self._link.workers(), PREPARE, version, Prepare(version, text))

    async def commit(self, version: int, workers: Iterable[int]) -> tuple[frozenset[int], str]:
        """Return the *workers* that run *version* now, and what is wrong; "" when nothing is."""
        return await self._ask(workers, COMMIT, version, Commit(version))

    def bring(self, worker: int, version: int, text: str) -> None:
        """Bring one worker to what is active, without waiting for it."""
        self._link.push(worker, Prepare(version, text))
        self._link.push(worker, Commit(version))

    async def _ask(self, workers: Iterable[int], phase: str, version: int, frame: Frame) -> tuple[frozenset[int], str]:
        asked = _Round(phase, version, set(workers))
        everybody = frozenset(asked.waiting)
        self._round = asked
        try:
            for worker in everybody:
                if not self._link.push(worker, frame):
                    asked.answered(worker, "")
            if asked.waiting:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(asked.done.wait(), self._answer_s)
        finally:
            self._round = None
        silent = dict.fromkeys(asked.waiting, f"no answer within {self._answer_s:g} s")
        problems = asked.problems | silent
        words = "; ".join(f"worker {worker}: {problem}" for worker, problem in sorted(problems.items()))
        return (everybody & self._link.workers()) - problems.keys(), words
