"""What the engine takes up again after a restart, read from the store's documents."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from sidecar.controller.book import (
    MARK_COUNTERS,
    MARK_SILENCES,
    MARK_SIZES,
    MARK_VERDICTS,
    MARK_VERSIONS,
    Book,
)
from sidecar.controller.effects import Document
from sidecar.decide import lease, overrides, silence, sticky, suspect
from sidecar.decide.size import Sizes
from sidecar.facts import Moment
from sidecar.incident.account import Account
from sidecar.incident.documents import ACCOUNT, KEPT, from_kept

TAKEN_UP: Final = ("open", "acknowledged", "mitigated", "resolved")
MAX_INCIDENTS: Final = 200


class StoredState(Protocol):
    """What this needs of the store."""

    def incidents(self, *, states: Sequence[str] = (), limit: int = 100) -> Sequence[Document]: ...  # noqa: D102
    def last_incident_id(self) -> int: ...  # noqa: D102
    def isolations(self, *, ended: bool = False) -> Sequence[Document]: ...  # noqa: D102
    def overrides(self, *, ended: bool = False) -> Sequence[Document]: ...  # noqa: D102
    def baselines(self) -> Mapping[str, Document]: ...  # noqa: D102
    def marks(self) -> Mapping[str, str]: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Restored:
    """
    Documents as the store kept them.

    Attributes:
        incidents: That have not been closed, the oldest first.
        isolations: In force, and the ended ones of these incidents.
        overrides: In force.
        baselines: Route → the detectors' state.
        marks: Key → text.
        last_incident: The highest number that was given.
    """

    incidents: Sequence[Document] = ()
    isolations: Sequence[Document] = ()
    overrides: Sequence[Document] = ()
    baselines: Mapping[str, Document] = field(default_factory=dict)
    marks: Mapping[str, str] = field(default_factory=dict)
    last_incident: int = 0

    @classmethod
    def of(cls, store: StoredState) -> Restored:
        """Read what is needed from the store."""
        incidents = list(reversed(store.incidents(states=TAKEN_UP, limit=MAX_INCIDENTS)))
        numbers = {row["id"] for row in incidents}
        ended = [row for row in store.isolations(ended=True) if row["incident"] in numbers]
        return cls(
            incidents,
            [*ended, *store.isolations()],
            store.overrides(),
            store.baselines(),
            store.marks(),
            store.last_incident_id(),
        )


def take_up(book: Book, restored: Restored, now: Moment) -> None:
    """Fill *book* with what the store kept."""
    for row in restored.isolations:
        isolation = lease.from_store(row, book.boot, now)
        book.isolations[isolation.id] = isolation
        trials = row["kept"].get("trials")
        if trials and isolation.live:
            book.trials[isolation.id] = _moved(trials, lease.shift_s(row, book.boot, now))
    for row in restored.incidents:
        if KEPT in row:
            incident = from_kept(row[KEPT], now)
            book.incidents[incident.id] = incident
            if ACCOUNT in row:  # an older release kept none
                book.accounts[incident.id] = Account.of(row[ACCOUNT])
    for row in restored.overrides:
        override = overrides.from_store(row, book.boot, now)
        book.overrides[override.scope] = override
    book.marks = [sticky.from_json(row) for row in _json(restored.marks, MARK_VERDICTS, [])]
    book.sizes = Sizes.from_json(_json(restored.marks, MARK_SIZES, []))
    book.versions = [suspect.from_json(row, now) for row in _json(restored.marks, MARK_VERSIONS, [])]
    book.silences = [silence.from_store(row, book.boot, now) for row in _json(restored.marks, MARK_SILENCES, [])]
    book.hushed = {
        i.id for i in book.running() if silence.covering(book.silences, i.scope) is not None
    }  # a silence that ended while no controller lived is told of, too
    counters = _json(restored.marks, MARK_COUNTERS, {})
    numbers = [int(key.rpartition("-")[2]) for key in book.isolations]
    book.next_incident = max(counters.get("incident", 1), restored.last_incident + 1)
    book.next_isolation = max([counters.get("isolation", 1), *(number + 1 for number in numbers)])
    book.next_drill = counters.get("drill", 1)
    book.next_silence = counters.get("silence", 1)
    _drop_orphans(book)


def _moved(trials: Mapping[str, Any], shift_s: float) -> Mapping[str, Any]:
    success_at = trials["success_at"]
    return {
        **trials,
        "step_at": trials["step_at"] + shift_s,
        "success_at": None if success_at is None else success_at + shift_s,
    }


def _drop_orphans(book: Book) -> None:
    """Leave out live isolations whose incident the store does not have: nobody could answer for them."""
    for key in [k for k, i in book.isolations.items() if i.live and i.incident not in book.incidents]:
        del book.isolations[key]


def _json(marks: Mapping[str, str], key: str, default: Any) -> Any:
    text = marks.get(key)
    return json.loads(text) if text else default
