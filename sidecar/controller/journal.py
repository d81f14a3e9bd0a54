"""
What the controller remembers: writes wait here until the store has them, and reads come from it.

Theory
    Containment never waits for the disk. `put` returns at once; one thread, the store's only writer, takes what waits
    in order, in batches of one transaction. While the store refuses (full, locked, unwritable) the writes stay here
    and `durable` is False; the next attempt comes by itself. Only `put_now` waits, and fails with the store.

What can go wrong
    A store that is down for long: at `MAX_WAITING` the aggregates (rollups, baselines) are dropped first, then the
    oldest writes; both are counted. The store opens itself anew with every attempt. A write that the store refuses for
    good is dropped, counted and logged, so that it does not hold up the others.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import structlog

from sidecar.controller.effects import AppendEvent, PutBaseline, PutRollup, Write
from sidecar.store.errors import StoreError
from sidecar.store.store import Store

MAX_WAITING: Final = 50_000
MAX_BATCH: Final = 500
RETRY_S: Final = 1.0
_T = TypeVar("_T")


class Journal:
    """
    The store behind a queue.

    Args:
        state: The state directory.
        on_event: Told of every event as it is put, with the sequence that the store will give it: the live stream
            does not wait for the disk either.
    """

    def __init__(self, state: Path, on_event: Callable[[int, AppendEvent], None]) -> None:
        self._state = state
        self._on_event = on_event
        self._store = Store(state)
        self._waiting: deque[Write] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()  # one batch at a time: a failed one goes back to the front before the next leaves
        self._log = structlog.get_logger("store")
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._last_sequence = 0  # events are stored in the order in which they are put, so the next number is known
        self.problem = ""
        self.dropped = 0

    def __repr__(self) -> str:
        return f"<Journal {self._state}, {len(self._waiting)} waiting{', ' + self.problem if self.problem else ''}>"

    @property
    def durable(self) -> bool:
        """Tell whether the store takes what it is given."""
        return not self.problem

    @property
    def waiting(self) -> int:
        """Count the writes that are in force but not stored yet."""
        return len(self._waiting)

    @property
    def set_aside(self) -> str:
        """Return the name of a corrupt file that was set aside at the start; empty when there was none."""
        return str(self._store.set_aside or "")

    async def open(self) -> None:
        """Open the store, or note why not, and start to write."""
        with contextlib.suppress(StoreError):
            self._last_sequence = await self._run(_last_sequence)
        self._task = asyncio.create_task(self._write_on())

    def put(self, writes: Iterable[Write]) -> None:
        """Queue *writes*; they are in force already."""
        for write in writes:
            self._waiting.append(write)
            if isinstance(write, AppendEvent):
                self._last_sequence += 1
                self._on_event(self._last_sequence, write)
        if len(self._waiting) > MAX_WAITING:
            self._shed()
        self._wake.set()

    async def put_now(self, writes: Sequence[Write]) -> None:
        """
        Store *writes*, after everything that waits.

        Raises:
            StoreError: when they could not be stored; then nothing of *writes* is kept.
        """
        while self._waiting:
            await self._write_batch()
        events = [write for write in writes if isinstance(write, AppendEvent)]
        first = self._last_sequence + 1
        self._last_sequence += len(events)
        try:
            await self._run(lambda store: store.write(writes))
        except StoreError:
            self._last_sequence -= len(events)
            raise
        for sequence, event in enumerate(events, first):
            self._on_event(sequence, event)

    async def read(self, ask: Callable[[Store], _T]) -> _T:
        """
        Return what *ask* reads, after everything that waits was stored if that is possible.

        Raises:
            StoreError: when the store cannot be read.
        """
        if self._waiting:
            with contextlib.suppress(StoreError):
                await self._write_batch()
        return await self._run(ask)

    async def close(self) -> None:
        """Store what waits, if the store lets us, and close it."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task
        with contextlib.suppress(StoreError):
            while self._waiting:
                await self._write_batch()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._store.close)
        self._thread.shutdown()

    async def _write_on(self) -> None:
        while not self._closing:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting and not self._closing:
                try:
                    await self._write_batch()
                except StoreError:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._wake.wait(), RETRY_S)
                    if not self._closing:
                        await asyncio.sleep(RETRY_S)  # the pace of attempts; new writes must not hurry it

    async def _write_batch(self) -> None:
        async with self._turn:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
            if not batch:
                return
            try:
                await self._run(lambda store: store.write(batch))
            except StoreError as error:
                if error.retryable:
                    self._waiting.extendleft(reversed(batch))
                    raise
                await self._write_singly(batch)

    async def _write_singly(self, batch: Sequence[Write]) -> None:
        """Store what can be stored of a batch that the store refuses: one bad write must not block all others."""
        for write in batch:
            try:
                await self._run(lambda store, write=write: store.write([write]))  # type: ignore[misc]
            except StoreError as error:
                if error.retryable:
                    self._waiting.append(write)
                    continue
                self.dropped += 1
                self._log.error(
                    "the store refuses a write; it is dropped", write=type(write).__name__, problem=str(error)
                )
                self.problem = ""

    async def _run(self, work: Callable[[Store], _T]) -> _T:
        try:
            done = await asyncio.get_running_loop().run_in_executor(self._thread, work, self._store)
        except StoreError as error:
            if not self.problem:
                self._log.error("the store does not work; what happens is in force and waits", problem=str(error))
            self.problem = str(error)
            raise
        if self.problem:
            self._log.info("the store works again", stored=len(self._waiting))
        self.problem = ""
        return done

    def _shed(self) -> None:
        before = len(self._waiting)
        kept = [write for write in self._waiting if not isinstance(write, PutRollup | PutBaseline)]
        self._waiting = deque(kept[-MAX_WAITING // 2 :])
        self.dropped += before - len(self._waiting)


def _last_sequence(store: Store) -> int:
    newest = store.events(limit=1, newest_first=True)
    return int(newest[0]["sequence"]) if newest else 0
