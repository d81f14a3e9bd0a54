"""The chain as a whole: verified from end to end, and folded at its old end. Theory in `chain.py`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from sidecar.store.chain import GENESIS, Row, Seal, Walk, is_signed, removed, sign
from sidecar.store.writes import put_seal, resume, seal_named

ROLLUPS_KEPT_S: Final = 30 * 86_400  # of the newest; with 10 busy routes some 200 MB
MOST_ROLLUPS: Final = 1_000_000  # some 600 MB: 30 days of 23 busy routes, 16 hours of 1,000
FOLD_ROWS: Final = 20_000  # of one call: about 0.2 s
_COLUMNS: Final = "sequence, unix, kind, author, incident, scope, body, hash"


@dataclass(frozen=True, slots=True)
class Folded:
    """How many rows one `fold` let go; `more` when a further call would find events again."""

    events: int
    rollups: int
    incidents: int
    more: bool


def verify(connection: sqlite3.Connection, key: bytes, anchor: str) -> dict[str, Any]:
    """Return {"ok", "rows", "first_bad", "problem", "head"} of the chain as one snapshot shows it."""
    connection.execute("BEGIN")  # one snapshot: rows and head fit each other
    base = seal_named(connection, "base")
    head = seal_named(connection, "head")
    walk = _started(base, key)
    noted = _anchored(anchor)
    if noted is not None and noted.sequence < walk.sequence:
        noted = None  # folded meanwhile: the base stands for it
    rows = _rows(connection)
    if noted is not None:
        rows = _watching(rows, noted, walk)
    walk.follow(rows)
    _judge_head(walk, head, key)
    if noted is not None and noted.sequence > walk.sequence:
        walk.blame(
            walk.sequence + 1, f"the chain ends before the noted head {noted.sequence}: an older copy was put back"
        )
    connection.execute("ROLLBACK")
    return {
        "ok": not walk.problem,
        "rows": walk.rows,
        "first_bad": walk.first_bad if walk.problem else None,
        "problem": walk.problem or None,
        "head": str(Seal(walk.sequence, walk.hash)),
    }


def fold(
    connection: sqlite3.Connection, key: bytes, older_than_unix: float, most_rollups: int = MOST_ROLLUPS
) -> Folded:
    """
    Replace the oldest events by a signed base, and delete what else has ended before *older_than_unix*.

    The folded part is verified first; a break in it is kept in the base, so that folding never hides one.
    """
    head = resume(connection, key)
    walk = _started(seal_named(connection, "base"), key)
    count = 0
    for row in _rows(connection):
        if row.unix >= older_than_unix or count == FOLD_ROWS:
            break
        walk.follow((row,))
        count += 1
    if count:
        put_seal(connection, "base", sign(key, "base", Seal(walk.sequence, walk.hash, walk.problem)))
        put_seal(connection, "head", sign(key, "head", head))
        connection.execute("DELETE FROM events WHERE sequence <= ?", (walk.sequence,))
    ended = _delete_ended(connection, older_than_unix, most_rollups)
    return Folded(count, *ended, more=count == FOLD_ROWS)


def _delete_ended(connection: sqlite3.Connection, older_than_unix: float, most_rollups: int) -> tuple[int, int]:
    old = (older_than_unix,)
    newest = connection.execute("SELECT coalesce(max(minute_unix), 0) FROM rollups").fetchone()[0]
    beyond = "SELECT minute_unix FROM rollups ORDER BY minute_unix DESC LIMIT 1 OFFSET ?"
    first = connection.execute(beyond, (most_rollups,)).fetchone()  # the newest minute that has no place any more
    limit = max(older_than_unix, newest - ROLLUPS_KEPT_S, first[0] + 1 if first is not None else 0)
    rollups = connection.execute("DELETE FROM rollups WHERE minute_unix < ?", (limit,)).rowcount
    ended = "SELECT id FROM incidents WHERE state IN ('resolved', 'closed') AND stored_unix < ?"
    connection.execute(f"DELETE FROM evidence WHERE incident IN ({ended})", old)  # noqa: S608  a literal
    incidents = connection.execute(f"DELETE FROM incidents WHERE id IN ({ended})", old).rowcount  # noqa: S608
    connection.execute("DELETE FROM proposals WHERE state <> 'open' AND stored_unix < ?", old)
    connection.execute("DELETE FROM isolations WHERE ended = 1 AND stored_unix < ?", old)
    connection.execute("DELETE FROM overrides WHERE ended = 1 AND stored_unix < ?", old)
    return rollups, incidents


def _rows(connection: sqlite3.Connection) -> Iterator[Row]:
    for found in connection.execute(f"SELECT {_COLUMNS} FROM events ORDER BY sequence"):  # noqa: S608  a literal
        yield Row(*found)


def _started(base: Seal | None, key: bytes) -> Walk:
    if base is None:
        return Walk()
    walk = Walk(base.sequence, base.hash)
    if not is_signed(key, "base", base):
        walk.blame(base.sequence, f"the checkpoint at event {base.sequence} was not signed with this install key")
    if base.problem:
        walk.blame(base.sequence, f"before the checkpoint at event {base.sequence}: {base.problem}")
    return walk


def _judge_head(walk: Walk, head: Seal | None, key: bytes) -> None:
    if head is None:
        if walk.hash != GENESIS:
            walk.blame(walk.sequence, "the signed head was removed")
        return
    if not is_signed(key, "head", head):
        walk.blame(head.sequence, f"the head at event {head.sequence} was not signed with this install key")
    if head.problem:
        walk.blame(head.sequence, f"seen when it was written: {head.problem}")
    if head.sequence > walk.sequence:
        walk.blame(walk.sequence + 1, f"{removed(walk.sequence + 1, head.sequence)} at the end")
    elif head.sequence < walk.sequence:
        walk.blame(head.sequence + 1, f"event {head.sequence + 1} was added by another hand")
    elif head.hash != walk.hash:
        walk.blame(head.sequence, f"event {head.sequence} is not the one that was signed: the chain was rewritten")


def _anchored(anchor: str) -> Seal | None:
    number, _, digest = anchor.partition(":")
    return Seal(int(number), digest) if number.isdecimal() and digest else None


def _watching(rows: Iterator[Row], noted: Seal, walk: Walk) -> Iterator[Row]:
    """Pass *rows* on and compare the one that was noted."""
    for row in rows:
        if row.sequence == noted.sequence and row.hash != noted.hash:
            walk.blame(row.sequence, f"event {row.sequence} is not the one that was noted: the chain was rewritten")
        yield row
