"""From two replays to what a proposal would have done: earlier, hidden, added, refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sidecar.facts import Scope
from sidecar.incident.learn import Effect
from sidecar.measure import histogram
from sidecar.replay.compare import APART_S, Outcome, Raised, pairs


@dataclass(frozen=True, slots=True)
class Judged:
    """A past incident with what a person said of it; `opened` in Unix seconds."""

    scope: Scope
    opened: float
    verdict: str


def effect(
    before: Outcome,
    after: Outcome,
    incident: Judged,
    past: Sequence[Judged],
    over_s: float,
    *,
    route: str = "",
    timeout_s: float | None = None,
) -> Effect:
    """
    Return what *after* would have done otherwise.

    Args:
        before, after: The two replays.
        incident: The one that is learnt from.
        past: All incidents in the history, with their verdicts.
        over_s: Its length.
        route, timeout_s: Also count the answers of the route, or of all, that took longer.
    """
    rows = pairs(before.raised, after.raised)
    gone = [one for one in before.raised if not _near(one, after.raised)]
    return Effect(
        sooner_s=_sooner(before.raised, after.raised, incident),
        hidden=sum(row["change"] == "hidden" for row in rows),
        added=sum(row["change"] == "added" for row in rows),
        hidden_confirmed=_said(gone, past, "confirmed"),
        hidden_false=_said(gone, past, "false_positive"),
        requests=sum(after.requests.values()),
        refused=_refused_more(before, after),
        innocent_ratio=_innocent(before, after, incident.scope),
        slower=histogram.count_above(_latency(after, route), timeout_s) if timeout_s is not None else 0,
        over_s=over_s,
    )


def _latency(outcome: Outcome, route: str) -> Mapping[int, int]:
    """Return the answers of *route*; of all routes for an empty one."""
    return outcome.latency.get(route, {}) if route else histogram.merge(*outcome.latency.values())


def _refused_more(before: Outcome, after: Outcome) -> int:
    """Count by reason, so that what a limit refuses now is not set off against what an isolation no longer has to."""
    return sum(
        max(count - before.refused.get(route, {}).get(reason, 0), 0)
        for route, reasons in after.refused.items()
        for reason, count in reasons.items()
    )


def _about(one: Raised, incident: Judged) -> bool:
    related = one.scope.contains(incident.scope) or incident.scope.contains(one.scope)
    return related and abs(one.opened - incident.opened) <= APART_S


def _near(one: Raised, others: Sequence[Raised]) -> bool:
    return any(_about(other, Judged(one.scope, one.opened, "")) for other in others)


def _sooner(before: Sequence[Raised], after: Sequence[Raised], incident: Judged) -> float | None:
    old = next((one.opened for one in before if _about(one, incident)), None)
    new = next((one.opened for one in after if _about(one, incident)), None)
    return old - new if old is not None and new is not None else None


def _said(gone: Sequence[Raised], past: Sequence[Judged], verdict: str) -> int:
    """Count the *gone* ones that a person gave this verdict."""
    return sum(any(_about(one, old) and old.verdict == verdict for old in past) for one in gone)


def _innocent(before: Outcome, after: Outcome, scope: Scope) -> float:
    """Return the part that is refused besides, of requests that had no part in any trouble, or not in this client's."""
    others = [key for key in after.clients if not key[2] or (scope.key and key[:2] != (scope.name, scope.key))]
    requests = sum(after.clients[key][0] for key in others)
    more = sum(max(after.clients[key][1] - before.clients.get(key, (0, 0))[1], 0) for key in others)
    return more / requests if requests else 0.0
