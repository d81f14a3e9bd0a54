"""
The database file: opened, checked, migrated, and set aside when it is damaged.

SQLite in WAL mode with one writer. `synchronous` is chosen for each transaction by `writes.py`. The file is 0600;
SQLite gives its -wal and -shm the same mode.

What can go wrong: the file is no database, or `quick_check` finds damage: it is renamed to
`sidecar.db.corrupt-<UTC>`, with its -wal and -shm so that it can still be looked into, and a new one begins. A newer
release wrote it: refused, nothing is touched.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from sidecar import clock
from sidecar.store.errors import Cause, StoreError, explained, unwritable
from sidecar.store.schema import MIGRATIONS

DATABASE: Final = "sidecar.db"
_MAGIC: Final = b"SQLite format 3\0"
BUSY_S: Final = 2.0
# quick_check reads the whole file; a larger one is only checked after SQLite itself called it corrupt, so that a new
# controller is there within two seconds.
CHECK_AT_OPEN_BYTES: Final = 128 * 1024 * 1024
_SETTINGS: Final = (
    "PRAGMA auto_vacuum=INCREMENTAL",  # before the first table: retention gives its pages back
    "PRAGMA journal_mode=WAL",
    "PRAGMA journal_size_limit=8388608",
    "PRAGMA trusted_schema=OFF",
)


def open_database(state: Path, *, suspect: bool) -> tuple[sqlite3.Connection, Path | None]:
    """
    Return a connection to the migrated database in *state*, and where a damaged one was set aside, or None.

    Args:
        state: The state directory; made (0700) when it is missing.
        suspect: Check the whole file, however large.

    Raises:
        StoreError: when neither the old nor a new one can be opened.
    """
    path = state / DATABASE
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise unwritable(error, path) from error
    try:
        _refuse_foreign(path)
        return _ready(path, suspect=suspect), None
    except StoreError as error:
        if error.cause is not Cause.CORRUPT:
            raise
    aside = _set_aside(path)
    return _ready(path, suspect=False), aside


def open_for_reading(state: Path) -> tuple[sqlite3.Connection, bool] | None:
    """
    Return a connection that can read a database that cannot be opened to write (disk full, no right); None without one.

    WAL mode needs room for its shared memory even to read. A database that was closed in order has no WAL, and may be
    read as it stands. One that was not is read with the WAL's index in our own memory, which takes the whole file for
    us (https://sqlite.org/wal.html#use_of_wal_without_shared_memory): the second value says so, and nobody can open it
    until that connection is closed.
    """
    path = state / DATABASE
    wal = path.with_name(path.name + "-wal")
    connection: sqlite3.Connection | None = None
    try:
        alone = wal.exists() and wal.stat().st_size > 0
        connection = connect(path, mode="rw" if alone else "ro&immutable=1")
        if alone:
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("SELECT count(*) FROM seals").fetchone()
    except (OSError, sqlite3.Error):
        if connection is not None:
            connection.close()
        return None
    return connection, alone


def connect(path: Path, *, mode: str = "rw") -> sqlite3.Connection:
    """Return a bare connection in autocommit; transactions are begun by hand."""
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_S,
        isolation_level=None,
        check_same_thread=False,
    )


def _refuse_foreign(path: Path) -> None:
    """Look before SQLite does: it would delete the WAL of a file that has lost its first page."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_MAGIC) + 2)
        size, wal = path.stat().st_size, path.with_name(path.name + "-wal")
        left_alone = not size and wal.exists() and wal.stat().st_size
    except OSError as error:
        raise unwritable(error, path) from error
    page_bytes = (
        int.from_bytes(start[len(_MAGIC) :], "big") or 1
    )  # 1 stands for 65,536: https://sqlite.org/fileformat.html
    if left_alone or (size and (not start.startswith(_MAGIC) or size < page_bytes)):
        raise StoreError(Cause.CORRUPT, f"{path}: no SQLite database", "it will be set aside and a new one begun")


def _ready(path: Path, *, suspect: bool) -> sqlite3.Connection:
    connection: sqlite3.Connection | None = None
    try:
        connection = connect(path)
        for setting in _SETTINGS:
            connection.execute(setting)
        if suspect or path.stat().st_size <= CHECK_AT_OPEN_BYTES:
            _check(connection, path)
        _migrate(connection, path)
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        raise explained(error, path) from error
    except BaseException:
        if connection is not None:
            connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> None:
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise StoreError(Cause.CORRUPT, f"{path}: {verdict}", "it will be set aside and a new one begun")


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found > len(MIGRATIONS):
        raise StoreError(
            Cause.NEWER,
            f"{path}: written by a newer release (schema {found}, this one knows {len(MIGRATIONS)})",
            "run that release again, or move the file aside to begin anew",
        )
    for number, step in enumerate(MIGRATIONS[found:], start=found + 1):
        connection.execute("BEGIN IMMEDIATE")
        for statement in step:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version={number}")
        connection.execute("COMMIT")


def _set_aside(path: Path) -> Path:
    stamp = clock.wall().strftime("%Y%m%dT%H%M%S.%fZ")
    aside = path.with_name(f"{path.name}.corrupt-{stamp}")
    try:
        for ending in ("-wal", "-shm", ""):  # the file itself last: a half-done renaming is done again
            part = path.with_name(path.name + ending)
            if part.exists():
                part.rename(aside.with_name(aside.name + ending))
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise unwritable(error, path) from error
    return aside
