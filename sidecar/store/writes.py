"""
One transaction: each `Write` as a row, events appended to the chain, the head signed at the end.

Putting the same thing twice is one thing: evidence and versions are written once, and the same content again is
accepted in silence (a batch is repeated when its answer was lost); other content is refused.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, assert_never

from sidecar.controller.effects import (
    AppendEvent,
    PutAnswer,
    PutBaseline,
    PutEvidence,
    PutIncident,
    PutIsolation,
    PutMark,
    PutOverride,
    PutProposal,
    PutRollup,
    PutSeconds,
    PutVersion,
    SetVersionState,
    Write,
)
from sidecar.store.chain import GENESIS, Row, Seal, is_signed, next_hash, sign
from sidecar.store.errors import Cause, StoreError

AUTOMATION: Final = "automation"
SECONDS_KEPT_S: Final = 7_200  # of the tape that is always recorded,
SECONDS_KEPT_BYTES: Final = 64 * 1024 * 1024  # and never more than this
ANSWERS_KEPT_S: Final = 86_400.0
_FAULT: Final = "this is a fault of the sidecar; report it"


def must_reach_disk(batch: Sequence[Write]) -> bool:
    """
    Tell whether *batch* is answered to a person as done, and so must survive a power cut.

    Then the transaction is `synchronous=FULL`, one fsync. All else is `NORMAL`: a killed process loses nothing either
    way, a power cut at most the last moments, and in neither case is the file damaged.
    """
    return any(
        isinstance(write, PutVersion | SetVersionState | PutMark | PutAnswer)
        or (isinstance(write, AppendEvent) and write.author != AUTOMATION)
        for write in batch
    )


def apply(connection: sqlite3.Connection, key: bytes, batch: Sequence[Write], unix: float) -> list[Row]:
    """
    Carry *batch* out inside the transaction that is open on *connection*; return the events with their places.

    Args:
        connection: In a write transaction.
        key: The install key.
        batch: What to write, in order.
        unix: Now, for retention.

    Raises:
        StoreError: `refused` when a write contradicts what is stored.
        sqlite3.Error: when the database fails.
    """
    appended: list[Row] = []
    head: Seal | None = None
    for write in batch:
        if isinstance(write, AppendEvent):
            head = head or resume(connection, key)
            row = _append(connection, head, write)
            head = Seal(row.sequence, row.hash, head.problem)
            appended.append(row)
        else:
            _put(connection, write, unix)
    if head is not None:
        put_seal(connection, "head", sign(key, "head", head))
    return appended


def seal_named(connection: sqlite3.Connection, name: str) -> Seal | None:
    """Return the stored seal `head` or `base`; None when there is none or it is damaged."""
    found = connection.execute("SELECT seal FROM seals WHERE name = ?", (name,)).fetchone()
    try:
        return Seal.from_text(found[0]) if found else None
    except ValueError:
        return None


def put_seal(connection: sqlite3.Connection, name: str, seal: Seal) -> None:
    """Insert or replace a seal."""
    connection.execute("INSERT OR REPLACE INTO seals VALUES (?, ?)", (name, seal.to_text()))


def resume(connection: sqlite3.Connection, key: bytes) -> Seal:
    """
    Return where the next event is appended.

    Whatever contradicts the signed head is noted in it and stays noted: going on must not heal a break.
    """
    base = seal_named(connection, "base") or Seal()
    found = connection.execute("SELECT sequence, hash FROM events ORDER BY sequence DESC LIMIT 1").fetchone()
    last = Seal(*found) if found else base
    head = seal_named(connection, "head")
    if head is None:
        return last if last.hash == GENESIS else Seal(last.sequence, last.hash, "the signed head was removed")
    if not is_signed(key, "head", head):
        furthest = max(head, last, key=lambda seal: seal.sequence)
        return Seal(
            furthest.sequence, furthest.hash, f"the head at event {head.sequence} was not signed with this install key"
        )
    if last.sequence > head.sequence:
        return Seal(last.sequence, last.hash, head.problem or f"event {head.sequence + 1} was added by another hand")
    return head


def to_json(document: Any) -> str:
    """Return *document* as JSON; any Mapping is an object, any set a sorted list."""
    return json.dumps(document, separators=(",", ":"), default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, AbstractSet):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no place in a stored document")


def _text(text: str) -> str:
    """Return *text* as SQLite takes it: bytes of a request that were no UTF-8 are lone surrogates in Python."""
    return text.encode("utf-8", "backslashreplace").decode()


def _append(connection: sqlite3.Connection, head: Seal, event: AppendEvent) -> Row:
    bare = Row(
        sequence=head.sequence + 1,
        unix=float(event.unix),
        kind=_text(event.kind),
        author=_text(event.author),
        incident=event.incident,
        scope=_text(event.scope),
        body=to_json(event.body),
    )
    digest = next_hash(head.hash, bare)
    row = Row(bare.sequence, bare.unix, bare.kind, bare.author, bare.incident, bare.scope, bare.body, digest)
    connection.execute(
        "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (row.sequence, row.unix, row.kind, row.author, row.incident, row.scope, row.body, row.hash),
    )
    return row


_AnyPut = (
    PutIncident
    | PutEvidence
    | PutIsolation
    | PutOverride
    | PutVersion
    | SetVersionState
    | PutBaseline
    | PutRollup
    | PutSeconds
    | PutProposal
    | PutAnswer
    | PutMark
)


def _put(connection: sqlite3.Connection, write: _AnyPut, unix: float) -> None:  # noqa: C901, PLR0912  a case a kind
    match write:
        case PutIncident():
            _replace(connection, "incidents", write.id, write.state, write.opened_unix, to_json(write.document), unix)
        case PutEvidence():
            _once(connection, "evidence", "incident", write.incident, to_json(write.document))
        case PutIsolation():
            _replace(connection, "isolations", _text(write.id), int(write.ended), to_json(write.document), unix)
        case PutOverride():
            _replace(connection, "overrides", _text(write.id), int(write.ended), to_json(write.document), unix)
        case PutVersion():
            _put_version(connection, write)
        case SetVersionState():
            _set_version_state(connection, write)
        case PutBaseline():
            _replace(connection, "baselines", write.route, to_json(write.document))
        case PutRollup():
            _replace(connection, "rollups", write.route, write.minute_unix, to_json(write.document))
        case PutSeconds():
            _put_seconds(connection, write)
        case PutProposal():
            _replace(connection, "proposals", write.id, write.state, to_json(write.document), unix)
        case PutAnswer():
            _replace(connection, "answers", write.key, write.unix, to_json(write.document))
            connection.execute("DELETE FROM answers WHERE unix < ?", (write.unix - ANSWERS_KEPT_S,))
        case PutMark():
            _replace(connection, "marks", write.key, _text(write.text))
        case _:
            assert_never(write)


def _replace(connection: sqlite3.Connection, table: str, *values: str | float) -> None:
    places = ", ".join("?" * len(values))
    connection.execute(f"INSERT OR REPLACE INTO {table} VALUES ({places})", values)  # noqa: S608  table is a literal above


def _put_seconds(connection: sqlite3.Connection, write: PutSeconds) -> None:
    connection.execute("INSERT OR REPLACE INTO seconds VALUES (?, ?)", (write.minute_unix, write.data))
    connection.execute("DELETE FROM seconds WHERE minute_unix < ?", (write.minute_unix - SECONDS_KEPT_S,))
    sizes = "SELECT minute_unix, sum(length(data)) OVER (ORDER BY minute_unix DESC) AS size FROM seconds"
    connection.execute(
        f"DELETE FROM seconds WHERE minute_unix IN (SELECT minute_unix FROM ({sizes}) WHERE size > ?)",  # noqa: S608
        (SECONDS_KEPT_BYTES,),
    )


def _once(connection: sqlite3.Connection, table: str, key_column: str, key: int, *values: str | float) -> None:
    """Insert a row that is never changed."""
    found = connection.execute(f"SELECT * FROM {table} WHERE {key_column} = ?", (key,)).fetchone()  # noqa: S608
    if found is None:
        _replace(connection, table, key, *values)
    elif tuple(found) != (key, *values):
        raise StoreError(Cause.REFUSED, f"{table} of {key_column} {key} is already stored and never changed", _FAULT)


def _put_version(connection: sqlite3.Connection, write: PutVersion) -> None:
    row = (
        write.version,
        write.text,
        write.hash,
        _text(write.author),
        _text(write.reason),
        write.source,
        write.state,
        float(write.unix),
        to_json(list(write.changes)),
    )
    found = connection.execute(
        "SELECT version, text, hash, author, reason, source FROM versions WHERE version = ?", (write.version,)
    ).fetchone()
    if found is None:
        _replace(connection, "versions", *row)
    elif tuple(found) != row[:6]:
        raise StoreError(Cause.REFUSED, f"config version {write.version} is already stored and never changed", _FAULT)


def _set_version_state(connection: sqlite3.Connection, write: SetVersionState) -> None:
    done = connection.execute("UPDATE versions SET state = ? WHERE version = ?", (write.state, write.version))
    if done.rowcount != 1:
        raise StoreError(Cause.REFUSED, f"there is no config version {write.version}", _FAULT)
