"""
A config change is the first suspect (most outages begin with one).

Theory
    A version is suspect when it was applied at most `window_s` before the onset and touches the scope: its diff names
    the scope itself, a wider one, or a part of it. The onset is an estimate, so a version applied up to `SLACK_S` after
    it counts too. Of several the newest is named: it is the one that a rollback would undo.

Tables
    what sounds              may be caused by a version that
    errors, latency, trip    touches the scope
    refusals                 touches the scope
    surge, silence           changes which requests are whose: a route's match, a route more or less, their order. Limits
                             and timeouts do not make clients come or stay away. It bears on every route then: what one
                             route lost, another one got.

What can go wrong
    The first version of all has nothing to go back to: it is no suspect.
    A rollback that makes things worse: it is named, but it is never proposed nor rolled back by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sidecar.facts import Detector, Moment, Scope
from sidecar.incident.lifecycle import Suspect

SLACK_S: Final = 5.0
ARRIVALS: Final = frozenset({Detector.SURGE, Detector.SILENCE})


@dataclass(frozen=True, slots=True)
class Version:
    """
    One applied config version, as a possible suspect.

    Attributes:
        number, back_to: The version, and the one that was active before (0 for none).
        author, source: Who applied it, from where (`file`, `api`, `rollback`, `proposal`).
        applied: When it was committed on the workers.
        changes: Rows {path, old, new}, secrets masked.
        touched: The scopes that the diff touches.
    """

    number: int
    back_to: int
    author: str
    source: str
    applied: Moment
    changes: tuple[dict[str, Any], ...] = ()
    touched: frozenset[Scope] = frozenset()


def touches(touched: Collection[Scope], scope: Scope) -> bool:
    """Tell whether a diff that touches *touched* bears on *scope*."""
    return any(part.contains(scope) or scope.contains(part) for part in touched)


def reroutes(version: Version) -> bool:
    """Tell whether *version* changes which route a request belongs to."""
    paths = (str(change.get("path", "")).split(".") for change in version.changes)
    return any(steps[0] == "routes" and (len(steps) == 1 or steps[2:3] == ["match"]) for steps in paths)


def first_suspect(
    versions: Sequence[Version], scope: Scope, detectors: Collection[Detector], onset_at: float, window_s: float
) -> Suspect | None:
    """
    Return the newest version that may have caused what began at *onset_at*; None when there is none.

    Args:
        versions: In the order of their application.
        scope: What is abnormal.
        detectors: What sounds about it.
        onset_at: Monotonic seconds of the estimated onset.
        window_s: How long before the onset a change is suspect.
    """
    for version in reversed(versions):
        recent = onset_at - window_s <= version.applied.at <= onset_at + SLACK_S
        bears = reroutes(version) if ARRIVALS.issuperset(detectors) else touches(version.touched, scope)
        if version.back_to and recent and bears:
            return Suspect(
                version.number, version.back_to, version.author, version.source, version.applied.unix, version.changes
            )
    return None


def to_json(version: Version) -> dict[str, Any]:
    """Return what the store keeps of *version*."""
    touched = sorted(str(scope) for scope in version.touched)
    return {
        "number": version.number, "back_to": version.back_to, "author": version.author, "source": version.source,
        "unix": version.applied.unix, "changes": list(version.changes), "touched": touched,
    }  # fmt: skip


def from_json(row: Mapping[str, Any], now: Moment) -> Version:
    """Read what `to_json` wrote."""
    applied = Moment(now.at - (now.unix - row["unix"]), row["unix"])
    touched = frozenset(Scope.parse(text) for text in row["touched"])
    return Version(row["number"], row["back_to"], row["author"], row["source"], applied, tuple(row["changes"]), touched)
