"""
The config's history in memory: append-only rows, and which of them counts.

Tables
    state        meaning                                           becomes
    active       runs                                              superseded
    confirming   runs, and reverts by itself unless confirmed      active, reverted
    superseded   ran
    reverted     ran, and was not confirmed
    failed       no worker ever ran it

What can go wrong
    More than `KEPT` versions: the oldest leave memory, except those that count; the store has them all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sidecar import clock
from sidecar.config.diff import Change
from sidecar.config.policies import Compiled
from sidecar.controller.effects import AppendEvent, PutMark, PutVersion, SetVersionState
from sidecar.controller.ports import ConfigRefused

KEPT: Final = 1_000
CONFIRMING_MARK: Final = "config.confirming"
MAX_TOLD: Final = 50  # changes in one event
_LIST_ALL: Final = "`sidecar config history` lists all"


@dataclass(frozen=True, slots=True)
class Active:
    """The version that runs, compiled."""

    row: PutVersion
    compiled: Compiled

    @property
    def version(self) -> int:
        """Return its number."""
        return self.row.version


@dataclass(frozen=True, slots=True)
class Pending:
    """A version that reverts by itself at `by_at` (monotonic; `by_unix` for people) unless it is confirmed."""

    version: int
    previous: int
    by_unix: float
    by_at: float

    def mark(self) -> PutMark:
        """Return what the store keeps of it."""
        row = {
            "version": self.version, "previous": self.previous, "by_unix": self.by_unix, "by_at": self.by_at,
            "boot": clock.boot_id(),
        }  # fmt: skip
        return PutMark(CONFIRMING_MARK, json.dumps(row))

    @classmethod
    def of(cls, text: str) -> Pending | None:
        """Read what `mark` wrote; None when nothing waits."""
        try:
            row = json.loads(text or "null")
            if row is None:
                return None
            left_s = row["by_unix"] - clock.wall().timestamp()
            by_at = row["by_at"] if row["boot"] == clock.boot_id() else clock.now() + left_s
            return cls(int(row["version"]), int(row["previous"]), float(row["by_unix"]), float(by_at))
        except (ValueError, KeyError, TypeError):
            return None


class Versions:
    """
    The versions that are in memory.

    Args:
        rows: As the store has them.
    """

    def __init__(self, rows: Iterable[PutVersion] = ()) -> None:
        self._rows = {row.version: row for row in rows}

    def __repr__(self) -> str:
        return f"<Versions {len(self._rows)} up to {max(self._rows, default=0)}>"

    @property
    def next_number(self) -> int:
        """Return the number that the next version gets."""
        return max(self._rows, default=0) + 1

    @property
    def last_from_file(self) -> PutVersion | None:
        """Return the newest version that came from the file."""
        return next((row for row in self.newest_first() if row.source == "file"), None)

    def newest_first(self) -> Sequence[PutVersion]:
        """Return all, the newest first."""
        return sorted(self._rows.values(), key=lambda row: -row.version)

    def get(self, number: int) -> PutVersion | None:
        """Return one version."""
        return self._rows.get(number)

    def put(self, row: PutVersion) -> None:
        """Add *row*, or replace the one with its number."""
        self._rows[row.version] = row
        if len(self._rows) > KEPT:
            needed = {kept.version for kept in (*self.running(), self.last_from_file) if kept is not None}
            del self._rows[min(number for number in self._rows if number not in needed)]

    def running(self) -> list[PutVersion]:
        """Return the version that runs, the newest first should there be several."""
        return [row for row in self.newest_first() if row.state in ("active", "confirming")]

    def superseding(self) -> list[SetVersionState]:
        """Return the writes that end what runs."""
        return [SetVersionState(row.version, _end_state(row)) for row in self.running()]

    def supersede(self) -> None:
        """End what runs."""
        for row in self.running():
            self._rows[row.version] = replace(row, state=_end_state(row))

    def target(self, to: int | None, active: PutVersion) -> PutVersion:
        """
        Return the version that a rollback to *to* means; None means the one before *active* that ran and differs.

        Raises:
            ConfigRefused: when there is none, or no worker ever ran it.
        """
        if to is None:
            before = (row for row in self.newest_first() if row.version < active.version)
            good = (row for row in before if row.state == "superseded" and row.hash != active.hash)
            if (found := next(good, None)) is None:
                raise ConfigRefused(409, "there is no earlier version to go back to", _LIST_ALL)
            return found
        if (known := self._rows.get(to)) is None:
            raise ConfigRefused(404, f"there is no version {to}", _LIST_ALL)
        if known.state == "failed":
            raise ConfigRefused(409, f"version {to} failed: no worker ever ran it", "choose one that ran")
        return known


def _end_state(row: PutVersion) -> str:
    return "reverted" if row.state == "confirming" else "superseded"


def rows_of(changes: Sequence[Change]) -> tuple[Mapping[str, Any], ...]:
    """Return *changes* as documents."""
    return tuple({"path": change.path, "old": change.old, "new": change.new} for change in changes)


def applied(row: PutVersion) -> AppendEvent:
    """Return the event that says that *row* runs now."""
    body = {
        "version": row.version, "hash": row.hash, "source": row.source, "reason": row.reason, "state": row.state,
        "changes": [dict(change) for change in row.changes[:MAX_TOLD]],
    }  # fmt: skip
    kind = "config.rolled_back" if row.source == "rollback" else "config.applied"
    return AppendEvent(kind, row.unix, row.author, body=body)
