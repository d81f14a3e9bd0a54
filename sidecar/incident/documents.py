"""Incidents as JSON documents: the public shape of the contract, and the one that the store keeps for a restart."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sidecar.facts import Action, Detector, Moment, Scope, Signal
from sidecar.incident.account import Account
from sidecar.incident.lifecycle import (
    Affected,
    Claim,
    Impact,
    Incident,
    IncidentState,
    Narrowest,
    Proposal,
    Resolution,
    Severity,
    Suspect,
    Ticked,
    Verdict,
)
from sidecar.incident.telling import CHECKLISTS, commands, runbook, title
from sidecar.incident.words import rfc3339

KEPT: Final = "kept"  # what the store keeps beside the public shape
ACCOUNT: Final = "account"  # and this, for the post-mortem


def _time(moment: Moment | None) -> str | None:
    return None if moment is None else rfc3339(moment.unix)


def claim_document(claim: Claim) -> dict[str, Any]:
    """Return one signal in the contract's shape."""
    signal = claim.signal
    return {
        "detector": signal.detector.value,
        "scope": str(signal.scope),
        "value": signal.value,
        "worst": claim.worst.value,
        "baseline": signal.baseline,
        "unit": signal.unit,
        "sample": signal.sample,
        "score": signal.score,
        "threshold": signal.threshold,
        "since_time": rfc3339(claim.since.unix),
        "sounding": claim.sounding,
        "severe": signal.severe,
    }


def public(
    incident: Incident,
    isolations: Sequence[Mapping[str, Any]],
    next_step: Mapping[str, Any] | None,
    *,
    propose_rollback: bool,
    silenced: Mapping[str, Any] | None = None,
    account: Account | None = None,
) -> dict[str, Any]:
    """
    Return the incident in the contract's shape.

    Args:
        incident: Which one.
        isolations: Its isolations' documents, the oldest first.
        next_step: The ladder's next rung as {"do", "at_time"}, or None.
        propose_rollback: Whether a suspect may be proposed for rollback.
        silenced: The silence that keeps it from people, or None.
        account: Its cost by scope; None when nothing is counted yet.
    """
    isolated = any(row["state"] in ("provisional", "confirmed", "recovering") for row in isolations)
    return {
        **_course(incident),
        "signals": [claim_document(claim) for claim in incident.claims],
        "isolations": list(isolations),
        "suspect": _suspect(incident.suspect),
        "next_step": next_step,
        "would_have": None if incident.isolations else _proposal(incident),
        "not_isolated_because": None if incident.isolations else incident.ruling or None,
        "budget_reached": incident.budget_reached,
        "idle": incident.idle,
        "old_verdict": incident.quote or None,
        "affected": _affected(incident.affected),
        **_cost(incident, account),
        "runbook": runbook(incident),
        "checklist": checklist(incident),
        "silenced": silenced,
        "commands": commands(incident, isolated=isolated, propose_rollback=propose_rollback),
    }


def _course(incident: Incident) -> dict[str, Any]:
    """Return what it is, where it stands and when it came there."""
    return {
        "id": incident.id,
        "title": title(incident),
        "state": incident.state.value,
        "verdict": incident.verdict.value,
        "resolution": incident.resolution.value if incident.resolution else None,
        "severity": incident.severity.value,
        "scope": str(incident.scope),
        "onset_time": _time(incident.onset),
        "opened_time": _time(incident.opened),
        "isolated_time": _time(incident.isolated),
        "acknowledged_time": _time(incident.acknowledged),
        "acknowledged_by": incident.acknowledged_by or None,
        "mitigated_time": _time(incident.mitigated),
        "resolved_time": _time(incident.resolved),
        "closed_time": _time(incident.closed),
        "flaps": incident.flaps,
        "drill": incident.drill,
        "observed": incident.observed,
    }


def _cost(incident: Incident, account: Account | None) -> dict[str, Any]:
    """Return what it cost, and what of that the isolations did."""
    return {
        "impact": {
            "failed": incident.impact.failed,
            "refused": incident.impact.refused,
            "seconds": incident.impact.seconds,
            "scopes": account.costs() if account else [],
            "others": account.others if account else {"requests": 0, "failed": 0},
        },
        "collateral": {
            "refused": incident.impact.refused,
            "would_have_succeeded_ratio": incident.impact.would_have_succeeded_ratio,
        },
    }


def checklist(incident: Incident) -> list[dict[str, Any]]:
    """Return the steps of its runbook, each with who has done it and when."""
    ticks = {tick.text: tick for tick in incident.ticks}
    return [
        {
            "step": number,
            "text": text,
            "done_by": ticks[text].author if text in ticks else None,
            "done_time": rfc3339(ticks[text].unix) if text in ticks else None,
        }
        for number, text in enumerate(CHECKLISTS[incident.lead.signal.detector], start=1)
    ]


