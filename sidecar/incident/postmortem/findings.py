"""The post-mortem's sections about what was found: hypotheses in order of what they explain, what went well, what did not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sidecar.incident.postmortem.hypotheses import Hypothesis, ranked
from sidecar.incident.postmortem.impact import elsewhere
from sidecar.incident.postmortem.markup import code, text
from sidecar.incident.words import duration, figure, many, measured, percent, unix_of

Document = Mapping[str, Any]

_MET: Final = 0.5


# --- hypotheses -------------------------------------------------------------------------------------------------------


def hypotheses(incident: Document, account: Document | None, evidence: Document | None) -> list[str]:
    """Return the section: the suspect, the parts of the traffic by attribution, and what was measured."""
    parts = account["parts"] if account is not None else _at_detection(incident)
    found = ranked(parts, tuple(account.get("judged", (0, 0))) if account is not None else (0, 0))
    lines = ["## Hypotheses, ranked by attribution", ""]
    suspect = incident["suspect"]
    if suspect is not None:
        lines += [_suspected(suspect, incident), ""]
    if found:
        lines += [
            "| | part of the traffic | of all failures | its own requests failed | all others failed | reading |",
            "|---|---|---|---|---|---|",
            *(f"| {place} | {_row(each)} |" for place, each in enumerate(found, start=1)),
        ]
        if not found[0].explains:
            lines += ["", f"No part of the traffic explains it: {code(incident['scope'])} failed as a whole."]
    else:
        lines.append("No request failed that would tell one part of the traffic from another.")
    return [*lines, "", "What was measured:", "", *_measured(incident, parts, evidence)]


def _at_detection(incident: Document) -> dict[str, list[tuple[str, int, int]]]:
    affected = incident["affected"]
    return {
        word: [(row[key], row["requests"], row["failures"]) for row in affected[name]]
        for word, name, key in (("client", "clients", "key"), ("path", "paths", "path"))
    }


def _suspected(suspect: Document, incident: Document) -> str:
    before = unix_of(incident["onset_time"]) - unix_of(suspect["applied_time"])
    when = f"{duration(before)} before the onset" if before >= 0 else "as it began"
    return f"**First suspect: config version {suspect['version']}**, applied {when}; it touches the scope (see what changed before)."


def _row(each: Hypothesis) -> str:
    rest = each.rest_ratio
    others = f"{percent(rest)} of {each.rest[0]:,}" if rest is not None else "–"
    own = f"{percent(each.own_ratio)} of {each.own[0]:,}"
    reading = f"**{each.reading}**" if each.explains else each.reading
    return f"{each.dimension} {code(each.name)} | {percent(each.share_ratio)} | {own} | {others} | {reading}"


def _measured(
    incident: Document, parts: Mapping[str, Sequence[tuple[str, int, int]]], evidence: Document | None
) -> list[str]:
    lines = _signals(incident)
    statuses = [row for row in parts.get("status", ()) if row[2]][:3]
    if statuses:
        lines.append("- How it failed: " + ", ".join(f"{code(name)} {bad:,}" for name, _, bad in statuses) + ".")
    narrowest = incident["affected"].get("narrowest")
    if narrowest:
        lines.append(
            f"- At detection {percent(narrowest['share'])} of the change was one {narrowest['dimension']}: "
            f"{code(narrowest['name'])} ({narrowest['failures']:,} of {narrowest['requests']:,} failed)."
        )
    if evidence is None:
        return [*lines, "- The frozen evidence is no longer stored."]
    for route in evidence["routes"]:
        came, again = (sum(s.get(name, 0) for s in route["series"]) for name in ("arrivals", "again"))
        if again:
            lines.append(
                f"- Clients of {code(route['route'])} asked again within the back-off: {again:,} of {came:,} requests, "
                f"{figure(came / max(came - again, 1))} for each first try."
            )
        if route["breaker"] != "closed":
            lines.append(f"- The breaker of {code(route['route'])} was {text(route['breaker'])} at detection.")
    return lines


def _signals(incident: Document) -> list[str]:
    """Return what each detector claimed: on the incident's own scope first, then by score."""
    rows = sorted(
        incident["signals"], key=lambda s: (s["scope"] != incident["scope"], -s["score"] / max(s["threshold"], 1e-9))
    )
    return [
        f"- {signal['detector']} on {code(signal['scope'])}: {measured(signal['worst'], signal['unit'])} at its worst, "
        f"normally {measured(signal['baseline'], signal['unit'])}, since {signal['since_time']}."
        for signal in rows
    ]


# --- what went well, and what did not ---------------------------------------------------------------------------------


def well(incident: Document, events: Sequence[Document]) -> list[str]:
    """Return the section: only what was measured."""
    onset, opened = unix_of(incident["onset_time"]), unix_of(incident["opened_time"])
    lines = ["## What went well, measured", "", f"- Detected {_late(opened - onset)} the onset."]
    isolated = incident["isolated_time"]
    if isolated is not None:
        late = unix_of(isolated) - opened
        when = f"{duration(late)} after its detection" if late >= 1 else "in the second of its detection"
        lines.append(f"- Isolated {when}, under a lease: it would have ended without anybody.")
    ratio, refused = incident["collateral"]["would_have_succeeded_ratio"], incident["impact"]["refused"]
    if refused and ratio is not None and ratio < _MET:
        lines.append(
            f"- Of {many(refused, 'request')} that isolations refused, {percent(1.0 - ratio)} would have failed anyway."
        )
    up, _ = _steps(events)
    if up:
        lines.append(f"- Traffic came back in {many(up, 'step')} on evidence.")
    other = elsewhere(incident)
    return lines + ([f"- {other}"] if other and incident["impact"]["others"]["failed"] == 0 else [])


def badly(incident: Document, events: Sequence[Document]) -> list[str]:
    """Return the section about what was not as it should be, measured; empty when nothing is known."""
    kinds = [event["kind"] for event in events]
    ratio, refused = incident["collateral"]["would_have_succeeded_ratio"], incident["impact"]["refused"]
    lines = []
    if refused and ratio is not None and ratio >= _MET:
        lines.append(
            f"- Of {many(refused, 'request')} that isolations refused, {percent(ratio)} would have succeeded: recovery needs "
            "evidence, and what came meanwhile was refused."
        )
    _, back = _steps(events)
    lines += [f"- Recovery went {many(back, 'step')} back."] if back else []
    other = elsewhere(incident)
    lines += [f"- {other}"] if other and incident["impact"]["others"]["failed"] else []
    silent = sum(kind.startswith("ladder.") for kind in kinds)
    lines += [f"- Nobody answered: the ladder took {many(silent, 'step')}."] if silent else []
    quiet = kinds.count("incident.acknowledgement_withdrawn")
    lines += [f"- {many(quiet, 'acknowledgement')} went quiet and was withdrawn."] if quiet else []
    lines += ["- The blast-radius budget was reached."] if incident["budget_reached"] else []
    left = sum(not row["done_by"] for row in incident["checklist"])
    lines += [f"- {many(left, 'step')} of the runbook not ticked."] if left and not incident.get("drill") else []
    return ["## What did not, measured", "", *lines] if lines else []


def _late(seconds: float) -> str:
    return f"{duration(max(seconds, 0.0))} after"


def _steps(events: Sequence[Document]) -> tuple[int, int]:
    """Return how many steps of the recovery went forward, and how many back."""
    ramps = [event["body"].get("why") for event in events if event["kind"] == "isolation.ramped"]
    back = ramps.count("relapse")
    return len(ramps) - back, back
