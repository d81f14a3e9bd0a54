"""What a person tells the engine, and what it answers. Roles were checked before; every command carries its author."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from sidecar.facts import Action, Detector, Scope


class ReleaseVerdict(StrEnum):
    """What a release says about the incident; `NONE` keeps what was said before."""

    FALSE_POSITIVE = "false_positive"
    BENIGN = "benign"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Somebody looks at it."""

    incident: int
    author: str


@dataclass(frozen=True, slots=True)
class Confirm:
    """It is real: keep the isolation, or apply the proposed one."""

    incident: int
    author: str


@dataclass(frozen=True, slots=True)
class Release:
    """End its isolations now."""

    incident: int
    author: str
    verdict: ReleaseVerdict
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """Add a line to its timeline."""

    incident: int
    author: str
    text: str


@dataclass(frozen=True, slots=True)
class Close:
    """Close a resolved one."""

    incident: int
    author: str


@dataclass(frozen=True, slots=True)
class SetOverride:
    """
    Put an override on a scope; it replaces an older one there.

    For `throttle` exactly one of `rate_per_s` and `share_ratio` is set.
    """

    scope: Scope
    action: Action
    ttl_s: float
    reason: str
    author: str
    rate_per_s: float | None = None
    share_ratio: float | None = None


@dataclass(frozen=True, slots=True)
class ClearOverride:
    """End the override on a scope now."""

    scope: Scope
    author: str


@dataclass(frozen=True, slots=True)
class CloseBreaker:
    """Reset a route's breaker by hand, in every worker."""

    route: str
    author: str


@dataclass(frozen=True, slots=True)
class Promote:
    """Listen to a demoted detector again; *control* is `detect.errors:ROUTE`, or without a route all of them."""

    control: str
    author: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Demote:
    """Let a detector only observe."""

    control: str
    author: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Missed:
    """A detector did not find what it should have."""

    control: str
    author: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Tune:
    """
    Take the step that the false positive *incident* asks for: the stored history was replayed with it.

    Attributes:
        hidden: Past incidents that it would have hidden.
        hides_confirmed: Of them, those that a person confirmed; then the step is not taken.
    """

    incident: int
    route: str
    detector: Detector
    hidden: int
    hides_confirmed: int


@dataclass(frozen=True, slots=True)
class StartDrill:
    """Inject a fault on purpose; *kind* is one of `incident/drill.py`."""

    kind: str
    route: str
    for_s: float
    author: str
    share_ratio: float = 1.0


@dataclass(frozen=True, slots=True)
class StopDrill:
    """End the fault of the drill that runs."""

    author: str


@dataclass(frozen=True, slots=True)
class AddSilence:
    """Tell nobody about a scope for a time."""

    scope: Scope
    ttl_s: float
    reason: str
    author: str


@dataclass(frozen=True, slots=True)
class EndSilence:
    """End a silence now."""

    silence: int
    author: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Tick a step of the incident's runbook, counted from 1, or take that back."""

    incident: int
    author: str
    step: int
    done: bool = True


Command = Acknowledge | Confirm | Release | Note | Tick | Close | SetOverride | ClearOverride | CloseBreaker
Teaching = Promote | Demote | Missed | Tune
Practice = StartDrill | StopDrill
Quieting = AddSilence | EndSilence
Asking = Command | Teaching | Practice | Quieting


class RejectedKind(StrEnum):
    """Why not; the admin API makes 404, 409 and 422 of it."""

    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Done:
    """It was done; `document` is the changed thing in its public shape."""

    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rejected:
    """It was not done and nothing changed."""

    kind: RejectedKind
    problem: str
    hint: str

    @classmethod
    def not_found(cls, problem: str, hint: str) -> Self:
        """Say that there is no such thing."""
        return cls(RejectedKind.NOT_FOUND, problem, hint)

    @classmethod
    def conflict(cls, problem: str, hint: str) -> Self:
        """Say that it does not go with what is in force now."""
        return cls(RejectedKind.CONFLICT, problem, hint)

    @classmethod
    def invalid(cls, problem: str, hint: str) -> Self:
        """Say that it is not possible, now or later."""
        return cls(RejectedKind.INVALID, problem, hint)
