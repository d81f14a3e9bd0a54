"""
The worker's side of a new config version: compiled beside the traffic on `Prepare`, in force from `Commit` on.

    heard             done
    Prepare           compile in a child process, or take what ran lately; answer when it is ready, or why it is not
    Prepare again     the one before is forgotten
    Commit            of what was prepared: swap, answer; of anything else: say so

What can go wrong. Certificate files that changed between the two: the version is not applied, and the answer says why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from sidecar.config.certificates import CertificateError
from sidecar.config.policies import Compiled
from sidecar.entry.compiling import CompileError, compile_beside
from sidecar.entry.told import Told
from sidecar.link.frames import Ack, Prepare

RECENT: Final = 3


class Versions:
    """
    What one worker runs, ran lately, and has been told to get ready.

    Args:
        runs: Text and policies that the worker began with.
        apply: Lets policies be in force under a version's number; raises CertificateError or OSError when it cannot.
        send: Where answers go.
    """

    def __init__(
        self,
        told: Told,
        runs: tuple[str, Compiled],
        apply: Callable[[Compiled, int], None],
        send: Callable[[Ack], None],
    ) -> None:
        self._told = told
        self._recent = dict([runs])  # a rollback, and the first version after a start, cost nothing
        self._apply = apply
        self._send = send
        self._prepared: tuple[Prepare, asyncio.Task[Compiled]] | None = None

    def __repr__(self) -> str:
        return f"<Versions {'none' if self._prepared is None else self._prepared[0].version} prepared>"

    def prepare(self, asked: Prepare) -> None:
        """Get a version ready, and answer when it is."""
        if self._prepared is not None:
            self._prepared[1].cancel()
        compiling = asyncio.get_running_loop().create_task(self._compile(asked))
        self._prepared = (asked, compiling)
        compiling.add_done_callback(lambda done: self._acknowledge(asked.version, done))

    async def commit(self, version: int) -> None:
        """Let a version that was prepared be in force, and answer."""
        prepared = self._prepared
        if prepared is None or prepared[0].version != version:
            self._send(Ack(self._told.index, "commit", version, f"version {version} was not prepared here"))
            return
        problem = ""
        try:
            compiled = await asyncio.shield(prepared[1])
            self._apply(compiled, version)
        except (CompileError, CertificateError, OSError, asyncio.CancelledError) as error:
            problem = str(error) or "another version was prepared meanwhile"
        else:
            self._keep(prepared[0].text, compiled)
        self._send(Ack(self._told.index, "commit", version, problem))

    async def _compile(self, asked: Prepare) -> Compiled:
        if (known := self._recent.get(asked.text)) is not None:
            return known
        return await compile_beside(asked.text, name=f"version {asked.version}", flags=self._told.flags)

    def _acknowledge(self, version: int, done: asyncio.Task[Compiled]) -> None:
        if not done.cancelled():
            error = done.exception()
            self._send(Ack(self._told.index, "prepare", version, str(error) if error is not None else ""))

    def _keep(self, text: str, compiled: Compiled) -> None:
        self._recent.pop(text, None)
        self._recent[text] = compiled
        if len(self._recent) > RECENT:
            del self._recent[next(iter(self._recent))]
