"""What runs after a start: the file, or the version that ran before; over a real SQLite file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.config.load import text_hash
from sidecar.config.mask import mask
from sidecar.link.runtime import BootConfig
from tests.support.history import ONE, THREE, TWO, Setting, fresh_setting, refused


@pytest.fixture
async def setting() -> AsyncIterator[Setting]:
    """A fresh state directory and no worker yet."""
    async with fresh_setting() as made:
        yield made


async def test_the_first_start_makes_version_1_of_the_file(setting: Setting) -> None:
    """
    Without a history the file's text is version 1, stored as it was written.
    """
    configuring = await setting.begin()
    assert (configuring.active.version, configuring.active.row.text) == (1, ONE)
    assert setting.history() == await setting.stored() == [(1, "file", "active")]
    assert (configuring.diverged, configuring.pending, list(configuring.begun_with)) == (False, None, [])


async def test_the_text_is_kept_byte_for_byte(setting: Setting) -> None:
    """
    Line ends, tabs in comments and letters of any kind are stored as written.
    """
    text = ONE.replace("\n", "\r\n") + "# \t ü €\r\n"
    setting.file.write_bytes(text.encode())
    configuring = await setting.begin()
    assert (configuring.active.row.text, configuring.active.row.hash) == (text, text_hash(text))


async def test_a_restart_with_the_same_file_changes_nothing(setting: Setting) -> None:
    """
    The same file makes no version, however often it starts.
    """
    for _ in range(3):
        await setting.begin()
    assert setting.history() == [(1, "file", "active")]


async def test_a_restart_undoes_no_rollback(setting: Setting) -> None:
    """
    A rolled-back version runs on after a restart as long as the file is the same; `diverged` says so.
    """
    await setting.begin()
    setting.file.write_text(TWO)
    await setting.begin()
    await setting.configuring.rollback(None, author="ops", reason="3 a.m.")
    configuring = await setting.begin()
    assert (configuring.active.row.text, configuring.diverged) == (ONE, True)
    assert setting.history() == [(1, "file", "superseded"), (2, "file", "superseded"), (3, "rollback", "active")]


async def test_a_changed_file_is_a_new_version_with_its_changes(setting: Setting) -> None:
    """
    A start with another text makes a version of it and tells what differs from what ran.
    """
    await setting.begin()
    setting.file.write_text(TWO)
    configuring = await setting.begin()
    assert [(c.path, c.new) for c in configuring.begun_with] == [("service.limit.rate", "2/s")]
    assert configuring.active.row.changes[0]["path"] == "service.limit.rate"
    assert await setting.stored() == [(1, "file", "superseded"), (2, "file", "active")]


@pytest.mark.parametrize("spoil", [lambda file: file.write_text("nonsense: 1"), Path.unlink], ids=["invalid", "gone"])
async def test_a_spoilt_file_does_not_stop_a_restart(setting: Setting, spoil: Callable[[Path], object]) -> None:
    """
    With a file that is invalid or gone the version that ran runs on, with the admin section of the last good file.
    """
    token = f"admin: {{tokens: [{{name: ops, role: admin, sha256: {'0' * 64}}}]}}\n"
    setting.file.write_text(ONE + token)
    await setting.begin()
    await setting.apply(TWO)
    spoil(setting.file)
    configuring = await setting.begin()
    assert (configuring.active.version, configuring.active.row.text) == (2, TWO)
    assert (configuring.diverged, configuring.last_apply_ok) == (True, False)
    assert [token.name for token in configuring.admin.tokens] == ["ops"]


async def test_no_file_and_no_history_is_no_start(setting: Setting) -> None:
    """
    When nothing can run the start fails with the file's own error.
    """
    setting.file.unlink()
    with pytest.raises(FileNotFoundError):
        await setting.begin()


async def test_a_stored_text_that_no_longer_loads_gives_way_to_the_file(setting: Setting) -> None:
    """
    When another release wrote what ran, the file runs as a new version.
    """
    await setting.begin()
    row = replace(setting.configuring.active.row, version=2, text="of: another release", source="api")
    await setting.journal.put_now([*setting.configuring._versions.superseding(), row])
    configuring = await setting.begin()
    assert (configuring.active.version, configuring.active.row.text) == (3, ONE)


async def test_without_the_store_the_workers_version_runs_on(setting: Setting) -> None:
    """
    When the store cannot be read what the workers boot from runs; the history is read before the next change.
    """
    await setting.begin()
    await setting.apply(TWO)
    await setting.end()
    (setting.state / "sidecar.db").rename(setting.state / "kept")
    (setting.state / "sidecar.db").mkdir()
    configuring = await setting.begin(BootConfig(2, TWO, text_hash(TWO), file_hash=text_hash(ONE)))
    assert (configuring.active.version, configuring.active.row.text, configuring.diverged) == (2, TWO, True)
    assert (await refused(setting.apply(THREE)))[0] == 503
    (setting.state / "sidecar.db").rmdir()
    (setting.state / "kept").rename(setting.state / "sidecar.db")
    await setting.apply(THREE)
    assert await setting.stored() == [(1, "file", "superseded"), (2, "api", "superseded"), (3, "api", "active")]


async def test_without_the_store_a_changed_file_runs_and_finds_its_place_later(setting: Setting) -> None:
    """
    When the store cannot be read and the file has changed, the file runs; its number is found when the store is back.
    """
    await setting.begin()
    await setting.apply(TWO)
    await setting.apply(TWO)
    await setting.end()
    (setting.state / "sidecar.db").rename(setting.state / "kept")
    (setting.state / "sidecar.db").mkdir()
    setting.file.write_text(THREE)
    configuring = await setting.begin(BootConfig(2, TWO, text_hash(TWO), file_hash=text_hash(ONE)))
    assert (configuring.active.version, configuring.active.row.text) == (3, THREE)
    (setting.state / "sidecar.db").rmdir()
    (setting.state / "kept").rename(setting.state / "sidecar.db")
    await configuring.rollback(1, author="ops", reason="a test")
    history = [(1, "file"), (2, "api"), (3, "api"), (4, "file"), (5, "rollback")]
    assert [row[:2] for row in await setting.stored()] == history


async def test_a_file_with_hidden_hashes_locks_nobody_out(setting: Setting) -> None:
    """
    What `config show` printed has no hashes: as the file it is refused, at a start and when it is read again, and what
    ran before runs on with its tokens.
    """
    with_token = ONE + 'admin: {tokens: [{name: ops, role: admin, sha256: "' + "a" * 64 + '"}]}\n'
    setting.file.write_text(with_token)
    configuring = await setting.begin()
    setting.file.write_text(mask(with_token) + "# shown\n")
    await configuring.reload("SIGHUP")
    assert (configuring.active.version, configuring.last_apply_ok) == (1, False)
    await setting.end()
    configuring = await setting.begin()
    assert [token.sha256 for token in configuring.admin.tokens] == ["a" * 64]
