"""
The post-mortem draft: an incident's own record as Markdown.

Theory
    Only what is recorded is told: every line of the timeline has its datum behind it, every figure comes from the
    incident's document. Nobody is blamed and no cause is guessed; causes and actions are left open for people, with the
    measured hypotheses beside. The same record gives the same bytes, so a draft can be checked against the chain.

What can go wrong
    Free text (reasons, notes, config values, paths) can hold Markdown or line ends: it is put on one line and escaped.
    Events are missing (folded into a checkpoint): the draft says how many it rests on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sidecar.incident.words import clock, duration, many, measured, percent, rfc3339, unix_of

Document = Mapping[str, Any]

_QUIET: Final = frozenset({"incident.notified", "isolation.renewed"})  # counted, not listed
_LIVE: Final = frozenset({"provisional", "confirmed", "recovering"})
_ESCAPED: Final = "\\`*_{}[]<>|#"


def postmortem(
    incident: Document, events: Sequence[Document], evidence: Document | None, proposals: Sequence[Document] = ()
) -> str:
    """
    Return the draft.

    Args:
        incident: Its public document.
        events: Its events, the oldest first, as {sequence, unix, kind, author, scope, body}.
        evidence: What was frozen at its detection; None when it is gone.
        proposals: What it taught, the oldest first.
    """
    sections = (
        _head(incident),
        _summary(incident),
        _impact(incident),
        _times(incident),
        _timeline(events),
        _changes(incident),
        _hypotheses(incident, evidence),
        _verdict(incident, events),
        _well(incident, events),
        _runbook(incident),
        _actions(proposals),
        _open_ends(incident),
    )
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def _text(value: Any) -> str:
    """Return free text on one line, with Markdown's own characters escaped."""
    flat = " ".join(str(value).split())
    return "".join(f"\\{char}" if char in _ESCAPED else char for char in flat)


def _code(value: Any) -> str:
    """Return *value* as code, whatever it holds."""
    flat = " ".join(str(value).split()).replace("`", "'")
    return f"`{flat}`"


def _unix(incident: Document, name: str) -> float | None:
    text = incident.get(f"{name}_time")
    return None if text is None else unix_of(text)


def _head(incident: Document) -> list[str]:
    drill = ["", "**This was a drill.** Its fault was injected on purpose."] if incident.get("drill") else []
    return [
        f"# Post-mortem draft: incident {incident['id']}",
        *drill,
        "",
        f"**{_text(incident['title'])}**",
        "",
        (
            f"Scope {_code(incident['scope'])} · severity {incident['severity']} · state {incident['state']} · verdict "
            f"{incident['verdict']} · resolution {incident['resolution'] or 'none yet'}"
        ),
    ]


def _summary(incident: Document) -> list[str]:
    onset, end = _unix(incident, "onset"), _unix(incident, "resolved")
    assert onset is not None
    lasted = f"lasted {duration(end - onset)}" if end is not None else "has not ended"
    affected = incident["affected"]
    lines = [
        "## Summary",
        "",
        f"It began at {rfc3339(onset)} and {lasted}. {_detected(incident)} {_done(incident)}",
    ]
    if affected["share"]:
        lines.append(f"At detection it concerned {percent(affected['share'])} of all judged requests.")
    if incident["flaps"]:
        lines.append(f"It came back {many(incident['flaps'], 'time')}.")
    return lines


def _detected(incident: Document) -> str:
    names = [signal["detector"] for signal in incident["signals"]]
    return f"Detected by {' and '.join(dict.fromkeys(names))}."


def _done(incident: Document) -> str:
    rows = incident["isolations"]
    if not rows:
        why = incident.get("not_isolated_because")
        return f"Nothing was isolated ({_text(why)})." if why else "Nothing was isolated."
    scopes = ", ".join(dict.fromkeys(_code(row["scope"]) for row in rows))
    return f"{many(len(rows), 'isolation')} of {scopes}."


def _impact(incident: Document) -> list[str]:
    cost, collateral = incident["impact"], incident["collateral"]["would_have_succeeded_ratio"]
    lines = [
        "## Impact",
        "",
        "| what | how much |",
        "|---|---|",
        f"| requests failed by the upstream | {cost['failed']:,} |",
        f"| requests refused by isolations | {cost['refused']:,} |",
        f"| of the refused, would have succeeded | {_collateral(collateral)} |",
        f"| seconds with a failed or refused request | {cost['seconds']:,} |",
        f"| scope | {_code(incident['scope'])} |",
    ]
    if incident["isolations"]:
        lines += ["", "| isolated | for | refused | of these, would have succeeded | ended |", "|---|---|---|---|---|"]
    for row in incident["isolations"]:
        live = row["state"] in _LIVE
        lasted = "until now" if live else duration(unix_of(row["end_time"]) - unix_of(row["start_time"]))
        ended = "no" if live else f"{row['state']}: {_text(row['ended_why'])}"
        would = _collateral(row["would_have_succeeded_ratio"])
        lines.append(f"| {_code(row['scope'])} | {lasted} | {row['refused']:,} | {would} | {ended} |")
    return lines


