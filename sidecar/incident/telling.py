"""
How an incident is told: its title, its alert, and the commands that fit its state.

Written for one reader: an operator at 3 a.m. with ten seconds. So what is wrong stands first, in plain words and with
its normal value; then what was done and until when; then what to type. Everything else follows.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sidecar.facts import Detector, Moment, Scope, ScopeKind, Signal
from sidecar.incident.lifecycle import Claim, Incident, IncidentState, Suspect, Verdict
from sidecar.incident.words import clock, duration, many, measured, percent, unix_of

TOP: Final = 3  # how many clients and paths an alert names
EASED: Final = 0.5
HARDLY: Final = 0.1

CHECKLISTS: Final[Mapping[Detector, tuple[str, ...]]] = {
    Detector.ERRORS: (
        "Look at the statuses and paths in the evidence: one path or all of them?",
        "Look at what changed: config version, deployment of the API, its database.",
        "Confirm when it is real, release when it is not.",
    ),
    Detector.LATENCY: (
        "Look at in-flight requests: do they pile up (a dependency hangs) or are all answers slow (load)?",
        "Look at the API's own saturation: CPU, connection pools, locks.",
        "Confirm when it is real, release when it is not.",
    ),
    Detector.TRIP: (
        "Look at the error behind the trip: refused connections mean that the API is down.",
        "Look at the flap counter: a breaker that trips again and again needs the cause removed, not more time.",
    ),
    Detector.REFUSALS: (
        "Look at the config version named as suspect: is a limit too low?",
        "Roll it back with the first command, then correct the limit and apply it with --confirm-within.",
    ),
    Detector.SURGE: (
        "Look at the top clients: one client or all of them?",
        "For one client set an override on it; for all of them check that the limits fit the API.",
    ),
    Detector.SILENCE: (
        "Look before the sidecar: load balancer, DNS, certificates, the clients' own deployment.",
        "Look at the other routes: silent too, or only this one?",
    ),
    Detector.BURN: (
        "Look at the failures or slow answers that no other signal told: which status, method and path?",
        "Look back over days: since when is the route worse than its objective?",
        "Mend it within days, or set an objective that the route can keep; release it as benign when it is meant.",
    ),
    Detector.DRIFT: (
        "Look at the value and what is usual at this hour: is the difference one that matters to anybody?",
        "Look back over the day: a step (a deployment, a batch job), or a slope (a leak, a growing table)?",
        "Release it as benign when the new state is meant; else open a task before it becomes an outage.",
    ),
}


def runbook(incident: Incident) -> str:
    """Return the runbook of the claim that leads."""
    return f"docs/runbooks/{incident.lead.signal.detector}.md"


def place(scope: Scope, method: str = "") -> str:
    """Return a scope in words: `POST checkout`, `client 10.0.0.7 on checkout`, `the whole service`."""
    match scope.kind:
        case ScopeKind.SERVICE:
            return "the whole service"
        case ScopeKind.CLIENT:
            return f"client {scope.key} on {scope.name}"
        case ScopeKind.ENDPOINT:
            return f"endpoint {scope.name}"
        case ScopeKind.ROUTE:
            return f"{method} {scope.name}" if method else scope.name


def title(incident: Incident) -> str:
    """Return one line: where, what, and what is normal."""
    words = claim_text(incident.lead, incident.scope, running=incident.running, idle=incident.idle)
    drill = "[drill] " if incident.drill else ""
    return f"{drill}{place(incident.scope, incident.affected.method)}: {words}"


def eased(claim: Claim) -> bool:
    """Tell whether the effect is now at most half of what it was at its worst."""
    now, worst = claim.signal, claim.worst
    return abs(now.value - now.baseline) <= EASED * abs(worst.value - worst.baseline) and now.value != worst.value


def claim_text(claim: Claim, scope: Scope, *, running: bool = True, idle: bool = False) -> str:
    """
    Return what one signal says in plain words: its worst, and when it goes on at much less, its present too.

    Args:
        claim: Which one.
        scope: Of the incident.
        running: The incident has not ended.
        idle: No request comes at present.
    """
    signal = claim.worst
    value, normal = measured(signal.value, signal.unit), measured(signal.baseline, signal.unit)
    whose = "its requests" if scope.kind is ScopeKind.CLIENT else "requests"
    silent = running and idle and signal.detector is not Detector.SILENCE
    was = silent or (running and eased(claim))
    usual = f"before: {normal}" if signal.detector is Detector.REFUSALS else f"normally {normal}"
    if was:
        present = "no requests" if silent else measured(claim.signal.value, signal.unit)
        usual = f"{present} now, {usual}"
    past = was or not running
    match signal.detector:
        case Detector.ERRORS:
            return f"{value} of {whose} {'failed' if past else 'fail'} ({usual})"
        case Detector.LATENCY if signal.unit == "s":
            return f"answers {'took' if past else 'take'} {value} ({usual})"
        case Detector.LATENCY:
            return f"{value} of {whose} {'were' if past else 'are'} slow ({usual})"
        case Detector.REFUSALS:
            return f"{value} of {whose} {'were' if past else 'are'} refused by limits ({usual})"
        case Detector.SURGE:
            return f"{value} requests {'arrived' if past else 'arrive'} ({usual})"
        case Detector.SILENCE:
            few = f"only {value} requests" if signal.value > HARDLY * signal.baseline else "hardly any requests"
            return f"{few} {'arrived' if past else 'arrive'} ({usual})"
        case Detector.BURN | Detector.DRIFT:
            return _slow_text(signal, usual, was=past)
        case Detector.TRIP:
            return f"the breaker opened{_failed_before(signal, value)}"


def _failed_before(signal: Signal, value: str) -> str:
    """Return what failed around a trip; nothing when slow answers were its cause."""
    return f" ({value} of {many(signal.sample, 'request')} failed)" if signal.value > signal.baseline else ""


def _slow_text(signal: Signal, usual: str, *, was: bool) -> str:
    value = measured(signal.value, signal.unit)
    if signal.detector is Detector.BURN:
        allowed = measured(signal.baseline, signal.unit)
        return f"{value} of requests {'spent' if was else 'spend'} the error budget (the objective allows {allowed})"
    match signal.unit:
        case "ratio":
            return f"{value} of requests {'failed' if was else 'fail'}, which is unusual ({usual})"
        case "s":
            return f"answers {'took' if was else 'take'} {value}, which is unusual ({usual})"
        case _:
            return f"{value} requests {'arrived' if was else 'arrive'}, which is unusual ({usual})"


def commands(incident: Incident, *, isolated: bool, propose_rollback: bool) -> list[str]:
    """
    Return the exact commands that make sense now, the most likely first.

    Args:
        incident: Which one.
        isolated: Whether an isolation of it is in force.
        propose_rollback: Whether a suspect may be proposed for rollback.
    """
    number = incident.id
    if incident.state is IncidentState.CLOSED:
        return [f"sidecar incident postmortem {number}"]
    if incident.state is IncidentState.RESOLVED:
        verdict = (
            []
            if incident.verdict is not Verdict.PENDING
            else [_release(incident), f"sidecar incident confirm {number}"]
        )
        return [f"sidecar incident postmortem {number}", *verdict, f"sidecar incident close {number}"]
    lines = [f"sidecar config rollback {incident.suspect.back_to}"] if propose_rollback and incident.suspect else []
    if incident.verdict is not Verdict.CONFIRMED or (incident.proposal and not isolated):
        lines.append(f"sidecar incident confirm {number}")
    lines.append(_release(incident))
    if not incident.acknowledged_by:
        lines.append(f"sidecar incident ack {number}")
    if incident.proposal is not None and not isolated:
        scope = shlex.quote(str(incident.scope))
        lines.append(f"sidecar override set {scope} throttle=10% --ttl 15m --reason 'incident {number}'")
    lines.append(f"sidecar incident show {number}")
    return lines


def _release(incident: Incident) -> str:
    verdict = "none" if incident.verdict is Verdict.CONFIRMED else "false_positive"
    return f"sidecar incident release {incident.id} --verdict {verdict}"


def affected_text(incident: Incident) -> str:
    """Return who is affected, in one line."""
    affected = incident.affected
    words = [f"{percent(affected.share_ratio)} of the requests"] if affected.share_ratio else []
    part = affected.narrowest
    if part is not None:
        of_it = f"{part.failures} of {part.requests} failed"
        words.append(f"{percent(part.share_ratio)} of it is {part.dimension} {part.name} ({of_it})")
    for name, rows in (("clients", affected.clients), ("paths", affected.paths)):
        if rows:
            words.append(f"{name} " + ", ".join(f"{key} ({bad} of {n} failed)" for key, n, bad in rows[:TOP]))
    return "; ".join(words) or "not known yet"


def suspect_text(suspect: Suspect) -> str:
    """Return what changed, in one line."""
    rows = [f"{row.get('path')}: {row.get('old')} → {row.get('new')}" for row in suspect.changes[:TOP]]
    more = len(suspect.changes) - len(rows)
    rest = f" and {more} more" if more > 0 else ""
    return (
        f"config version {suspect.version} ({suspect.source}, by {suspect.author or 'nobody'}, "
        f"{clock(suspect.unix)}): {'; '.join(rows)}{rest}"
    )


def done_text(incident: Incident, isolations: Sequence[Mapping[str, Any]]) -> str:
    """Return what was done, until when, in one line."""
    rolled_back = (
        f"; rolling back to config version {incident.suspect.back_to}"
        if incident.rolled_back and incident.suspect
        else ""
    )
    return _isolated_text(incident, isolations) + rolled_back


def _isolated_text(incident: Incident, isolations: Sequence[Mapping[str, Any]]) -> str:
    live = [row for row in isolations if row["state"] in ("provisional", "confirmed", "recovering")]
    if live:
        rows = [
            f"{row['scope']} {row['action']}d, {percent(row['share'])} passes ({row['state']}, {row['id']}, "
            f"until {clock(unix_of(row['end_time']))} unless renewed)"
            for row in live
        ]
        limited = "; budget reached: more passes than the policy's share" if incident.budget_reached else ""
        return "; ".join(rows) + limited
    if isolations:
        last = isolations[-1]
        return f"{last['id']} {last['state']}: {last['ended_why']}" if last.get("ended_why") else f"{last['id']} ended"
    would = incident.proposal
    words = f"nothing ({incident.ruling})" if incident.ruling else "nothing"
    if would is not None:
        words += f"; would {would.action} {would.scope} to {percent(would.share_ratio)}"
    return words


def alert(kind: str, document: Mapping[str, Any], incident: Incident, now: Moment) -> str:
    """
    Return the text of one alert.

    Args:
        kind: `opened`, `updated`, `escalated`, `proposed`, `released` or `resolved`.
        document: The incident's public shape, complete.
        incident: The same incident.
        now: The moment of telling.
    """
    until = incident.resolved.unix if incident.resolved else now.unix
    lasting = duration(max(until - incident.onset.unix, 0.0))
    ended = f", {incident.resolution}" if incident.resolution else ""
    lines = [
        f"[{incident.severity}] incident {incident.id} {kind}: {document['title']}",
        f"since    {clock(incident.onset.unix)} ({lasting}{ended})",
        *(f"measured {line}" for line in _measurements(incident)),
        f"affected {affected_text(incident)}",
        f"done     {done_text(incident, document['isolations'])}",
    ]
    if incident.suspect:
        lines.append(f"changed  {suspect_text(incident.suspect)}")
    if document["next_step"]:
        step = document["next_step"]
        lines.append(f"else     {step['do']} at {clock(unix_of(step['at_time']))} if nobody answers")
    if incident.quote:
        lines.append(f"before   {incident.quote}")
    lines += [f"type     {line}" for line in document["commands"]]
    lines.append(f"runbook  {document['runbook']}")
    return "\n".join(lines)


def _measurements(incident: Incident) -> list[str]:
    return [_measurement(claim) for claim in incident.claims if claim.sounding or incident.resolved]


def _measurement(claim: Claim) -> str:
    worst = claim.worst
    now = f" ({measured(claim.signal.value, worst.unit)} now)" if claim.sounding and eased(claim) else ""
    return (
        f"{worst.detector}: {measured(worst.value, worst.unit)}{now}, normally {measured(worst.baseline, worst.unit)}, "
        f"{many(worst.sample, 'request')} (score {worst.score:.1f}, threshold {worst.threshold:.1f})"
    )
