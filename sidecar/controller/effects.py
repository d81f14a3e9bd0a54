"""
What the engine wants done: values, carried out by `controller/loop.py` in this order of urgency.

Containment first: `SetDirectives`, `OpenBreaker` and `ResetBreaker` go to the workers at once. `Write`s are stored
beside, in batches of one transaction each; while the store is down they wait in memory and what they say is in force
all the same, marked `durable: false`. `Notify` and `Rollback` follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sidecar.facts import Directive, Fault

Document = Mapping[str, Any]  # a JSON object in the shape that `contract.md` names


# --- what the store keeps --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PutIncident:
    """Insert or replace one incident; the document also holds what the engine needs to go on after a restart."""

    id: int
    state: str
    opened_unix: float
    document: Document


@dataclass(frozen=True, slots=True)
class PutEvidence:
    """Insert the frozen evidence of an incident; a second one for the same incident is refused by the store."""

    incident: int
    document: Document


@dataclass(frozen=True, slots=True)
class PutIsolation:
    """Insert or replace one isolation; `ended` ones are kept for the timeline and not restored."""

    id: str
    ended: bool
    document: Document


@dataclass(frozen=True, slots=True)
class PutOverride:
    """Insert or replace one override by its id."""

    id: str
    ended: bool
    document: Document


@dataclass(frozen=True, slots=True)
class PutVersion:
    """Append one config version; its number is new."""

    version: int
    text: str
    hash: str
    author: str
    reason: str
    source: str
    state: str
    unix: float
    changes: Sequence[Document] = ()


@dataclass(frozen=True, slots=True)
class SetVersionState:
    """Move a config version to `active`, `superseded`, `failed`, `reverted` or `confirming`."""

    version: int
    state: str


@dataclass(frozen=True, slots=True)
class AppendEvent:
    """
    Append one event to the hash chain: everything that happened, and every change by a person (the audit).

    Attributes:
        kind: A dotted word, as `incident.opened`, `isolation.started`, `verdict.confirmed`, `config.applied`.
        author: The token's name, or `automation`.
        incident: The incident it belongs to.
        scope: The scope's text, or empty.
        body: Small facts; never a secret.
    """

    kind: str
    unix: float
    author: str
    incident: int | None = None
    scope: str = ""
    body: Document = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PutBaseline:
    """Insert or replace the detectors' state of one route."""

    route: str
    document: Document


@dataclass(frozen=True, slots=True)
class PutRollup:
    """Insert or replace the aggregate of one route and minute."""

    route: str
    minute_unix: int
    document: Document


@dataclass(frozen=True, slots=True)
class PutSeconds:
    """Insert or replace one minute of the tape that is always recorded: compressed lines of all routes."""

    minute_unix: int
    data: bytes


@dataclass(frozen=True, slots=True)
class PutProposal:
    """Insert or replace one proposal by its number."""

    id: int
    state: str
    document: Document


@dataclass(frozen=True, slots=True)
class PutAnswer:
    """Insert or replace what a call with an Idempotency-Key was answered; kept for a day."""

    key: str
    unix: float
    document: Document


@dataclass(frozen=True, slots=True)
class PutMark:
    """Insert or replace one small text under a key (install key, sticky verdicts, last file hash)."""

    key: str
    text: str


Write = (
    PutIncident
    | PutEvidence
    | PutIsolation
    | PutOverride
    | PutVersion
    | SetVersionState
    | AppendEvent
    | PutBaseline
    | PutRollup
    | PutSeconds
    | PutProposal
    | PutAnswer
    | PutMark
)


# --- what the workers, the people and the config are told ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SetDirectives:
    """Push the full set of directives in force to every worker."""

    items: Sequence[Directive]


@dataclass(frozen=True, slots=True)
class SetFaults:
    """Push the full set of faults that drills inject to every worker."""

    items: Sequence[Fault]


@dataclass(frozen=True, slots=True)
class OpenBreaker:
    """Open a route's breaker in every worker but the one that tripped."""

    route: str
    until_at: float
    detail: str
    except_worker: int | None = None


@dataclass(frozen=True, slots=True)
class ResetBreaker:
    """Close a route's breaker in every worker."""

    route: str


@dataclass(frozen=True, slots=True)
class Alert:
    """
    One message to people.

    Attributes:
        kind: `opened`, `updated`, `escalated`, `proposed`, `released`, `resolved` or `digest`.
        incident: The incident's document, complete with `commands`, `next_step` and `runbook`.
        text: What happened in a few lines of plain text, ready to be read at 3 a.m.
        urgent: Pages (opened and escalated severe ones); others may fold into a digest.
    """

    kind: str
    incident: Document
    text: str
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class Notify:
    """Tell every receiver."""

    alert: Alert


@dataclass(frozen=True, slots=True)
class Rollback:
    """Make the text of an older version the active one again (`respond.rollback: auto`)."""

    to_version: int
    reason: str
    incident: int


Effect = Write | SetDirectives | SetFaults | OpenBreaker | ResetBreaker | Notify | Rollback