def _collateral(ratio: float | None) -> str:
    return "unknown (no trial traffic)" if ratio is None else f"{percent(ratio)} by the trial traffic"


def _times(incident: Document) -> list[str]:
    onset = _unix(incident, "onset")
    assert onset is not None
    rows = (
        ("detected", "opened"), ("isolated", "isolated"), ("acknowledged", "acknowledged"),
        ("recovery began", "mitigated"), ("resolved", "resolved"),
    )  # fmt: skip
    lines = ["## Times from the onset", "", "| until | after | at |", "|---|---|---|"]
    for words, name in rows:
        unix = _unix(incident, name)
        after, at = ("never", "") if unix is None else (duration(max(unix - onset, 0.0)), rfc3339(unix))
        lines.append(f"| {words} | {after} | {at} |")
    return lines


def _timeline(events: Sequence[Document]) -> list[str]:
    shown = [event for event in events if event["kind"] not in _QUIET]
    lines = ["## Timeline", "", "| time | event | by | datum |", "|---|---|---|---|"]
    lines += [
        f"| {rfc3339(event['unix'])} | {event['kind']} | {_text(event['author'])} | {_datum(event)} |"
        for event in shown
    ]
    quiet = len(events) - len(shown)
    first, last = (events[0].get("sequence"), events[-1].get("sequence")) if events else (None, None)
    span = f", {first} to {last} of the chain" if first is not None else ""
    lines += ["", f"From {many(len(events), 'event')}{span}; {many(quiet, 'notification and renewal')} not listed."]
    return lines


def _datum(event: Document) -> str:
    facts = [f"{key} {_fact(value)}" for key, value in sorted(event["body"].items())]
    scope = [_code(event["scope"])] if event.get("scope") else []
    return "; ".join([*scope, *facts])


