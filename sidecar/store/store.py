"""
What survives: config versions, incidents, evidence, events, isolations, overrides, baselines, rollups, marks.

A `Store` is synchronous and may be called from any thread, one call at a time: the controller gives it a thread of
its own. A batch is one transaction: all of it or nothing.

What can go wrong: a call fails with `StoreError` (full, locked, corrupt, unwritable, io). The next call tries again, on
a new connection where the old one may be bad, so the store recovers by itself once the cause is gone. While the file
cannot be opened to write, a database that was closed in order can still be read. After `corrupt` the next call
checks the whole file and, if it is damaged, sets it aside and begins a new one: `set_aside` says where the old one is.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sidecar import clock
from sidecar.controller.effects import Write
from sidecar.store import audit, writes
from sidecar.store import key as keys
from sidecar.store.chain import Row
from sidecar.store.errors import Cause, StoreError, explained
from sidecar.store.file import DATABASE, connect, open_database, open_for_reading

Document = dict[str, Any]
# The connection is as good as before. To open it anew would need room that a full disk does not have.
_HARMLESS: Final = frozenset({Cause.FULL, Cause.LOCKED, Cause.REFUSED})
_Values = Sequence[str | float | None] | Mapping[str, str | float | None]
_BETWEEN: Final = "SELECT * FROM events WHERE sequence > :after AND (:before IS NULL OR sequence < :before)"
_EVENTS: Final = {  # (of every incident, newest first) → query
    (True, False): f"{_BETWEEN} ORDER BY sequence LIMIT :limit",
    (True, True): f"{_BETWEEN} ORDER BY sequence DESC LIMIT :limit",
    (False, False): f"{_BETWEEN} AND incident = :incident ORDER BY sequence LIMIT :limit",
    (False, True): f"{_BETWEEN} AND incident = :incident ORDER BY sequence DESC LIMIT :limit",
}


class Store:
    """
    The store of one state directory. Making one touches nothing; the first call opens it.

    Attributes:
        path: The database file.
        set_aside: Where a damaged file was put since this object was made, or None.
    """

    def __init__(self, state: Path) -> None:
        self.path: Final = state / DATABASE
        self.set_aside: Path | None = None
        self._state = state
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None  # stands in for reads while the file cannot be opened to write
        self._reader_alone = False  # it holds the whole file
        self._key: bytes | None = None
        self._suspect = False

    def __repr__(self) -> str:
        return f"<Store {self.path} {'open' if self._connection else 'not open'}>"

    @classmethod
    def open(cls, state: Path) -> Store:
        """
        Open the store of the state directory *state* now.

        Raises:
            StoreError: when it cannot be used. A process that must start all the same makes `Store(state)` instead and
                repeats its calls.
        """
        store = cls(state)
        with store._session():
            pass
        return store

    def close(self) -> None:
        """Close the file; a later call opens it again."""
        with self._lock:
            self._drop()

    def install_key(self) -> bytes:
        """Return the install key, made at the first call of all (StoreError when it cannot be)."""
        with self._lock:
            return self._loaded_key()

    def client_key(self, header_value: str) -> str:
        """Return `h-` and 16 hex digits: the key that a header's value has on this installation."""
        return keys.client_key(self.install_key(), header_value)

    # --- writing

    def write(self, batch: Sequence[Write]) -> list[Document]:
        """
        Write *batch* in one transaction and return its events, each with its `sequence` and `hash`.

        Raises:
            StoreError: nothing of the batch was written. `refused` will be refused again.
        """
        with self._session() as connection:
            level = "FULL" if writes.must_reach_disk(batch) else "NORMAL"
            connection.execute(f"PRAGMA synchronous={level}")
            with _transaction(connection):
                rows = writes.apply(connection, self._loaded_key(), batch, clock.wall().timestamp())
        return [_event(row) for row in rows]

    def fold(self, older_than_unix: float) -> audit.Folded:
        """
        Let go what is older than *older_than_unix*; one call does a bounded part, so repeat it from time to time.

        Events go into a signed checkpoint of the chain. Rollups go, and what has ended: incidents with their evidence,
        isolations, overrides. Config versions stay.
        """
        with self._session() as connection:
            with _transaction(connection):
                folded = audit.fold(connection, self._loaded_key(), older_than_unix)
            connection.execute("PRAGMA incremental_vacuum(2000)").fetchall()
        return folded

    # --- reading

    def versions(self, *, limit: int = 100, before: int | None = None) -> list[Document]:
        """Return config versions, the newest first, those under *before* only when it is given."""
        return [
            {**row, "changes": _loads(row["changes"])}
            for row in self._rows(
                "SELECT * FROM versions WHERE :before IS NULL OR version < :before ORDER BY version DESC LIMIT :limit",
                {"before": before, "limit": limit},
            )
        ]

    def version(self, number: int) -> Document | None:
        """Return one config version {version, text, hash, author, reason, source, state, unix, changes}."""
        found = self.versions(limit=1, before=number + 1)
        return found[0] if found and found[0]["version"] == number else None

    def active_version(self) -> Document | None:
        """Return the newest version in the state `active` or `confirming`: what runs after a restart."""
        found = self._rows(
            "SELECT version FROM versions WHERE state IN ('active', 'confirming') ORDER BY version DESC LIMIT 1"
        )
        return self.version(found[0]["version"]) if found else None

    def incidents(self, *, states: Collection[str] = (), limit: int = 100, before: int | None = None) -> list[Document]:
        """Return incidents' documents, the newest first: of *states* only, with ids under *before* only, when given."""
        return self._documents(
            "SELECT document FROM incidents WHERE (:states = '[]' OR state IN (SELECT value FROM json_each(:states)))"
            " AND (:before IS NULL OR id < :before) ORDER BY id DESC LIMIT :limit",
            {"states": json.dumps(sorted(states)), "before": before, "limit": limit},
        )

    def incident(self, number: int) -> Document | None:
        """Return one incident's document."""
        return self._document("SELECT document FROM incidents WHERE id = ?", (number,))

    def evidence(self, incident: int) -> Document | None:
        """Return the frozen evidence of an incident."""
        return self._document("SELECT document FROM evidence WHERE incident = ?", (incident,))

    def last_incident_id(self) -> int:
        """Return the highest id that is stored, 0 when there is none."""
        return int(self._rows("SELECT coalesce(max(id), 0) AS id FROM incidents")[0]["id"])

    def events(
        self,
        *,
        after: int = 0,
        before: int | None = None,
        limit: int = 100,
        incident: int | None = None,
        newest_first: bool = False,
    ) -> list[Document]:
        """Return events {sequence, unix, kind, author, incident, scope, body, hash} between two sequences, both exclusive."""
        query = _EVENTS[incident is None, newest_first]
        rows = self._rows(query, {"after": after, "before": before, "incident": incident, "limit": limit})
        return [{**row, "body": _loads(row["body"])} for row in rows]

    def isolations(self, *, ended: bool = False) -> list[Document]:
        """Return the isolations in force, or the ended ones."""
        return self._documents("SELECT document FROM isolations WHERE ended = ? ORDER BY rowid", (int(ended),))

    def overrides(self, *, ended: bool = False) -> list[Document]:
        """Return the overrides in force, or the ended ones."""
        return self._documents("SELECT document FROM overrides WHERE ended = ? ORDER BY rowid", (int(ended),))

    def baselines(self) -> dict[str, Document]:
        """Return the detectors' state by route."""
        rows = self._rows("SELECT route, document FROM baselines")
        return {row["route"]: _loads(row["document"]) for row in rows}

    def rollups(self, route: str, *, since_unix: float, until_unix: float) -> list[Document]:
        """Return a route's minutes in time order, each as {minute_unix, …document}."""
        rows = self._rows(
            "SELECT minute_unix, document FROM rollups WHERE route = ? AND minute_unix >= ? AND minute_unix < ?"
            " ORDER BY minute_unix",
            (route, since_unix, until_unix),
        )
        return [{**_loads(row["document"]), "minute_unix": row["minute_unix"]} for row in rows]

    def seconds(self, *, since_unix: float) -> list[tuple[int, bytes]]:
        """Return the recorded minutes in time order, each as (its first second, compressed lines)."""
        rows = self._rows("SELECT * FROM seconds WHERE minute_unix >= ? ORDER BY minute_unix", (since_unix,))
        return [(row["minute_unix"], row["data"]) for row in rows]

    def proposals(self, *, limit: int = 200) -> list[Document]:
        """Return the newest proposals' documents, the newest first."""
        return self._documents("SELECT document FROM proposals ORDER BY id DESC LIMIT ?", (limit,))

    def answers(self, *, since_unix: float, limit: int) -> list[tuple[str, Document]]:
        """Return the newest kept answers of calls as (key, document), the oldest of them first."""
        query = "SELECT key, document FROM answers WHERE unix >= ? ORDER BY unix DESC LIMIT ?"
        return [(row["key"], _loads(row["document"])) for row in reversed(self._rows(query, (since_unix, limit)))]

    def marks(self) -> dict[str, str]:
        """Return all marks."""
        return {row["key"]: row["text"] for row in self._rows("SELECT key, text FROM marks")}

    def verify(self, anchor: str = "") -> Document:
        """
        Walk the whole chain of events.

        Args:
            anchor: A head that an earlier call returned, noted elsewhere: the chain must still contain it.

        Returns:
            {"ok", "rows", "first_bad", "problem", "head"}; `first_bad` and `problem` are None when the chain is whole.
        """
        key = self.install_key()
        with self._session(reading=True) as reader:
            immutable = self._reader is not None
            if self._reader_alone:
                return audit.verify(reader, key, anchor)
        # A connection of its own: the walk is long and must not hold up the writer.
        try:
            connection = connect(self.path, mode="ro&immutable=1" if immutable else "ro")
            try:
                return audit.verify(connection, key, anchor)
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise explained(error, self.path) from error

    # --- the connection

    @contextmanager
    def _session(self, *, reading: bool = False) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._readable() if reading else self._writable()
            except sqlite3.Error as error:
                problem = explained(error, self.path)
                self._suspect = self._suspect or problem.cause is Cause.CORRUPT
                if problem.cause not in _HARMLESS:
                    self._drop()
                raise problem from error
            except (TypeError, ValueError, OverflowError) as error:
                raise StoreError(
                    Cause.REFUSED, f"not storable: {error}", "this is a fault of the sidecar; report it"
                ) from error

    def _writable(self) -> sqlite3.Connection:
        if self._connection is None:
            self._close_reader()
            self._connection, aside = open_database(self._state, suspect=self._suspect)
            self._connection.row_factory = sqlite3.Row
            self._suspect = False
            self.set_aside = aside or self.set_aside
        return self._connection

    def _readable(self) -> sqlite3.Connection:
        try:
            return self._writable()
        except StoreError as error:
            if error.cause not in {Cause.FULL, Cause.UNWRITABLE, Cause.IO}:
                raise
            opened = open_for_reading(self._state)
            if opened is None:
                raise
            self._reader, self._reader_alone = opened
            self._reader.row_factory = sqlite3.Row
            return self._reader

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader, self._reader_alone = None, False

    def _loaded_key(self) -> bytes:
        if self._key is None:
            self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._key = keys.load_install_key(self._state)
        return self._key

    def _drop(self) -> None:
        self._close_reader()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _rows(self, query: str, values: _Values = ()) -> list[Document]:
        with self._session(reading=True) as connection:
            return [dict(row) for row in connection.execute(query, values)]

    def _documents(self, query: str, values: _Values) -> list[Document]:
        return [_loads(row["document"]) for row in self._rows(query, values)]

    def _document(self, query: str, values: _Values) -> Document | None:
        found = self._documents(query, values)
        return found[0] if found else None


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _loads(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise StoreError(
            Cause.CORRUPT,
            f"a stored document is no JSON: {error}",
            "somebody edited it; `sidecar audit verify` tells more",
        ) from error


def _event(row: Row) -> Document:
    return {
        "sequence": row.sequence,
        "unix": row.unix,
        "kind": row.kind,
        "author": row.author,
        "incident": row.incident,
        "scope": row.scope,
        "body": _loads(row.body),
        "hash": row.hash,
    }
