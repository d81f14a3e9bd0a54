"""How the store fails: one exception, its cause in one word, the remedy in its message."""

from __future__ import annotations

import os
import sqlite3
from enum import StrEnum
from pathlib import Path
from typing import Final


class Cause(StrEnum):
    """Why a store call failed; only `refused` and `newer` will fail again when they are repeated."""

    FULL = "full"
    LOCKED = "locked"
    CORRUPT = "corrupt"
    UNWRITABLE = "unwritable"
    IO = "io"
    REFUSED = "refused"  # what was to be written contradicts what is stored: a fault of the caller
    NEWER = "newer"  # a newer release wrote this store


class StoreError(Exception):
    """
    The store did not do it, and nothing of it was done.

    Attributes:
        cause: One word, for metrics and for deciding whether to try again.
        problem: What happened and where.
        hint: What to do about it.
    """

    def __init__(self, cause: Cause, problem: str, hint: str) -> None:
        super().__init__(f"{problem}: {hint}")
        self.cause = cause
        self.problem = problem
        self.hint = hint

    @property
    def retryable(self) -> bool:
        """Tell whether the same call may succeed later."""
        return self.cause not in {Cause.REFUSED, Cause.NEWER}


_BY_CODE: Final = {
    sqlite3.SQLITE_FULL: Cause.FULL,
    sqlite3.SQLITE_BUSY: Cause.LOCKED,
    sqlite3.SQLITE_LOCKED: Cause.LOCKED,
    sqlite3.SQLITE_CORRUPT: Cause.CORRUPT,
    sqlite3.SQLITE_NOTADB: Cause.CORRUPT,
    sqlite3.SQLITE_READONLY: Cause.UNWRITABLE,
    sqlite3.SQLITE_CANTOPEN: Cause.UNWRITABLE,
    sqlite3.SQLITE_PERM: Cause.UNWRITABLE,
    sqlite3.SQLITE_AUTH: Cause.UNWRITABLE,
    sqlite3.SQLITE_CONSTRAINT: Cause.REFUSED,
    sqlite3.SQLITE_MISMATCH: Cause.REFUSED,
}
_HINTS: Final = {
    Cause.FULL: "free some space; the store goes on by itself",
    Cause.LOCKED: "end the other process that holds it, such as an open sqlite3 shell",
    Cause.CORRUPT: "it will be set aside and a new one begun",
    Cause.UNWRITABLE: "make the directory and the file writable for the user that runs the sidecar",
    Cause.IO: "look at the disk and at the kernel's log",
    Cause.REFUSED: "this is a fault of the sidecar; report it",
}
_ENOUGH_BYTES: Final = 128 * 1024  # below this SQLite cannot grow its shared memory and says "I/O error"


def explained(error: sqlite3.Error, path: Path) -> StoreError:
    """Return the StoreError that *error* on the file *path* means."""
    # Extended codes carry the primary one in their low byte: https://sqlite.org/rescode.html
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_IOERR) & 0xFF
    cause = _BY_CODE.get(code, Cause.IO)
    if cause is Cause.IO and _free_bytes(path) < _ENOUGH_BYTES:
        cause = Cause.FULL
    return StoreError(cause, f"{path}: {error}", _HINTS[cause])


def unwritable(error: OSError, path: Path) -> StoreError:
    """Return the StoreError that an error of the file system at *path* means."""
    cause = Cause.FULL if _free_bytes(path) < _ENOUGH_BYTES else Cause.UNWRITABLE
    return StoreError(cause, f"{path}: {error.strerror or error}", _HINTS[cause])


def _free_bytes(path: Path) -> int:
    try:
        found = os.statvfs(path if path.is_dir() else path.parent)
    except OSError:
        return _ENOUGH_BYTES
    return found.f_bavail * found.f_frsize
