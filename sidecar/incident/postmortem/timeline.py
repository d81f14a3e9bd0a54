"""
The timeline of a post-mortem: each event in words, linked to its datum, the event as it stands in the chain.

Theory
    People read sentences, and check facts. So the timeline says what happened, and every line of it ends in a link to the
    event behind it, whole, at the end of the draft: number in the chain, hash, kind, body. What is not known here is told by
    its kind and its facts: no event is left out because nobody has written a sentence for it.

What can go wrong
    Free text and values can hold Markdown: everything from an event is escaped or set as code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from sidecar.incident.postmortem.markup import code, text, verbatim
from sidecar.incident.words import clock, duration, many, percent, rfc3339

Document = Mapping[str, Any]

COUNTED: Final = frozenset({"isolation.renewed"})  # counted, not listed
_HASH_CHARS: Final = 16


def timeline(events: Sequence[Document], onset_unix: float) -> list[str]:
    """Return the section: a line an event, with the seconds since the onset and a link to its datum."""
    shown = [event for event in events if event["kind"] not in COUNTED]
    lines = ["## Timeline", "", "| time | from the onset | what happened | by | datum |", "|---|---|---|---|---|"]
    lines += [
        f"| {clock(event['unix'])} | {_offset(event['unix'] - onset_unix)} | {told(event)} | {text(event['author'])} | "
        f"[{event['sequence']}](#datum-{event['sequence']}) |"
        for event in shown
    ]
    quiet = len(events) - len(shown)
    return lines + (["", f"{many(quiet, 'renewal')} of a lease not listed."] if quiet else [])


def _offset(seconds: float) -> str:
    sign = "−" if seconds < 0 else "+"
    return f"{sign}{duration(abs(seconds))}"


def data(events: Sequence[Document]) -> list[str]:
    """Return the events behind the timeline, one heading each, so that a line can link to it."""
    lines = ["## Data", "", "The events as they stand in the chain; `sidecar audit verify` says whether it is whole."]
    for event in events:
        if event["kind"] in COUNTED:
            continue
        scope = f" on {code(event['scope'])}" if event.get("scope") else ""
        digest = f", hash {verbatim(str(event['hash'])[:_HASH_CHARS])}" if event.get("hash") else ""
        body = json.dumps(event["body"], ensure_ascii=False, sort_keys=True)
        lines += [
            "", f"### Datum {event['sequence']}", "",
            f"{code(event['kind'])}{scope}, {rfc3339(event['unix'])}, by {text(event['author'])}{digest}: {verbatim(body)}",
        ]  # fmt: skip
    return lines


def told(event: Document) -> str:
    """Return what one event says, in a sentence."""
    sentence = _SENTENCES.get(event["kind"])
    if sentence is not None:
        try:
            return sentence(event, event["body"])
        except (KeyError, TypeError, ValueError):
            pass  # an event of another release, without what this one writes
    return _plain(event)


def _plain(event: Document) -> str:
    facts = [f"{key} {_fact(value)}" for key, value in sorted(event["body"].items())]
    return "; ".join([code(event["kind"]), *facts])


def _fact(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(text(item) for item in value)
    return text(value)


def _reason(body: Document) -> str:
    return f": {text(body['reason'])}" if body.get("reason") else ""


def _opened(_: Document, body: Document) -> str:
    return f"**Detected** by {' and '.join(body['detectors'])}: {text(body['title'])} ({text(body['severity'])})"


def _notified(_: Document, body: Document) -> str:
    return f"People are {'paged' if body.get('page') else 'told'}: {text(body['kind'])}"


def _started(event: Document, body: Document) -> str:
    done = {"throttle": "throttled", "isolate": "isolated"}.get(body["action"], text(body["action"]))
    return (
        f"**{code(event['scope'])} is {done}**, {percent(body['share'])} passes, for {duration(body['lease_s'])} unless "
        f"renewed ({text(body['id'])})"
    )


def _ramped(_: Document, body: Document) -> str:
    steps = f"{percent(body['from'])} → {percent(body['share'])} passes ({text(body['id'])})"
    tried = f"after {many(body['trials'], 'trial')}, {body['failures']:,} of them failed"
    return {"relapse": f"One step back: {steps} {tried}", "probe": f"Nobody answered, a step as a trial: {steps}"}.get(
        body["why"], f"{steps} {tried}"
    )


def _resolved(_: Document, body: Document) -> str:
    cost = f"{body['failed']:,} failed, {body['refused']:,} refused by isolations, in {many(body['seconds'], 'second')}"
    return f"**Resolved**, {text(body['resolution'])}: {cost}"


def _breaker(event: Document, body: Document) -> str:
    return f"The breaker of {code(event['scope'])} opened for {duration(body['open_s'])}: {text(body['detail'])}"


def _applied(_: Document, body: Document) -> str:
    changes = body.get("changes") or ()
    named = ", ".join(code(row["path"]) for row in changes[:3]) + (" and more" if len(changes) > 3 else "")
    return f"Config version {body['version']} is applied{f': {named}' if named else ''}"


_SENTENCES: Final[Mapping[str, Callable[[Document, Document], str]]] = {
    "incident.opened": _opened,
    "incident.reopened": lambda _, b: f"**It is back** ({many(b['flaps'], 'flap')})",
    "incident.notified": _notified,
    "incident.silenced": lambda _, b: f"Nobody is told ({text(b['kind'])}): silence {b['silence']} by {text(b['by'])}",
    "incident.acknowledged": lambda _, __: "Acknowledged",
    "incident.acknowledgement_withdrawn": lambda _, b: (
        f"The acknowledgement of {text(b['by'])} is withdrawn: nothing was heard for {duration(b['quiet_s'])}"
    ),
    "incident.note": lambda _, b: f"Note: {text(b['text'])}",
    "incident.worse": lambda _, b: f"It is worse: {text(b['severity'])}",
    "incident.widened": lambda _, b: f"It reaches further: {code(b['from'])} → {code(b['to'])}",
    "incident.absorbed": lambda _, b: f"It is a part of incident {b['by']}, and goes on there",
    "incident.real": lambda _, b: f"It is no drill any more: {text(b['why'])}",
    "incident.mitigated": lambda _, __: "Recovery begins",
    "incident.relapsed": lambda _, __: "Recovery has failed at its first step",
    "incident.resolved": _resolved,
    "incident.closed": lambda _, __: "Closed",
    "signal.joined": lambda e, b: f"{text(b['detector'])} sounds as well, on {code(e['scope'])} (score {b['score']:.3g})",
    "signal.silenced": lambda _, b: f"{text(b['detector'])} is not raised: {text(b['because'])}",
    "isolation.started": _started,
    "isolation.ramped": _ramped,
    "isolation.confirmed": lambda _, b: f"{text(b['id'])} is confirmed: it ends on evidence",
    "isolation.ended": lambda e, b: f"{code(e['scope'])} is {text(b['state'])}: {text(b['why'])} ({text(b['id'])})",
    "isolation.withheld": lambda _, b: f"Automation would {text(b['would'])}, and does not: {text(b['because'])}",
    "isolation.budget_reached": lambda _, b: (
        f"Budget reached: {percent(b['share'])} passes, so that no more than {percent(b['max_refused'])} of all is refused"
    ),
    "isolation.budget_met": lambda _, b: f"Within the budget again: {percent(b['share'])} passes ({text(b['id'])})",
    "isolation.sampled": lambda _, b: (
        f"The sample follows the traffic: {percent(b['from'])} → {percent(b['share'])} of {b['rate_per_s']:.3g} requests a "
        f"second passes ({text(b['id'])})"
    ),
    "verdict.confirmed": lambda _, __: "**Confirmed**",
    "verdict.false_positive": lambda _, b: f"**Released as false\\_positive**{_reason(b)}",
    "verdict.benign": lambda _, b: f"**Released as benign**{_reason(b)}",
    "verdict.none": lambda _, b: f"Released without a verdict{_reason(b)}",
    "verdict.quoted": lambda _, b: f"What was said before: {text(b['quote'])}",
    "detect.tuned": lambda _, b: (
        f"The threshold of {code(b['control'])} is moved, to {b['offset']:+.3g} in all; it would have hidden "
        f"{many(b['hidden'], 'past incident')}"
    ),
    "detect.tuning_withheld": lambda _, b: f"The threshold of {code(b['control'])} stays: {text(b['because'])}",
    "runbook.ticked": lambda _, b: f"Runbook, step {b['step']} is done: {text(b['text'])}",
    "runbook.unticked": lambda _, b: f"Runbook, step {b['step']} is open again: {text(b['text'])}",
    "breaker.opened": _breaker,
    "breaker.reset": lambda e, b: f"The breaker of {code(e['scope'])} is closed: {text(b.get('why', 'by hand'))}",
    "ladder.escalate": lambda _, __: "Nobody has answered: escalated",
    "ladder.probe": lambda _, __: "Nobody has answered: recovery is tried",
    "ladder.hold": lambda _, __: "Nobody has answered: the isolation is held",
    "ladder.release": lambda _, __: "Nobody has answered: the isolation is released",
    "config.applied": _applied,
    "config.rolled_back": lambda _, b: f"Config is rolled back, as version {b['version']}",
    "config.confirmed": lambda _, b: f"Config version {b['version']} is confirmed",
    "config.failed": lambda _, b: f"Config version {b['version']} was not applied: {text(b['problem'])}",
    "config.suspected": lambda _, b: f"Config version {b['version']} by {text(b['author'])} is the first suspect",
    "config.rollback_started": lambda _, b: f"Automation rolls config version {b['from']} back to {b['to']}",
    "override.set": lambda e, b: (
        f"Override on {code(e['scope'])}: {text(b['action'])} for {duration(b['ttl_s'])}{_reason(b)}"
    ),
    "override.ended": lambda e, b: f"The override on {code(e['scope'])} has ended ({text(b['why'])})",
    "silence.added": lambda e, b: (
        f"Silence {b['id']} on {code(e['scope'])}: nobody is told for {duration(b['ttl_s'])}{_reason(b)}"
    ),
    "silence.ended": lambda e, b: f"Silence {b['id']} on {code(e['scope'])} has {text(b['why'])}",
    "proposal.made": lambda _, b: f"Proposal {b['id']} is made: {text(b['why'])}",
    "proposal.applied": lambda _, b: f"Proposal {b['id']} is applied as config version {b['version']}",
    "proposal.dismissed": lambda _, b: f"Proposal {b['id']} is dismissed{_reason(b)}",
    "proposal.reopened": lambda _, b: f"Proposal {b['id']} is open again{_reason(b)}",
    "drill.started": lambda e, b: (
        f"Drill {b['id']} begins: {text(b['kind'])} on {code(e['scope'])}, {percent(b['share'])} of the requests, for "
        f"{duration(b['for_s'])}"
    ),
    "drill.faded": lambda _, b: f"The fault of drill {b['id']} has ended: {text(b['why'])}",
    "drill.forgotten": lambda _, b: f"The drill is forgotten: {text(b['why'])}",
    "drill.ended": lambda _, b: f"Drill {b['id']} {text(b['state'])}{_missed(b)}",
}  # fmt: skip


def _missed(body: Document) -> str:
    missed = f", missed {', '.join(body['missed'])}" if body.get("missed") else ""
    return missed + (f": {text(body['why'])}" if body.get("why") else "")
