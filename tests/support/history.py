"""The config's history in a test: one state directory and one file, through several controllers' lives."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.controller.configuring import Configuring
from sidecar.controller.journal import Journal
from sidecar.controller.ports import ConfigRefused
from sidecar.controller.rollout import Rollout
from sidecar.controller.starting import Source
from sidecar.link.runtime import BootConfig
from tests.support.workers import Workers, linked

ONE = "upstream: {endpoints: [http://127.0.0.1:9000]}\nservice: {limit: {rate: 1/s, burst: 1}}\n"
TWO = ONE.replace("1/s", "2/s")
THREE = ONE.replace("1/s", "3/s")


class Setting:
    """One state directory and one file, through several controllers' lives."""

    def __init__(self, folder: Path, workers: Workers) -> None:
        self.file = folder / "sidecar.yaml"
        self.state = folder / "state"
        self.workers = workers
        self.activated: list[int] = []
        self.configuring: Configuring
        self.journal: Journal
        self._open = False
        self.file.write_text(ONE)

    async def begin(self, boot: BootConfig | None = None) -> Configuring:
        """Start a controller's part anew."""
        await self.end()
        self.journal = Journal(self.state, lambda _, __: None, lambda: self.configuring.remembered(), retry_s=0.05)  # noqa: PLW0108  it is made below
        await self.journal.open()
        self._open = True
        source = Source(self.file, {}, {})
        self.configuring = Configuring(source, self.journal, lambda active, _: self.activated.append(active.version))
        rollout = Rollout(self.workers.link, answer_s=0.5)
        self.workers.on_ack, self.workers.on_lost = rollout.take, rollout.lost
        self.configuring.serve(rollout)
        await self.configuring.begin(boot)
        return self.configuring

    async def end(self) -> None:
        if self._open:
            self._open = False
            await self.journal.close()

    async def apply(self, text: str, *, confirm_within_s: float | None = None, if_match: int = 0) -> dict[str, Any]:
        """Apply *text* over the active version."""
        return await self.configuring.apply(
            text, author="ops", reason="a test", if_match=if_match or self.configuring.active.version, dry_run=False,
            confirm_within_s=confirm_within_s,
        )  # fmt: skip

    def history(self) -> list[tuple[int, str, str]]:
        """Return number, source and state of every version, the oldest first."""
        return [(row.version, row.source, row.state) for row in reversed(self.configuring.versions())]

    async def stored(self) -> list[tuple[int, str, str]]:
        """Return the same of the store."""
        rows = await self.journal.read(lambda store: store.versions(limit=100))
        return [(row["version"], row["source"], row["state"]) for row in reversed(rows)]


@contextlib.asynccontextmanager
async def fresh_setting() -> AsyncIterator[Setting]:
    """Make a fresh state directory, and no worker yet."""
    with tempfile.TemporaryDirectory(prefix="sc-cfg-") as folder:
        async with linked() as workers:
            made = Setting(Path(folder), workers)
            yield made
            await made.end()


@contextlib.contextmanager
def locked(state: Path) -> Iterator[None]:
    """Hold the database against writers, as an open sqlite3 shell does."""
    with contextlib.closing(sqlite3.connect(state / "sidecar.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


async def refused(work: Awaitable[object]) -> tuple[int, str]:
    """Return status and problem of a change that was refused."""
    with pytest.raises(ConfigRefused) as found:
        await work
    return found.value.status, found.value.problem
