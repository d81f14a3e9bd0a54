"""
Drafts an incident's post-mortem: gathers its own record, and hands it to `incident/postmortem/draft.py` and `report.py`.

Theory
    The record is the incident's document, its events, what it cost, what was frozen at its detection, and its proposals.
    Beside its own events stand those around it that name no incident but belong to its story: the breaker's first trip,
    overrides, silences and drills on its scope from `LEAD_S` before the onset to its end, versions from `BEFORE_S` before it. All of it is
    stored, so the same record gives the same bytes in any process.

What can go wrong
    Old evidence or events were folded away: the draft says what is missing. What happens around an incident that goes on for
    more than `MAX_TIMELINE` events is no longer read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Final, Protocol

from sidecar.controller import report
from sidecar.controller.engine import Engine
from sidecar.controller.learning import Learning
from sidecar.controller.ports import Document
from sidecar.facts import Scope, ScopeError
from sidecar.incident.account import LEAD_S
from sidecar.incident.documents import ACCOUNT
from sidecar.incident.postmortem.draft import Record, postmortem
from sidecar.incident.words import unix_of
from sidecar.store.store import Store

MAX_TIMELINE: Final = 10_000
PAGE: Final = 1_000  # events read at once; as many before the first of its own are looked through
BEFORE_S: Final = 600.0  # as far back as a config version may be suspect by default
AROUND: Final = frozenset(
    {
        "breaker.opened", "breaker.reset", "config.applied", "config.rolled_back", "config.confirmed", "config.failed",
        "drill.started", "drill.faded", "override.set", "override.ended", "silence.added", "silence.ended",
    }
)  # fmt: skip
Read = Callable[..., Awaitable[Any]]


class Incidents(Protocol):
    """Who knows the incidents."""

    async def incident(self, incident_id: int) -> Document | None: ...  # noqa: D102
    async def evidence(self, incident_id: int) -> Document | None: ...  # noqa: D102


class Drafter:
    """
    Drafts post-mortems.

    Args:
        incidents, engine, learning: Know the parts of the record that are in memory.
        read: Asks the store.
    """

    def __init__(self, incidents: Incidents, engine: Engine, read: Read, learning: Learning) -> None:
        self._incidents = incidents
        self._engine = engine
        self._read = read
        self._learning = learning

    def __repr__(self) -> str:
        return f"<Drafter of {self._engine}>"

    async def markdown(self, number: int) -> str | None:
        """Return the draft; None when there is no such incident."""
        record = await self._record(number)
        return None if record is None else postmortem(record)

    async def html(self, number: int) -> str | None:
        """Return the draft as one page with plots."""
        record = await self._record(number)
        if record is None:
            return None
        title = f"Incident {number}: {record.incident['title']}"
        return await asyncio.to_thread(report.render, postmortem(record), title, record)

    async def _record(self, number: int) -> Record | None:
        incident = await self._incidents.incident(number)
        if incident is None:
            return None
        events = await self._read(lambda store: _events(store, incident))
        proposals = [row for row in self._learning.proposals(None) if row["incident"] == number]
        return Record(
            incident,
            events,
            await self._incidents.evidence(number),
            await self._account(number),
            sorted(proposals, key=lambda row: int(row["id"])),
        )

    async def _account(self, number: int) -> Document | None:
        live = self._engine.account(number)
        if live is not None:
            return live
        stored = await self._read(lambda store: store.incident(number), default=None)
        return None if stored is None else stored.get(ACCOUNT)


def _events(store: Store, incident: Document) -> Sequence[Document]:
    """Return the incident's events and those around it, in the order of the chain."""
    own = store.events(incident=incident["id"], limit=MAX_TIMELINE)
    if not own:
        return own
    onset, ended = unix_of(incident["onset_time"]), incident["resolved_time"]
    until = unix_of(ended) if ended else float("inf")
    scope = Scope.parse(incident["scope"])
    around = [
        row
        for row in _since(store, max(own[0]["sequence"] - PAGE, 0), until)
        if row["incident"] is None
        and row["kind"] in AROUND
        and onset - (BEFORE_S if row["kind"].startswith("config.") else LEAD_S) <= row["unix"] <= until
        and _touches(row["scope"], scope)
    ]
    return sorted([*own, *around], key=lambda row: int(row["sequence"]))


def _since(store: Store, after: int, until_unix: float) -> Iterator[Document]:
    """Yield the events after one number, up to a time; while the incident goes on its own last event bounds nothing."""
    for _ in range(MAX_TIMELINE // PAGE):
        page = store.events(after=after, limit=PAGE)
        yield from page
        if len(page) < PAGE or page[-1]["unix"] > until_unix:
            return
        after = page[-1]["sequence"]


def _touches(text: str, scope: Scope) -> bool:
    """Tell whether an event on *text* (empty: on no scope) bears on *scope*."""
    try:
        other = Scope.parse(text) if text else scope
    except ScopeError:
        return False
    return other.contains(scope) or scope.contains(other)
