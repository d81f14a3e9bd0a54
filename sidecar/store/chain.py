"""
The hash chain over events: what makes an edited record visible.

Theory. Each event's hash covers its own content, its place and the hash of the event before it:

    hash_n = SHA-256(hash_{n-1} ‖ canonical JSON of [n, unix, kind, author, incident, scope, body])

So one edited, moved or removed row breaks the chain at that place. The end of a chain is not protected by what
follows, since nothing does: the *head* (last sequence and hash) stands in a row of its own, signed with the install
key (HMAC-SHA-256). Retention replaces the oldest events by a *base*: the sequence and hash up to which they were
folded, signed alike.

What it finds: every edit, move or removal by someone who can write the database but does not have the install key: a
wrong tool, a restored table, a hand with `sqlite3`. A break that was once seen when the store wrote or folded is kept
in the signed head or base, and is never forgotten.

What it does not find, honestly: who can read `install.key` can sign a forged chain; who puts back an *older whole
copy* of the database, or removes all of it, leaves a chain that is consistent. Against both only a head helps that
was noted elsewhere: `verify` returns the head, and takes such a note (`SEQUENCE:HASH`) to check that the chain still
contains it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

GENESIS: Final = "0" * 64


@dataclass(frozen=True, slots=True)
class Row:
    """One stored event; `body` is the JSON text as stored, byte for byte."""

    sequence: int
    unix: float
    kind: str
    author: str
    incident: int | None
    scope: str
    body: str
    hash: str = ""


@dataclass(frozen=True, slots=True)
class Seal:
    """
    A place in the chain, signed: its head, or the base that retention left.

    Attributes:
        sequence, hash: The last event that it covers; 0 and `GENESIS` before the first.
        problem: A break that was seen when this was signed; empty when there was none.
        mac: HMAC over the above and the seal's purpose.
    """

    sequence: int = 0
    hash: str = GENESIS
    problem: str = ""
    mac: str = ""

    def __str__(self) -> str:
        return f"{self.sequence}:{self.hash}"

    def to_text(self) -> str:
        """Return it as stored."""
        return canonical([self.sequence, self.hash, self.problem, self.mac])

    @classmethod
    def from_text(cls, text: str) -> Seal:
        """
        Read what `to_text` wrote.

        Raises:
            ValueError: when it is nothing of the kind.
        """
        row = json.loads(text)
        if not (isinstance(row, list) and [type(value) for value in row] == [int, str, str, str]):
            raise ValueError("no seal")
        return cls(*row)


def canonical(document: Any) -> str:
    """Return the one JSON text of *document*: keys sorted, no spaces, ASCII."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def next_hash(before: str, row: Row) -> str:
    """Return the hash of *row* when it follows the event with the hash *before*."""
    content = canonical([row.sequence, row.unix, row.kind, row.author, row.incident, row.scope, row.body])
    return hashlib.sha256(before.encode() + content.encode()).hexdigest()


def sign(key: bytes, purpose: str, seal: Seal) -> Seal:
    """Return *seal* with its signature for *purpose* (`head` or `base`)."""
    return Seal(seal.sequence, seal.hash, seal.problem, _mac(key, purpose, seal))


def is_signed(key: bytes, purpose: str, seal: Seal) -> bool:
    """Tell whether *seal* was signed with *key* for *purpose*."""
    return hmac.compare_digest(seal.mac, _mac(key, purpose, seal))


def _mac(key: bytes, purpose: str, seal: Seal) -> str:
    content = canonical(["sidecar chain", purpose, seal.sequence, seal.hash, seal.problem])
    return hmac.digest(key, content.encode(), "sha256").hex()


def removed(first: int, last: int) -> str:
    """Say which events are missing."""
    return f"event {first} was removed" if first == last else f"events {first} to {last} were removed"


@dataclass(slots=True)
class Walk:
    """
    A walk along the chain, row by row.

    Attributes:
        sequence, hash: Where it stands.
        rows: How many it has seen.
        first_bad, problem: The first break; 0 and empty while there is none.
    """

    sequence: int = 0
    hash: str = GENESIS
    rows: int = 0
    first_bad: int = 0
    problem: str = ""

    def blame(self, sequence: int, problem: str) -> None:
        """Note a break, unless an earlier one is known."""
        if not self.problem:
            self.first_bad, self.problem = sequence, problem

    def follow(self, rows: Iterable[Row]) -> None:
        """Go on over *rows*, in the order of their sequence; after a break from what is stored."""
        for row in rows:
            expected = self.sequence + 1
            if row.sequence > expected:
                self.blame(expected, removed(expected, row.sequence - 1))
            elif next_hash(self.hash, row) != row.hash:
                self.blame(
                    row.sequence, f"event {row.sequence} does not follow from the one before: one was edited or moved"
                )
            self.sequence, self.hash, self.rows = row.sequence, row.hash, self.rows + 1
