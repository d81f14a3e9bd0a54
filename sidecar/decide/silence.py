"""A maintenance window: people are not told about a scope for a time; nothing else changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.facts import Moment, Scope
from sidecar.incident.words import rfc3339


@dataclass(frozen=True, slots=True)
class Silence:
    """
    One silence in force.

    Attributes:
        scope: Incidents on it or inside it page nobody.
        author, reason: Who and why.
        started, end: On both clocks.
    """

    id: int
    scope: Scope
    author: str
    reason: str
    started: Moment
    end: Moment


def covering(silences: Iterable[Silence], scope: Scope) -> Silence | None:
    """Return the silence that lasts longest of those that cover all of *scope*; None when people are told."""
    found = [silence for silence in silences if silence.scope.contains(scope)]
    return max(found, key=lambda silence: (silence.end.at, silence.id), default=None)


def document(silence: Silence) -> dict[str, Any]:
    """Return its public shape."""
    return {
        "id": silence.id,
        "scope": str(silence.scope),
        "author": silence.author,
        "reason": silence.reason,
        "start_time": rfc3339(silence.started.unix),
        "end_time": rfc3339(silence.end.unix),
    }


def to_store(silence: Silence, boot: str) -> dict[str, Any]:
    """Return what the store keeps of it."""
    return {
        "id": silence.id, "scope": str(silence.scope), "author": silence.author, "reason": silence.reason,
        "boot": boot, "started": [silence.started.at, silence.started.unix], "end": [silence.end.at, silence.end.unix],
    }  # fmt: skip


def from_store(row: Mapping[str, Any], boot: str, now: Moment) -> Silence:
    """Read what `to_store` wrote; moments of another boot are re-made from the wall clock."""
    (started_at, started_unix), (end_at, end_unix) = row["started"], row["end"]
    same = bool(boot) and row["boot"] == boot
    shift = 0.0 if same else (now.at - now.unix) - (end_at - end_unix)
    started, end = Moment(started_at + shift, started_unix), Moment(end_at + shift, end_unix)
    return Silence(row["id"], Scope.parse(row["scope"]), row["author"], row["reason"], started, end)
