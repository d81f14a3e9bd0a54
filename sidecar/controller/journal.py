"""
What the controller remembers: writes wait here until the store has them, and reads come from it.

Theory
    Containment never waits for the disk. `put` returns at once; one thread, the store's only writer, takes what waits
    in order, in batches of one transaction. While the store refuses (full, locked, unwritable) the writes stay here
    and `durable` is False; the next attempt comes by itself. Only `put_now` waits, and fails with the store.

    The live stream does not wait for the disk either: events are stored in the order in which they are put, so the
    number that the store will give is known when one is put. Where that turns out wrong (a write was dropped, a
    damaged file was set aside) the next batch's numbers set it right. While a `put_now` is under way nobody knows
    whether its events will count, so what is put meanwhile is announced after it.

What can go wrong
    A store that is down for long: at `MAX_WAITING` the aggregates (rollups, baselines) are dropped first, then the
    oldest writes; both are counted. The store opens itself anew with every attempt. A write that the store refuses for
    good is dropped, counted and logged, so that it does not hold up the others. A read that works says nothing about
    writing: on a full disk only a stored batch makes the journal durable again. The file is found damaged while we
    run: it is set aside, and what is in force (`on_fresh`) is stored into the new one before anything else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from sidecar.controller.effects import AppendEvent, PutBaseline, PutRollup, PutSeconds, Write
from sidecar.store.errors import Cause, StoreError
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
        on_event: Told of every event as it is put, with the sequence that the store will give it.
        on_fresh: Returns all that a new file must hold, after a damaged one was set aside.
        on_failure: Told when the store no longer takes what it is given.
        retry_s: The pace of attempts while the store is down.

    Attributes:
        problem: Why the store does not take what it is given; empty while it does.
        dropped: Writes that were given up.
    """

    def __init__(
        self,
        state: Path,
        on_event: Callable[[int, AppendEvent], None],
        on_fresh: Callable[[], Iterable[Write]] = tuple,
        on_failure: Callable[[], None] = lambda: None,
        *,
        retry_s: float = RETRY_S,
    ) -> None:
        self._state = state
        self._on_event = on_event
        self._on_fresh = on_fresh
        self._on_failure = on_failure
        self._retry_s = retry_s
        self._store = Store(state)
        self._damaged = False
        self._waiting: deque[Write] = deque()
        self._leaving = 0  # writes that the store is being given at this moment
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._turn = asyncio.Lock()  # one batch at a time: a failed one goes back to the front before the next leaves
        self._log = structlog.get_logger("store")
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._last_sequence = 0  # of the last event that was announced
        self._unstored = 0  # events that were announced and are not stored yet
        self._held: list[AppendEvent] | None = None  # put while a `put_now` is under way
        self.problem = ""
        self.dropped = 0

    def __repr__(self) -> str:
        return f"<Journal {self._state}, {self.waiting} waiting{', ' + self.problem if self.problem else ''}>"

    @property
    def durable(self) -> bool:
        """Tell whether the store takes what it is given."""
        return not self.problem

    @property
    def waiting(self) -> int:
        """Count the writes that are in force but not stored yet."""
        return len(self._waiting) + self._leaving

    @property
    def set_aside(self) -> str:
        """Return the name of a corrupt file that was set aside at the start; empty when there was none."""
        return str(self._store.set_aside or "")

    async def open(self) -> None:
        """Open the store, or note why not, and start to write."""
        try:
            self._last_sequence = await self._in_thread(_last_sequence)
        except StoreError as error:
            self._fail(error)
        self._task = asyncio.create_task(self._write_on())

    def put(self, writes: Iterable[Write]) -> None:
        """Queue *writes*; they are in force already."""
        for write in writes:
            self._waiting.append(write)
            if isinstance(write, AppendEvent):
                self._announce(write)
        if len(self._waiting) > MAX_WAITING:
            self._shed()
        self._settled.clear()
        self._wake.set()

    async def put_now(self, writes: Sequence[Write]) -> None:
        """
        Store *writes*, after everything that waits.

        Raises:
            StoreError: when they could not be stored; then nothing of *writes* is kept.
        """
        async with self._turn:
            await self._drain()
            self._held = []
            try:
                rows = await self._write(writes)
                self._publish_stored(rows, [write for write in writes if isinstance(write, AppendEvent)])
            finally:
                held, self._held = self._held, None
                for event in held:
                    self._announce(event)

    async def stored(self, within_s: float) -> bool:
        """Tell whether everything that was put is stored; wait for it at most *within_s*, and not while the store is down."""
        if self.waiting and self.durable:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._settled.wait()
        return not self.waiting

    async def read(self, ask: Callable[[Store], _T]) -> _T:
        """
        Return what *ask* reads, after everything that waits was stored if that is possible.

        Raises:
            StoreError: when the store cannot be read.
        """
        if self.waiting and self.durable:
            with contextlib.suppress(StoreError):
                async with self._turn:
                    await self._drain()
        return await self._in_thread(ask)

    async def close(self) -> None:
        """Store what waits, if the store lets us, and close it."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task
        with contextlib.suppress(StoreError):
            async with self._turn:
                await self._drain()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._store.close)
        self._thread.shutdown()

    # --- writing ----------------------------------------------------------------------------------------------

    async def _write_on(self) -> None:
        while not self._closing:
            await self._wake.wait()
            self._wake.clear()
            try:
                async with self._turn:
                    await self._drain()
                self._settled.set()
            except StoreError:
                await self._pause()
                self._wake.set()

    async def _pause(self) -> None:
        """Keep the pace of attempts: new writes must not hurry it, only the end does."""
        deadline = asyncio.get_running_loop().time() + self._retry_s
        while not self._closing and (left_s := deadline - asyncio.get_running_loop().time()) > 0:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), left_s)

    async def _drain(self) -> None:
        """Store everything that waits; the caller holds the turn."""
        if self._damaged:
            before = self._store.set_aside
            await self._in_thread(_last_sequence)  # opens it, and sets it aside when it is damaged indeed
            self._damaged = False
            if self._store.set_aside != before:
                self._log.error("the database was damaged and set aside", file=self.set_aside)
                self._waiting.extendleft(reversed([w for w in self._on_fresh() if not isinstance(w, AppendEvent)]))
        while self._waiting:
            await self._write_batch()

    async def _write_batch(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
        self._leaving = len(batch)
        try:
            self._take_stored(await self._write(batch), batch)
        except StoreError as error:
            if error.retryable or error.cause is Cause.NEWER:
                self._waiting.extendleft(reversed(batch))
                raise
            await self._write_singly(batch)
        finally:
            self._leaving = 0

    async def _write_singly(self, batch: Sequence[Write]) -> None:
        """Store what can be stored of a batch that the store refuses: one bad write must not block all others."""
        for number, write in enumerate(batch):
            try:
                self._take_stored(await self._write([write]), [write])
            except StoreError as error:
                if error.retryable:
                    self._waiting.extendleft(reversed(batch[number:]))
                    raise
                self._drop([write])
                self._log.error(
                    "the store refuses a write; it is dropped", write=type(write).__name__, problem=str(error)
                )

    async def _write(self, writes: Sequence[Write]) -> list[dict[str, Any]]:
        try:
            rows = await self._in_thread(lambda store: store.write(writes))
        except StoreError as error:
            if error.cause is not Cause.REFUSED:
                self._fail(error)
            raise
        if self.problem:
            self._log.info("the store works again", waiting=self.waiting)
            self.problem = ""
        return rows

    async def _in_thread(self, work: Callable[[Store], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, self._store)
        except OSError as error:  # beside the database: the install key, the directory itself
            raise StoreError(Cause.IO, f"{self._state}: {error.strerror or error}", "look at the disk") from error

    def _fail(self, error: StoreError) -> None:
        self._damaged = self._damaged or error.cause is Cause.CORRUPT
        if not self.problem:
            self._log.error("the store does not work; what happens is in force and waits", problem=str(error))
            self._on_failure()
        self.problem = str(error)

    def _shed(self) -> None:
        kept = [write for write in self._waiting if not isinstance(write, PutRollup | PutBaseline | PutSeconds)]
        kept = kept[-MAX_WAITING // 2 :]
        known = set(map(id, kept))
        self._drop([write for write in self._waiting if id(write) not in known])
        self._waiting = deque(kept)

    def _drop(self, writes: Sequence[Write]) -> None:
        self.dropped += len(writes)
        self._unstored -= sum(isinstance(write, AppendEvent) for write in writes)

    # --- events -----------------------------------------------------------------------------------------------

    def _announce(self, event: AppendEvent) -> None:
        if self._held is not None:
            self._held.append(event)
            return
        self._last_sequence += 1
        self._unstored += 1
        self._on_event(self._last_sequence, event)

    def _take_stored(self, rows: Sequence[dict[str, Any]], batch: Sequence[Write]) -> None:
        self._unstored -= sum(isinstance(write, AppendEvent) for write in batch)
        if rows:
            self._last_sequence = rows[-1]["sequence"] + self._unstored

    def _publish_stored(self, rows: Sequence[dict[str, Any]], events: Sequence[AppendEvent]) -> None:
        for row, event in zip(rows, events, strict=True):
            self._last_sequence = row["sequence"]
            self._on_event(row["sequence"], event)


def _last_sequence(store: Store) -> int:
    newest = store.events(limit=1, newest_first=True)
    return int(newest[0]["sequence"]) if newest else 0
