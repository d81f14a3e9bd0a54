"""The journal over a real SQLite file: order, numbers, and what happens while the store does not work."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from sidecar.controller.effects import AppendEvent, PutEvidence, PutMark, PutRollup, SetVersionState, Write
from sidecar.controller.journal import MAX_WAITING, Journal
from sidecar.store.errors import StoreError
from sidecar.store.store import Store
from tests.support.patience import WAIT_S


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until *condition* holds."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110  the condition is about another thread
            await asyncio.sleep(0.005)


def event(number: int, author: str = "automation") -> AppendEvent:
    """An event that can be told from others."""
    return AppendEvent(f"test.{number}", 1000.0 + number, author)


class Heard:
    """What was announced."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, str]] = []
        self.failures = 0
        self.fresh: list[Write] = []

    def take(self, sequence: int, told: AppendEvent) -> None:
        self.rows.append((sequence, told.kind))

    def failed(self) -> None:
        self.failures += 1


@pytest.fixture
def heard() -> Heard:
    """What the journal tells."""
    return Heard()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory."""
    return tmp_path / "state"


@pytest.fixture
async def journal(state: Path, heard: Heard) -> AsyncIterator[Journal]:
    """An open journal that tries again after a moment."""
    made = Journal(state, heard.take, lambda: heard.fresh, heard.failed, retry_s=0.05)
    await made.open()
    yield made
    await made.close()


@contextlib.contextmanager
def locked(state: Path) -> Any:
    """Hold the database against writers, as an open sqlite3 shell does."""
    with contextlib.closing(sqlite3.connect(state / "sidecar.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


async def stored(journal: Journal) -> list[tuple[int, str]]:
    """Return the events in the store."""
    rows = await journal.read(lambda store: store.events(limit=1000))
    return [(row["sequence"], row["kind"]) for row in rows]


async def test_events_are_announced_with_the_numbers_that_they_get(journal: Journal, heard: Heard) -> None:
    """
    Every event is announced as it is put, in order, with the sequence under which the store has it later.
    """
    for number in range(20):
        journal.put([event(number), PutMark("n", str(number))])
    assert len(heard.rows) == 20
    await journal.put_now([event(20), event(21)])
    journal.put([event(22)])
    assert heard.rows == await stored(journal)
    assert [kind for _, kind in heard.rows] == [f"test.{number}" for number in range(23)]


async def test_numbers_go_on_after_a_restart(heard: Heard, state: Path) -> None:
    """
    A journal that opens an older store goes on with its numbers.
    """
    for number in range(3):
        journal = Journal(state, heard.take)
        await journal.open()
        journal.put([event(number)])
        assert heard.rows[-1] == (number + 1, f"test.{number}")
        assert heard.rows == await stored(journal)
        await journal.close()


async def test_close_stores_what_waits(state: Path, heard: Heard) -> None:
    """
    What was put before the end is stored by the end.
    """
    journal = Journal(state, heard.take)
    await journal.open()
    journal.put([event(number) for number in range(1200)])
    await journal.close()
    store = Store.open(state)
    assert len(store.events(limit=5000)) == 1200
    assert store.verify()["ok"]
    store.close()


async def test_while_the_store_is_locked_writes_wait_in_order(journal: Journal, heard: Heard, state: Path) -> None:
    """
    A locked store: nothing raises, the failure is told once, `durable` says so; later everything is there, in order.
    """
    await journal.put_now([event(0)])
    with locked(state):
        journal.put([event(1)])
        await until(lambda: journal.problem)
        journal.put([event(2)])
        assert (journal.durable, journal.waiting, heard.failures) == (False, 2, 1)
        assert "locked" in journal.problem
        assert await journal.stored(5.0) is False  # at once: it does not wait for a store that is down
        with pytest.raises(StoreError):
            await journal.put_now([event(9)])
    await until(lambda: not journal.waiting)
    assert journal.durable
    assert await stored(journal) == heard.rows == [(1, "test.0"), (2, "test.1"), (3, "test.2")]


async def test_a_read_that_works_does_not_make_it_durable(journal: Journal, state: Path) -> None:
    """
    On a store that can be read but not written the problem stays until a write works.
    """
    await journal.put_now([event(0)])
    with locked(state):
        journal.put([event(1)])
        await until(lambda: journal.problem)
        assert [kind for _, kind in await stored(journal)] == ["test.0"]
        assert not journal.durable


async def test_what_is_put_during_a_put_now_is_announced_after_it(journal: Journal, heard: Heard, state: Path) -> None:
    """
    Events that are put while a put_now is under way come after it when it works, and take its number when it fails.
    """
    working = asyncio.create_task(journal.put_now([event(1)]))
    await asyncio.sleep(0)  # it has begun, and its thread cannot be heard before the next turn
    journal.put([event(2)])
    await working
    assert await stored(journal) == heard.rows == [(1, "test.1"), (2, "test.2")]

    with locked(state):
        failing = asyncio.create_task(journal.put_now([event(3)]))
        await asyncio.sleep(0)
        journal.put([event(4)])
        with pytest.raises(StoreError):
            await failing
    await until(lambda: not journal.waiting)
    assert await stored(journal) == heard.rows == [(1, "test.1"), (2, "test.2"), (3, "test.4")]


async def test_a_write_that_is_refused_for_good_holds_up_nobody(journal: Journal, heard: Heard) -> None:
    """
    A write that contradicts the store is dropped and counted; its neighbours are stored, the numbers stay true.
    """
    journal.put([PutEvidence(1, {"a": 1})])
    journal.put([event(1), PutEvidence(1, {"b": 2}), event(2), SetVersionState(99, "active")])
    journal.put([event(3)])
    assert heard.rows == await stored(journal)
    assert (journal.dropped, journal.durable, heard.failures) == (2, True, 0)


async def test_stored_waits_for_the_store(journal: Journal) -> None:
    """
    `stored` answers True once everything that was put is in the file.
    """
    journal.put([event(number) for number in range(100)])
    assert journal.waiting
    assert await journal.stored(WAIT_S) is True
    assert journal.waiting == 0


async def test_a_store_that_is_down_for_long_drops_aggregates_first(
    journal: Journal, heard: Heard, state: Path
) -> None:
    """
    The queue is bounded: rollups go first, then the oldest; what is dropped is counted, and the numbers are set right.
    """
    await journal.put_now([event(0)])
    with locked(state):
        journal.put([event(1)])
        await until(lambda: journal.problem)
        journal.put([PutRollup("r", minute, {}) for minute in range(MAX_WAITING)])
        assert (journal.waiting <= MAX_WAITING, journal.dropped) == (True, MAX_WAITING)
        journal.put([event(2)])
    await until(lambda: not journal.waiting)
    assert [kind for _, kind in await stored(journal)] == ["test.0", "test.1", "test.2"]
    journal.put([event(3)])
    assert (await stored(journal))[-1] == heard.rows[-1] == (4, "test.3")


async def test_a_damaged_file_is_replaced_by_what_is_in_force(journal: Journal, heard: Heard, state: Path) -> None:
    """
    A file that turns out damaged is set aside; what is in force comes first into the new one, then what waits.
    """
    await journal.put_now([event(0), PutMark("old", "1")])
    heard.fresh = [PutMark("in force", "1")]
    file = state / "sidecar.db"
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("INSERT OR REPLACE INTO marks VALUES ('seen', 'anew')")
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with file.open("r+b") as pages:
        pages.seek(4096)
        pages.write(b"\xff" * (file.stat().st_size - 4096))
    journal.put([event(1)])
    await until(lambda: journal.set_aside and not journal.waiting)
    assert journal.durable
    assert await journal.read(lambda store: store.marks()) == {"in force": "1"}
    assert await stored(journal) == [(1, "test.1")]
    journal.put([event(2)])
    assert heard.rows[-1] == (await stored(journal))[-1] == (2, "test.2")


async def test_a_state_that_cannot_be_opened_waits(tmp_path: Path, heard: Heard) -> None:
    """
    Without a usable directory the journal opens all the same, says why, and keeps what it is given until there is one.
    """
    (tmp_path / "state").write_text("a file is in the way")
    journal = Journal(tmp_path / "state", heard.take, on_failure=heard.failed, retry_s=0.05)
    await journal.open()
    assert (journal.durable, heard.failures) == (False, 1)
    journal.put([event(1)])
    with pytest.raises(StoreError):
        await journal.read(lambda store: store.marks())
    (tmp_path / "state").unlink()
    await until(lambda: not journal.waiting)
    assert journal.durable
    assert await stored(journal) == heard.rows == [(1, "test.1")]
    await journal.close()