def without_kept(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored document in its public shape."""
    return {key: value for key, value in document.items() if key not in (KEPT, ACCOUNT)}


def _suspect(suspect: Suspect | None) -> dict[str, Any] | None:
    if suspect is None:
        return None
    return {
        "version": suspect.version,
        "diff": list(suspect.changes),
        "author": suspect.author,
        "source": suspect.source,
        "applied_time": rfc3339(suspect.unix),
        "back_to": suspect.back_to,
    }


def _proposal(incident: Incident) -> dict[str, Any] | None:
    proposal = incident.proposal
    if proposal is None:
        return None
    return {"scope": str(proposal.scope), "action": proposal.action.value, "share": proposal.share_ratio}


def _affected(affected: Affected) -> dict[str, Any]:
    return {
        "share": affected.share_ratio,
        "requests": affected.requests,
        "failures": affected.failures,
        "method": affected.method or None,
        "clients": _rows("key", affected.clients),
        "paths": _rows("path", affected.paths),
        "narrowest": _narrowest(affected.narrowest),
    }


def _narrowest(part: Narrowest | None) -> dict[str, Any] | None:
    if part is None:
        return None
    return {
        "dimension": part.dimension,
        "name": part.name,
        "share": part.share_ratio,
        "requests": part.requests,
        "failures": part.failures,
    }


def _rows(name: str, rows: Sequence[tuple[str, int, int]]) -> list[dict[str, Any]]:
    return [{name: key, "requests": requests, "failures": failures} for key, requests, failures in rows]


# --- what the store keeps --------------------------------------------------------------------------------------


def kept(incident: Incident) -> dict[str, Any]:
    """Return every field as JSON: scopes as text, moments as Unix seconds."""
    return {field.name: _out(getattr(incident, field.name)) for field in dataclasses.fields(incident)}


def _out(value: Any) -> Any:
    if isinstance(value, Moment):
        return value.unix
    if isinstance(value, Scope):
        return str(value)
    if isinstance(value, tuple):
        return [_out(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _out(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


def from_kept(row: Mapping[str, Any], now: Moment) -> Incident:
    """Read what `kept` wrote; monotonic moments are re-made from the wall clock."""

    def moment(unix: float | None) -> Moment | None:
        return None if unix is None else Moment(now.at - (now.unix - unix), unix)

    def sure(unix: float) -> Moment:
        return Moment(now.at - (now.unix - unix), unix)

    proposal, suspect, resolution = row["proposal"], row["suspect"], row["resolution"]
    return Incident(
        scope=Scope.parse(row["scope"]),
        opened=sure(row["opened"]),
        onset=sure(row["onset"]),
        unanswered=sure(row["unanswered"]),
        state=IncidentState(row["state"]),
        verdict=Verdict(row["verdict"]),
        resolution=Resolution(resolution) if resolution else None,
        severity=Severity(row["severity"]),
        claims=tuple(_claim(claim, sure) for claim in row["claims"]),
        isolations=tuple(row["isolations"]),
        suspect=Suspect(**{**suspect, "changes": tuple(suspect["changes"])}) if suspect else None,
        proposal=_read_proposal(proposal) if proposal else None,
        affected=_read_affected(row["affected"]),
        impact=Impact(**row["impact"]),
        acknowledged=moment(row["acknowledged"]),
        spoke=moment(row["spoke"]),
        isolated=moment(row["isolated"]),
        mitigated=moment(row["mitigated"]),
        resolved=moment(row["resolved"]),
        closed=moment(row["closed"]),
        id=row["id"],
        acknowledged_by=row["acknowledged_by"],
        rungs=row["rungs"],
        flaps=row["flaps"],
        rolled_back=row["rolled_back"],
        ruling=row["ruling"],
        quote=row["quote"],
        budget_reached=row["budget_reached"],
        idle=row.get("idle", False),
        drill=row.get("drill", False),
        observed=row.get("observed", False),
        ticks=tuple(Ticked(**tick) for tick in row.get("ticks", ())),
    )


def _claim(row: Mapping[str, Any], sure: Any) -> Claim:
    since = sure(row["since"])
    return Claim(
        _signal(row["signal"], since), _signal(row["worst"], since), since, sure(row["heard"]), row["sounding"]
    )


def _signal(row: Mapping[str, Any], since: Moment) -> Signal:
    return Signal(
        **{**row, "detector": Detector(row["detector"]), "scope": Scope.parse(row["scope"]), "since_at": since.at}
    )


def _read_proposal(row: Mapping[str, Any]) -> Proposal:
    return Proposal(Scope.parse(row["scope"]), Action(row["action"]), row["share_ratio"])


def _read_affected(row: Mapping[str, Any]) -> Affected:
    ranked = {name: tuple((key, n, bad) for key, n, bad in row[name]) for name in ("clients", "paths")}
    part = row.get("narrowest")
    narrowest = Narrowest(**part) if part else None
    return Affected(row["share_ratio"], row["requests"], row["failures"], row["method"], narrowest=narrowest, **ranked)
