"""
What calls with an Idempotency-Key were answered, so that a repeated one does nothing and gets the same answer.

Theory
    A client that loses the connection cannot know whether its call was carried out. With a key of its own it may ask again:
    the first answer is given back. Answers live a day, in memory and in the store, so also over a killed controller.

What can go wrong
    A kill between what the call did and its stored answer, a transaction later: the repeated call is carried out again, as
    one without a key. An answer that holds a secret is kept in memory alone. Many or large answers: the oldest leave.

Source: draft-ietf-httpapi-idempotency-key-header-07.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from sidecar import clock
from sidecar.controller.effects import PutAnswer, Write
from sidecar.controller.ports import Document
from sidecar.store.writes import ANSWERS_KEPT_S

MAX_ANSWERS: Final = 1_000
MAX_CHARS: Final = 4_000_000


class Answers:
    """
    The answers of the last day.

    Args:
        store: Stores, and returns when it is stored or the store is down.
        rows: What was stored before, as (key, document), the oldest first.
    """

    def __init__(
        self, store: Callable[[Sequence[Write]], Awaitable[None]], rows: Iterable[tuple[str, Document]] = ()
    ) -> None:
        self._store = store
        self._rows: OrderedDict[str, Document] = OrderedDict(rows)
        self._chars = sum(len(row["body"]) for row in self._rows.values())
        self._trim(clock.wall().timestamp())

    def __repr__(self) -> str:
        return f"<Answers {len(self._rows)}>"

    def find(self, key: str) -> Document | None:
        """Return what the call with *key* was answered; None when there was none within a day."""
        self._trim(clock.wall().timestamp())
        return self._rows.get(key)

    async def keep(self, key: str, document: Document, *, secret: bool) -> None:
        """Keep an answer {fingerprint, status, media, headers, body} before it is given; a *secret* one in memory alone."""
        unix = clock.wall().timestamp()
        row = {**document, "unix": unix}
        self._rows[key] = row
        self._chars += len(row["body"])
        self._trim(unix)
        if not secret and key in self._rows:
            await self._store([PutAnswer(key, unix, row)])

    def _trim(self, unix: float) -> None:
        while self._rows and self._over(unix):
            _, gone = self._rows.popitem(last=False)
            self._chars -= len(gone["body"])

    def _over(self, unix: float) -> bool:
        oldest = next(iter(self._rows.values()))
        return len(self._rows) > MAX_ANSWERS or self._chars > MAX_CHARS or oldest["unix"] < unix - ANSWERS_KEPT_S
