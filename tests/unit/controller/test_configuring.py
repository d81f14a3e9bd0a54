"""Config versions over a real SQLite file and workers on a real link: what runs, what is kept, what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from sidecar import clock
from sidecar.config.load import text_hash
from sidecar.controller.effects import PutMark
from sidecar.controller.versions import Pending
from tests.support.history import ONE, THREE, TWO, Setting, fresh_setting, locked, refused
from tests.support.workers import until


@pytest.fixture
async def setting() -> AsyncIterator[Setting]:
    """A fresh state directory and no worker yet."""
    async with fresh_setting() as made:
        yield made


# --- changes


async def test_apply_prepares_stores_and_commits(setting: Setting) -> None:
    """
    An apply is prepared and committed by every worker, stored in between, and answers with all of it.
    """
    await setting.begin()
    everybody = await setting.workers.join(2)
    answer = await setting.apply(TWO)
    assert answer["workers"] == {"acknowledged": 2, "total": 2}
    assert (answer["version"], answer["hash"], answer["state"]) == (2, text_hash(TWO), "active")
    assert [change["path"] for change in answer["changes"]] == ["service.limit.rate"]
    assert [worker.orders for worker in everybody] == [[("Prepare", 2), ("Commit", 2)]] * 2
    assert setting.history() == await setting.stored() == [(1, "file", "superseded"), (2, "api", "active")]
    assert setting.activated == [2]


@pytest.mark.parametrize(("problem", "says"), [("no room", "no room"), (None, "no answer within")])
async def test_a_worker_that_refuses_stops_the_change(setting: Setting, problem: str | None, says: str) -> None:
    """
    One worker that refuses or is silent: the version is failed, nobody commits it, the old one stays.
    """
    await setting.begin()
    everybody = await setting.workers.join(2)
    everybody[1].refuses = {"prepare": problem}
    status, told = await refused(setting.apply(TWO))
    assert (status, says in told, "worker 1" in told) == (503, True, True)
    assert ("Commit", 2) not in [order for worker in everybody for order in worker.orders]
    assert setting.history() == await setting.stored() == [(1, "file", "active"), (2, "api", "failed")]
    assert (setting.configuring.active.version, setting.configuring.last_apply_ok) == (1, False)
    assert (await refused(setting.configuring.rollback(2, author="ops", reason="")))[0] == 409
    everybody[1].refuses = {}
    assert (await setting.apply(TWO))["version"] == 3
    assert setting.configuring.last_apply_ok


async def test_a_worker_that_is_late_to_commit_is_brought_to_it(setting: Setting) -> None:
    """
    What is stored is the truth: a worker that does not acknowledge the commit is told again, and the answer says so.
    """
    await setting.begin()
    everybody = await setting.workers.join(2)
    everybody[0].refuses = {"commit": None}
    answer = await setting.apply(TWO)
    assert answer["workers"] == {"acknowledged": 1, "total": 2}
    await until(lambda: everybody[0].orders.count(("Commit", 2)) == 2)


async def test_a_worker_that_joins_in_between_is_brought_to_it(setting: Setting) -> None:
    """
    A worker that connects after the prepare gets the version with the commit of the others.
    """
    await setting.begin()
    (first,) = await setting.workers.join(1)
    first.refuses = {"prepare": None}
    applying = asyncio.create_task(setting.apply(TWO))
    await until(lambda: first.orders)
    _, second = await setting.workers.join(1)
    first.say("prepare", 2)
    assert (await applying)["workers"] == {"acknowledged": 1, "total": 2}
    await until(lambda: second.orders == [("Prepare", 2), ("Commit", 2)])


async def test_a_change_that_is_not_allowed_changes_nothing(setting: Setting) -> None:
    """
    A stale version, a pending one, an invalid text and a static key are refused, and no worker hears of it.
    """
    await setting.begin()
    (worker,) = await setting.workers.join(1)
    assert (await refused(setting.apply(TWO, if_match=9)))[0] == 412
    assert (await refused(setting.apply("nonsense: 1\nmode: x")))[0] == 422
    assert (await refused(setting.apply(ONE + "workers: 3")))[0] == 422
    assert (await refused(setting.configuring.confirm("ops")))[0] == 409
    assert (await refused(setting.configuring.rollback(7, author="ops", reason="")))[0] == 404
    assert (await refused(setting.configuring.rollback(None, author="ops", reason="")))[0] == 409
    assert (worker.orders, setting.history()) == ([], [(1, "file", "active")])
    await setting.apply(TWO, confirm_within_s=60.0)
    assert (await refused(setting.apply(THREE)))[0] == 409


async def test_a_store_that_is_down_refuses_an_apply(setting: Setting) -> None:
    """
    A locked store: the apply is 503 with the cause, no worker commits, and the same number is free afterwards.
    """
    await setting.begin()
    (worker,) = await setting.workers.join(1)
    await setting.journal.stored(5.0)
    with locked(setting.state):
        status, told = await refused(setting.apply(TWO))
    assert (status, "locked" in told) == (503, True)
    assert worker.orders == [("Prepare", 2)]
    assert (await setting.apply(TWO))["version"] == 2


async def test_rollback_is_a_new_version_with_the_old_text(setting: Setting) -> None:
    """
    A rollback appends; the text and the hash are those of the old version, without a number it is the one before.
    """
    await setting.begin()
    await setting.apply(TWO)
    await setting.apply(THREE)
    answer = await setting.configuring.rollback(None, author="ops", reason="")
    assert (answer["version"], answer["hash"]) == (4, text_hash(TWO))
    assert setting.configuring.active.row.reason == "rollback to 2"
    answer = await setting.configuring.rollback(1, author="ops", reason="all of it")
    assert (answer["version"], answer["hash"], setting.configuring.diverged) == (5, text_hash(ONE), False)


# --- confirmations


async def test_confirming_keeps_a_version(setting: Setting) -> None:
    """
    A confirmed version is active, also after a restart, and nothing waits any more.
    """
    await setting.begin()
    answer = await setting.apply(TWO, confirm_within_s=60.0)
    assert (answer["state"], answer["confirm_by_time"] is not None) == ("confirming", True)
    assert (await setting.configuring.confirm("ops"))["state"] == "active"
    configuring = await setting.begin()
    assert (configuring.pending, configuring.active.row.state) == (None, "active")
    assert await setting.stored() == [(1, "file", "superseded"), (2, "api", "active")]


async def test_a_revert_happens_once(setting: Setting) -> None:
    """
    Two reverts of one version make one rollback; the version that was not confirmed is `reverted`.
    """
    await setting.begin()
    await setting.apply(TWO, confirm_within_s=60.0)
    await asyncio.gather(*(setting.configuring.revert("worse") for _ in range(3)))
    expected = [(1, "file", "superseded"), (2, "api", "reverted"), (3, "rollback", "active")]
    assert setting.history() == await setting.stored() == expected
    assert (setting.configuring.active.row.author, setting.configuring.active.row.reason) == ("automation", "worse")


async def test_a_revert_does_not_wait_for_the_store(setting: Setting) -> None:
    """
    While the store is down a version is reverted all the same, and stored when it is back.
    """
    await setting.begin()
    (worker,) = await setting.workers.join(1)
    await setting.apply(TWO, confirm_within_s=60.0)
    with locked(setting.state):
        await setting.configuring.revert("worse")
        assert (setting.configuring.active.row.text, worker.runs) == (ONE, 3)
        assert not setting.journal.durable
    await until(lambda: not setting.journal.waiting)
    assert (await setting.stored())[-1] == (3, "rollback", "active")


async def test_the_deadline_survives_a_restart(setting: Setting) -> None:
    """
    A new controller keeps what waits: within one boot the monotonic deadline, whatever the wall clock says.
    """
    await setting.begin()
    await setting.apply(TWO, confirm_within_s=60.0)
    pending = setting.configuring.pending
    configuring = await setting.begin()
    assert configuring.pending == pending
    setting.file.write_text(THREE)
    configuring = await setting.begin()  # a changed file ends the waiting
    assert (configuring.pending, configuring.active.row.text) == (None, THREE)
    assert await setting.stored() == [(1, "file", "superseded"), (2, "api", "reverted"), (3, "file", "active")]


def test_a_mark_of_another_boot_counts_by_the_wall_clock() -> None:
    """
    After a reboot monotonic moments mean nothing: what is left by the wall clock is left.
    """
    by_unix = clock.wall().timestamp() + 30.0
    text = Pending(2, 1, by_unix, by_at=1.0).mark().text.replace(clock.boot_id(), "another boot")
    found = Pending.of(text)
    assert found is not None
    assert found.by_at - clock.now() == pytest.approx(30.0, abs=1.0)
    assert [Pending.of(bad) for bad in ("", "null", "{}", "[1]", "no json")] == [None] * 5


# --- the file, read again


async def test_reload_takes_a_changed_file(setting: Setting) -> None:
    """
    After a change it makes a version of the file, with what made us look as its reason; without one it leaves everything
    alone, a rollback too.
    """
    await setting.begin()
    (worker,) = await setting.workers.join(1)
    await setting.configuring.reload("the file has changed")
    assert setting.history() == [(1, "file", "active")]
    setting.file.write_text(TWO)
    await setting.configuring.reload("the file has changed")
    assert (worker.runs, setting.configuring.active.row.text) == (2, TWO)
    assert setting.configuring.active.row.reason == "the file has changed"
    await setting.configuring.rollback(1, author="ops", reason="")
    await setting.configuring.reload("the file has changed")
    assert (setting.configuring.active.version, setting.configuring.diverged) == (3, True)


async def test_applying_the_edited_file_is_taking_it_in(setting: Setting) -> None:
    """
    Edit the file, apply it: nothing has diverged, and neither a reload nor a restart undoes the rollback after it.
    """
    await setting.begin()
    setting.file.write_text(TWO)
    await setting.apply(TWO)
    assert (setting.configuring.diverged, setting.configuring.active.row.source) == (False, "file")
    await setting.configuring.rollback(1, author="ops", reason="")
    await setting.configuring.reload("SIGHUP")
    assert (setting.configuring.active.row.text, setting.configuring.diverged) == (ONE, True)
    configuring = await setting.begin()
    assert (configuring.active.version, configuring.active.row.text, configuring.diverged) == (3, ONE, True)


async def test_writing_the_active_text_back_ends_the_divergence(setting: Setting) -> None:
    """
    Apply first and write the file afterwards, as the status line advises: it is read again before it is said to differ.
    """
    await setting.begin()
    await setting.apply(TWO)
    assert (setting.configuring.diverged, setting.configuring.active.row.source) == (True, "api")
    setting.file.write_text(TWO)
    assert not setting.configuring.diverged
    setting.file.unlink()
    assert setting.configuring.diverged


@pytest.mark.parametrize("spoil", [lambda file: file.write_text("nonsense: 1"), Path.unlink], ids=["invalid", "gone"])
async def test_reload_of_a_spoilt_file_changes_nothing(setting: Setting, spoil: Callable[[Path], object]) -> None:
    """
    A file that cannot be applied leaves everything as it was, and is said; the next good one sets that right.
    """
    await setting.begin()
    spoil(setting.file)
    await setting.configuring.reload("the file has changed")
    assert (setting.history(), setting.configuring.last_apply_ok) == ([(1, "file", "active")], False)
    setting.file.write_text(ONE)
    await setting.configuring.reload("the file has changed")
    assert (setting.history(), setting.configuring.last_apply_ok) == ([(1, "file", "active")], True)


async def test_the_admin_section_comes_from_the_file_alone(setting: Setting) -> None:
    """
    Tokens of an applied or rolled-back text count for nothing; those of the file count from the next SIGHUP.
    """

    def token(name: str) -> str:
        return f"admin: {{tokens: [{{name: {name}, role: admin, sha256: {'0' * 64}}}]}}\n"

    def names() -> list[str]:
        return [each.name for each in setting.configuring.admin.tokens]

    setting.file.write_text(ONE + token("first"))
    await setting.begin()
    await setting.apply(TWO + token("second"))
    assert names() == ["first"]
    setting.file.write_text(ONE + token("third"))
    await setting.configuring.reload("the file has changed")
    assert names() == ["third"]
    await setting.configuring.rollback(1, author="ops", reason="")
    assert names() == ["third"]
    await setting.begin()
    assert names() == ["third"]


async def test_a_new_store_is_given_the_history(setting: Setting) -> None:
    """
    What must be stored anew after a damaged file is every version with its state, and what waits.
    """
    await setting.begin()
    await setting.apply(TWO, confirm_within_s=60.0)
    before, pending = setting.history(), setting.configuring.pending
    await setting.journal.stored(5.0)
    file = setting.state / "sidecar.db"
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("INSERT OR REPLACE INTO marks VALUES ('seen', 'anew')")
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with file.open("r+b") as pages:
        pages.seek(4096)
        pages.write(b"\xff" * (file.stat().st_size - 4096))
    setting.journal.put([PutMark("look", "now")])
    await until(lambda: setting.journal.set_aside and not setting.journal.waiting)
    assert await setting.stored() == before
    assert setting.configuring.pending == pending
    assert (await setting.configuring.confirm("ops"))["state"] == "active"
