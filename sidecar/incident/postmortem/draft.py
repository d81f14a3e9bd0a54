"""
The post-mortem draft: an incident's own record as Markdown.

Theory
    Only what is recorded is told: every line of the timeline links its datum, every figure comes from the incident's
    document or its account. Nobody is blamed and no cause is guessed; causes and actions are left open for people, with the
    measured hypotheses beside. The same record gives the same bytes, so a draft can be checked against the chain.

What can go wrong
    Free text (reasons, notes, config values, paths) can hold Markdown or line ends: it is put on one line and escaped.
    Events, evidence or the account are missing (folded away, an older release): the draft does without and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sidecar.incident.postmortem import findings, timeline
from sidecar.incident.postmortem.impact import impact
from sidecar.incident.postmortem.markup import code, setting, text
from sidecar.incident.words import clock, duration, many, percent, rfc3339, unix_of

Document = Mapping[str, Any]

SLACK_S: Final = 5.0  # the onset is an estimate
_ANSWERS: Final = (
    "incident.acknowledged", "incident.note", "runbook.ticked", "verdict.", "config.rolled_back", "override.set",
    "breaker.reset",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Record:
    """
    Everything that is recorded of an incident.

    Attributes:
        incident: Its public document.
        events: Its events and those around it, the oldest first, as {sequence, unix, kind, author, scope, body}.
        evidence: What was frozen at its detection; None when it is gone.
        account: What it cost, see `account.py`; None of an older release.
        proposals: What it taught, the oldest first.
    """

    incident: Document
    events: Sequence[Document]
    evidence: Document | None = None
    account: Document | None = None
    proposals: Sequence[Document] = ()


def postmortem(record: Record) -> str:
    """Return the draft."""
    incident, events = record.incident, record.events
    onset = unix_of(incident["onset_time"])
    sections = (
        _head(incident),
        _summary(record),
        impact(incident),
        _times(incident, events),
        timeline.timeline(events, onset),
        _changes(incident),
        findings.hypotheses(incident, record.account, record.evidence),
        _verdict(incident, events),
        findings.well(incident, events),
        findings.badly(incident, events),
        _runbook(incident),
        _actions(record.proposals),
        _people(incident),
        timeline.data(events),
    )
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def _unix(incident: Document, name: str) -> float | None:
    time = incident.get(f"{name}_time")
    return None if time is None else unix_of(time)


def _head(incident: Document) -> list[str]:
    drill = ["", "**This was a drill.** Its fault was injected on purpose."] if incident.get("drill") else []
    return [
        f"# Post-mortem draft: incident {incident['id']}",
        *drill,
        "",
        f"**{text(incident['title'])}**",
        "",
        (
            f"Scope {code(incident['scope'])} · severity {incident['severity']} · state {incident['state']} · verdict "
            f"{text(incident['verdict'])} · resolution {incident['resolution'] or 'none yet'}"
        ),
    ]


# --- summary ----------------------------------------------------------------------------------------------------------


def _summary(record: Record) -> list[str]:
    incident, events = record.incident, record.events
    sentences = [_when(incident), _how_much(incident), _found(incident), _done(incident), _answered(incident, events)]
    again = sum(event["kind"] == "incident.reopened" for event in events)
    onset = unix_of(incident["onset_time"])
    opened = sum(event["kind"] == "breaker.opened" and event["unix"] >= onset - SLACK_S for event in events)
    if again:
        sentences.append(f"It was over and came back {many(again, 'time')}.")
    if opened:
        sentences.append(f"The breaker opened {many(opened, 'time')}.")
    return ["## Summary", "", " ".join(sentence for sentence in sentences if sentence)]


def _when(incident: Document) -> str:
    onset, end = unix_of(incident["onset_time"]), _unix(incident, "resolved")
    if end is None:
        return f"It began at {rfc3339(onset)} and has not ended."
    how = {"recovered": "by recovery", "released": "by release", "expired": "when its lease expired"}
    ended = how.get(incident["resolution"], "as a part of a wider one")
    return f"It lasted {duration(end - onset)}, from {rfc3339(onset)} to {rfc3339(end)}, and ended {ended}."


def _how_much(incident: Document) -> str:
    cost, ratio = incident["impact"], incident["collateral"]["would_have_succeeded_ratio"]
    held = cost["refused"]
    refused = max(sum(row["refused"] for row in cost["scopes"]), held)
    words = f"The API failed {many(cost['failed'], 'request')}, and we refused {refused:,}"
    if held and ratio is not None:
        which = "of which" if held == refused else f"{held:,} of them by isolation, of which"
        words += f", {which} about {held * ratio:,.0f} ({percent(ratio)}) would have succeeded"
    return f"{words}."


def _found(incident: Document) -> str:
    onset, opened = unix_of(incident["onset_time"]), unix_of(incident["opened_time"])
    names = list(dict.fromkeys(signal["detector"] for signal in incident["signals"]))
    by = " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)
    affected = incident["affected"]["share"]
    whom = f", when it concerned {percent(affected)} of all judged requests" if affected else ""
    return f"It was detected by {by}, {_after(opened - onset)} the onset{whom}."


def _after(seconds: float) -> str:
    return f"{duration(max(seconds, 0.0))} after"


def _done(incident: Document) -> str:
    rows = incident["isolations"]
    if not rows:
        why = incident.get("not_isolated_because")
        return f"Nothing was isolated ({text(why)})." if why else "Nothing was isolated."
    scopes = ", ".join(dict.fromkeys(code(row["scope"]) for row in rows))
    return f"{many(len(rows), 'isolation')} of {scopes}, under a lease."


def _answered(incident: Document, events: Sequence[Document]) -> str:
    onset = unix_of(incident["onset_time"])
    first = _first_answer(events, onset)
    if first is None:
        return "No person answered."
    return f"{text(first['author'])} was the first to answer, {_after(first['unix'] - onset)} the onset."


def _first_answer(events: Sequence[Document], onset_unix: float) -> Document | None:
    """Return the first thing that a person said or did: to acknowledge, judge, note, tick, roll back or override is to answer."""
    said = (e for e in events if e["kind"].startswith(_ANSWERS) and e["author"] != "automation")
    return next((event for event in said if event["unix"] >= onset_unix), None)


# --- sections ---------------------------------------------------------------------------------------------------------


def _times(incident: Document, events: Sequence[Document]) -> list[str]:
    onset = unix_of(incident["onset_time"])
    told = next((event["unix"] for event in events if event["kind"] == "incident.notified"), None)
    answered = _first_answer(events, onset)
    rows = (
        ("detected", _unix(incident, "opened")),
        ("people told", told),
        ("isolated", _unix(incident, "isolated")),
        ("acknowledged, or answered in another way", answered["unix"] if answered else None),
        ("recovery began", _unix(incident, "mitigated")),
        ("recovered (resolved)", _unix(incident, "resolved")),
    )
    lines = ["## Times", "", "| until | from the onset | at |", "|---|---|---|"]
    for words, unix in rows:
        after, at = ("never", "") if unix is None else (duration(max(unix - onset, 0.0)), rfc3339(unix))
        lines.append(f"| {words} | {after} | {at} |")
    return lines


def _changes(incident: Document) -> list[str]:
    suspect = incident["suspect"]
    if suspect is None:
        return [
            "## What changed before",
            "",
            (
                "No config version that touches the scope was applied shortly before the onset. Changes outside the sidecar "
                "(deployments, data, dependencies) are not known here."
            ),
        ]
    lines = [
        "## What changed before",
        "",
        (
            f"Config version {suspect['version']} ({text(suspect.get('source', ''))}, by {text(suspect.get('author', ''))}, "
            f"{suspect.get('applied_time', '')}):"
        ),
        "",
    ]
    return lines + [
        f"- {code(row.get('path'))}: {setting(row.get('old'))} → {setting(row.get('new'))}" for row in suspect["diff"]
    ]


def _verdict(incident: Document, events: Sequence[Document]) -> list[str]:
    lines = ["## Verdict", ""]
    said = [event for event in events if event["kind"].startswith("verdict.") and event["kind"] != "verdict.quoted"]
    for event in said:
        reason = event["body"].get("reason")
        words = f": {text(reason)}" if reason else ""
        what = text(event["kind"].partition(".")[2])
        lines.append(f"- {clock(event['unix'])} {text(event['author'])} said {what}{words}")
    if not said:
        lines.append(f"- Nobody has given a verdict; it is {text(incident['verdict'])}.")
    if incident.get("old_verdict"):
        lines.append(f"- Before: {text(incident['old_verdict'])}.")
    return lines


def _runbook(incident: Document) -> list[str]:
    lines = ["## Runbook", "", f"{incident['runbook']}", ""]
    for row in incident["checklist"]:
        done = f" ({text(row['done_by'])}, {row['done_time']})" if row["done_by"] else ""
        lines.append(f"- [{'x' if done else ' '}] {text(row['text'])}{done}")
    return lines


def _actions(proposals: Sequence[Document]) -> list[str]:
    """Return what it taught, as actions that a person takes or refuses."""
    lines = ["## Actions", ""]
    for row in proposals:
        taken = row["state"] == "applied"
        changes = [f"{code(c['path'])}: {setting(c['old'])} → {setting(c['new'])}" for c in row["changes"]]
        rule = row.get("rule")
        changes += [f"{code(rule['path'])} {text(rule['words'])}"] if rule else []
        by = f" by {text(row['decided_by'])}" if row.get("decided_by") else ""
        lines.append(f"- [{'x' if taken else ' '}] Proposal {row['id']} ({row['state']}{by}): {text(row['why'])}.")
        lines += [f"  - {change}" for change in changes]
        lines += [f"  - Effect: {text(row['effect']['words'])}.", f"  - `sidecar proposal show {row['id']}`"]
    if not proposals:
        lines.append("No proposal came of it.")
    return [*lines, "", "- [ ] Action, owner, date:"]


def _people(incident: Document) -> list[str]:
    lines = [
        "## For people to fill in",
        "",
        "- [ ] Owner of this document, reviewers:",
        "- [ ] What users noticed, and what they were told:",
        "- [ ] Root cause, and what contributed:",
        "- [ ] Why it was not noticed before it reached production:",
        "- [ ] Where we were lucky:",
        "- [ ] What we learnt:",
    ]
    if incident["impact"]["refused"] and (incident["collateral"]["would_have_succeeded_ratio"] or 0.0) > 0.5:
        lines.append("- [ ] More than half of what was refused would have succeeded: is `respond.share` too low?")
    if incident["verdict"] == "pending":
        lines.append(
            f"- [ ] Verdict: `sidecar incident confirm {incident['id']}` or `… release {incident['id']} --verdict …`"
        )
    if incident["suspect"] is not None:
        lines.append(f"- [ ] Was config version {incident['suspect']['version']} the cause?")
    return lines
