"""
The bearer tokens of the admin API: those of the file, the first one, and those that were issued by a call.

Theory
    A secret is shown once, when it is made; only its SHA-256 is kept. Issuing waits for the store, because a token that is
    gone after a restart is worse than none. Revoking acts at once and is stored beside, because the reason to revoke may be
    a leak. A token is revoked by its hash: the same secret stays refused even where the file still names it, and a new
    secret under the old name is good.

Tables
    source    made by                                    valid while
    file      `admin.tokens`                             the file has it
    first     the first start without `admin.tokens`     the file names none
    issued    `sidecar token new`                        always
    (each: and it is not revoked)

What can go wrong
    The store is down: nothing is issued (503); what was revoked stays so in memory and is stored when it is back.
    The store is lost: issued tokens are gone, and revoked ones of the file are good again: the log of a set-aside database
    says so, rotate them. An admin revokes the token that he uses: refused, so that an admin is always left.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from sidecar import clock
from sidecar.config.policies import Token
from sidecar.controller.effects import AppendEvent, PutMark, Write
from sidecar.controller.journal import Journal
from sidecar.controller.ports import ConfigRefused, Document, Unavailable
from sidecar.incident.words import rfc3339
from sidecar.store.errors import StoreError

MARK_TOKENS: Final = "admin.tokens"
MAX_ISSUED: Final = 100
MAX_REVOKED: Final = (
    100  # the oldest issued ones leave; a revoked token of the file leaves when the file no longer has it
)
PREFIX: Final = "sidecar_"  # so that scanners for leaked secrets know one
_SIZE_BYTES: Final = 24


@dataclass(frozen=True, slots=True)
class Kept:
    """
    What the store has of one token: an issued one, or one of the file that was revoked.

    Attributes:
        author, issued_unix: Of an issued one.
        revoked_unix, revoked_by: None and empty while it is good.
    """

    name: str
    role: str
    sha256: str
    source: str = "issued"
    author: str = ""
    issued_unix: float | None = None
    revoked_unix: float | None = None
    revoked_by: str = ""

    def document(self) -> dict[str, Any]:
        """Return it in its public shape, without its hash."""
        return {
            "name": self.name,
            "role": self.role,
            "source": self.source,
            "author": self.author or None,
            "issued_time": _time(self.issued_unix),
            "revoked_time": _time(self.revoked_unix),
            "revoked_by": self.revoked_by or None,
        }


def _time(unix: float | None) -> str | None:
    return None if unix is None else rfc3339(unix)


class Keyring:
    """
    All tokens.

    Args:
        named: Returns the file's tokens of this moment.
        first: The first start's; it counts while *named* returns none.
        journal: Stores.
        text: What `remembered` stored before.
    """

    def __init__(self, named: Callable[[], Sequence[Token]], first: Token | None, journal: Journal, text: str) -> None:
        self._named = named
        self._first = first
        self._journal = journal
        self._kept = [Kept(**row) for row in json.loads(text)] if text else []

    def __repr__(self) -> str:
        return f"<Keyring {len(self.valid())} tokens>"

    def valid(self) -> Sequence[Token]:
        """Return the tokens that are good at this moment."""
        revoked = {row.sha256.lower() for row in self._kept if row.revoked_unix is not None}
        issued = (Token(row.name, row.role, row.sha256) for row in self._kept if row.source == "issued")
        return [token for token in (*self._configured(), *issued) if token.sha256.lower() not in revoked]

    def documents(self) -> Sequence[Document]:
        """Return every token that is known, the good ones first, without their hashes."""
        kept = {row.sha256.lower(): row for row in self._kept}
        rows = [kept.get(token.sha256.lower()) or self._row(token) for token in self._configured()]
        rows += [row for row in self._kept if row not in rows]
        return [row.document() for row in sorted(rows, key=lambda row: (row.revoked_unix is not None, row.name))]

    def remembered(self) -> list[Write]:
        """Return what the store must hold."""
        return [PutMark(MARK_TOKENS, json.dumps([asdict(row) for row in self._kept], separators=(",", ":")))]

    async def new(self, name: str, role: str, author: str) -> Document:
        """
        Issue a token and return its document with its secret under `token`: the only time that it is shown.

        Raises:
            ConfigRefused: 409 when a good token has the name, or there are too many.
            Unavailable: when the store does not take it; then there is no such token.
        """
        if any(token.name == name for token in self.valid()):
            raise ConfigRefused(409, f"a token '{name}' exists", f"take another name, or sidecar token revoke {name}")
        issued = [row for row in self._kept if row.source == "issued" and row.revoked_unix is None]
        if len(issued) >= MAX_ISSUED:
            raise ConfigRefused(409, f"{MAX_ISSUED} tokens are issued", "revoke those that nobody needs")
        secret = PREFIX + clock.token_bytes(_SIZE_BYTES).hex()
        now = clock.wall().timestamp()
        made = Kept(name, role, hashlib.sha256(secret.encode()).hexdigest(), author=author, issued_unix=now)
        self._kept = [*self._kept, made]
        event = AppendEvent("token.issued", now, author, body={"name": name, "role": role})
        try:
            await self._journal.put_now([*self.remembered(), event])
        except StoreError as error:
            self._kept = [row for row in self._kept if row is not made]
            raise Unavailable(f"the token could not be stored: {error.problem}", error.hint) from error
        return {**made.document(), "token": secret}

    def revoke(self, name: str, author: str) -> Document:
        """
        Refuse a token from now on.

        Raises:
            ConfigRefused: 404 when no good token has the name, 409 when it is the author's own.
        """
        token = next((token for token in self.valid() if token.name == name), None)
        if token is None:
            raise ConfigRefused(404, f"there is no token '{name}'", "`sidecar token list` shows them")
        if name == author:
            hint = "sidecar token new NAME --role admin, then revoke this one with the new one"
            raise ConfigRefused(409, f"'{name}' is the token that you use", hint)
        now = clock.wall().timestamp()
        known = next((row for row in self._kept if row.sha256.lower() == token.sha256.lower()), self._row(token))
        ended = replace(known, revoked_unix=now, revoked_by=author)
        self._kept = self._bounded([*(row for row in self._kept if row is not known), ended])
        self._journal.put([*self.remembered(), AppendEvent("token.revoked", now, author, body={"name": name})])
        return ended.document()

    def _configured(self) -> Sequence[Token]:
        return self._named() or ((self._first,) if self._first else ())

    def _row(self, token: Token) -> Kept:
        return Kept(token.name, token.role, token.sha256, "file" if self._named() else "first")

    def _bounded(self, rows: Sequence[Kept]) -> list[Kept]:
        """Let the oldest revoked tokens go that nobody could use anyway."""
        known = {token.sha256.lower() for token in self._configured()}
        gone = [r for r in rows if r.revoked_unix is not None and r.sha256.lower() not in known]
        dropped = gone[: max(0, len(gone) - MAX_REVOKED)]
        return [row for row in rows if row not in dropped]