def _fact(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    return _text(value)


def _changes(incident: Document) -> list[str]:
    suspect = incident["suspect"]
    if suspect is None:
        return [
            "## What changed before",
            "",
            "No config version that touches the scope was applied shortly before the onset.",
        ]
    lines = [
        "## What changed before",
        "",
        (
            f"Config version {suspect['version']} ({_text(suspect.get('source', ''))}, by {_text(suspect.get('author', ''))}, "
            f"{suspect.get('applied_time', '')}):"
        ),
        "",
    ]
    return lines + [
        f"- {_code(row.get('path'))}: {_code(row.get('old'))} → {_code(row.get('new'))}" for row in suspect["diff"]
    ]


def _hypotheses(incident: Document, evidence: Document | None) -> list[str]:
    lines = ["## Hypotheses, by what was measured", "", *_signal_lines(incident["signals"])]
    affected = incident["affected"]
    narrowest = affected.get("narrowest")
    if narrowest:
        lines.append(
            f"- {percent(narrowest['share'])} of the change is one {narrowest['dimension']}: {_code(narrowest['name'])} "
            f"({narrowest['failures']:,} of {narrowest['requests']:,} failed at detection)."
        )
    if affected["method"]:
        lines.append(f"- One method explains the change: {_code(affected['method'])}.")
    lines += _ranked("client", affected["clients"], "key")
    lines += _ranked("path", affected["paths"], "path")
    if evidence is None:
        return [*lines, "- The frozen evidence is no longer stored."]
    for route in evidence["routes"]:
        came, again = (sum(s.get(name, 0) for s in route["series"]) for name in ("arrivals", "again"))
        if again:
            lines.append(
                f"- Clients of {_code(route['route'])} asked again within the back-off: {again:,} of {came:,} requests, "
                f"{came / max(came - again, 1):.2g} for each first try."
            )
        worst = [row for row in route["statuses"] if row["failures"]][:3]
        if worst:
            named = ", ".join(f"{_code(row['name'])} {row['failures']:,}" for row in worst)
            lines.append(
                f"- Failures of {_code(route['route'])} in the {evidence['window_s']:.0f} s before detection: {named}."
            )
        if route["breaker"] != "closed":
            lines.append(f"- The breaker of {_code(route['route'])} was {route['breaker']} at detection.")
    return lines


def _signal_lines(signals: Iterable[Document]) -> list[str]:
    return [
        f"- {signal['detector']} on {_code(signal['scope'])}: {measured(signal['worst'], signal['unit'])} at its worst, "
        f"normally {measured(signal['baseline'], signal['unit'])}, since {signal['since_time']}."
        for signal in signals
    ]


def _ranked(word: str, rows: Sequence[Document], name: str) -> list[str]:
    bad = [row for row in rows if row["failures"]][:3]
    if not bad:
        return []
    named = ", ".join(f"{_code(row[name])} {row['failures']:,} of {row['requests']:,}" for row in bad)
    return [f"- Failed most, by {word}: {named}."]


def _verdict(incident: Document, events: Sequence[Document]) -> list[str]:
    lines = ["## Verdict", ""]
    said = [event for event in events if event["kind"].startswith("verdict.") and event["kind"] != "verdict.quoted"]
    for event in said:
        reason = event["body"].get("reason")
        words = f": {_text(reason)}" if reason else ""
        lines.append(f"- {clock(event['unix'])} {_text(event['author'])} said {event['kind'].partition('.')[2]}{words}")
    if not said:
        lines.append(f"- Nobody has given a verdict; it is {incident['verdict']}.")
    if incident.get("old_verdict"):
        lines.append(f"- Before: {_text(incident['old_verdict'])}.")
    return lines


def _well(incident: Document, events: Sequence[Document]) -> list[str]:
    onset, opened, isolated = (_unix(incident, name) for name in ("onset", "opened", "isolated"))
    assert onset is not None
    assert opened is not None
    lines = ["## What went well, measured", "", f"- Detected {duration(max(opened - onset, 0.0))} after the onset."]
    if isolated is not None:
        lines.append(f"- Isolated {duration(max(isolated - opened, 0.0))} after detection, under a lease.")
    ratio, refused = incident["collateral"]["would_have_succeeded_ratio"], incident["impact"]["refused"]
    if refused and ratio is not None:
        lines.append(f"- Of {many(refused, 'refused request')}, {percent(1.0 - ratio)} would have failed anyway.")
    ramps = [event for event in events if event["kind"] == "isolation.ramped"]
    if ramps:
        back = sum(1 for event in ramps if event["body"].get("why") == "relapse")
        lines.append(
            f"- Traffic came back in {many(len(ramps) - back, 'step')} on evidence, {many(back, 'step')} back."
        )
    return lines


def _runbook(incident: Document) -> list[str]:
    lines = ["## Runbook", "", f"{incident['runbook']}", ""]
    for row in incident["checklist"]:
        done = f" ({_text(row['done_by'])}, {row['done_time']})" if row["done_by"] else ""
        lines.append(f"- [{'x' if done else ' '}] {_text(row['text'])}{done}")
    return lines


def _actions(proposals: Sequence[Document]) -> list[str]:
    """Return what it taught, as actions that a person takes or refuses."""
    lines = ["## Actions", ""]
    for row in proposals:
        taken = row["state"] == "applied"
        changes = [f"{_code(c['path'])}: {_set(c['old'])} → {_set(c['new'])}" for c in row["changes"]]
        rule = row.get("rule")
        changes += [f"{_code(rule['path'])} never below {rule['at_least']:g}/s"] if rule else []
        by = f" by {_text(row['decided_by'])}" if row.get("decided_by") else ""
        lines.append(f"- [{'x' if taken else ' '}] Proposal {row['id']} ({row['state']}{by}): {_text(row['why'])}.")
        lines += [f"  - {change}" for change in changes]
        lines += [f"  - {_effect(row['effect'])}", f"  - `sidecar proposal show {row['id']}`"]
    if not proposals:
        lines.append("No proposal came of it.")
    return [*lines, "", "- [ ] Action, owner, date:"]


def _set(value: Any) -> str:
    return "not set" if value is None else _code(value)


def _effect(effect: Document) -> str:
    sooner = effect.get("sooner_s")
    words = [f"found {sooner:g} s earlier"] if sooner else []
    words += [f"{many(effect[name], 'alarm')} {name}" for name in ("hidden", "added") if effect.get(name)]
    over = f" over {duration(effect['over_s'])}" if effect.get("over_s") else ""
    return f"Predicted: {', '.join([*words, many(effect.get('refused', 0), 'request') + ' refused'])}{over}."


def _open_ends(incident: Document) -> list[str]:
    lines = [
        "## For people to fill in",
        "",
        "- [ ] Root cause:",
        "- [ ] Why it was not noticed before it reached production:",
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
