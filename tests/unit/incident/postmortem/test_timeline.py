"""The timeline in words: every event has a sentence or its facts, and nothing in it is markup."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sidecar
from sidecar.controller import effects as fx
from sidecar.controller.commands import ReleaseVerdict
from sidecar.controller.drafting import AROUND
from sidecar.decide.policies import LadderStep
from sidecar.incident.postmortem.timeline import _SENTENCES, COUNTED, data, timeline, told
from tests.support.records import ended

MADE_UP = {  # kinds that are put together, by how they begin
    "ladder.": tuple(LadderStep),
    "proposal.": ("applied", "dismissed"),
    "verdict.": tuple(ReleaseVerdict),
}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def kinds_in(expression: ast.expr, function: Function) -> set[str]:
    """Return the kinds that *expression* may stand for; none for a parameter, whose callers name them."""
    match expression:
        case ast.Constant(value=str(kind)):
            return {kind}
        case ast.IfExp(body=one, orelse=other):
            return kinds_in(one, function) | kinds_in(other, function)
        case ast.JoinedStr(values=[ast.Constant(value=str(begin)), ast.FormattedValue()]):
            return {begin + end for end in MADE_UP[begin]}
        case ast.Name(id=name) if name in {each.arg for each in ast.walk(function.args) if isinstance(each, ast.arg)}:
            return set()
        case ast.Name(id=name):
            values = [
                node.value
                for node in ast.walk(function)
                if isinstance(node, ast.Assign) and ast.dump(node.targets[0]) == ast.dump(ast.Name(name, ast.Store()))
            ]
            assert values, f"line {expression.lineno}: where does {name} come from?"
            return set().union(*(kinds_in(value, function) for value in values))
    raise AssertionError(f"line {expression.lineno}: which kinds can {ast.unparse(expression)} be?")


def of_incidents(call: ast.Call) -> Iterator[ast.expr]:
    """Yield the kind of the event that *call* appends, where it names an incident."""
    named = any(keyword.arg == "incident" for keyword in call.keywords)
    match call.func:
        case ast.Attribute(attr="event") if named:  # Book.event
            yield call.args[0]
        case ast.Name(id="AppendEvent") | ast.Attribute(attr="AppendEvent") if named or len(call.args) > 3:
            yield call.args[0]
        case ast.Attribute(attr="_event"):  # Desk._event
            yield call.args[0]
        case ast.Attribute(attr="_keep") if len(call.args) > 3:  # Learning._keep
            yield call.args[1]


def emitted() -> set[str]:
    """Return the kinds of the events that the sidecar can append to an incident."""
    found: set[str] = set()
    texts = [path.read_text() for path in Path(sidecar.__file__).parent.rglob("*.py")]
    for module in [ast.parse(text) for text in texts if "event(" in text.lower()]:
        for function in ast.walk(module):
            if isinstance(function, Function):
                for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
                    found |= set().union(*(kinds_in(kind, function) for kind in of_incidents(call)))
    return found


def event(kind: str, body: dict[str, Any], scope: str = "route:checkout") -> dict[str, Any]:
    return {
        "sequence": 7, "unix": 1_800_000_000.5, "kind": kind, "author": "lea", "scope": scope, "body": body, "hash": "ab" * 32
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        ("isolation.started", {"id": "isolation-1", "action": "throttle", "share": 0.1, "lease_s": 900.0},
         "**`route:checkout` is throttled**, 10 % passes, for 15m unless renewed (isolation-1)"),
        ("isolation.ramped", {"id": "i", "why": "relapse", "from": 0.5, "share": 0.25, "trials": 9, "failures": 4},
         "One step back: 50 % → 25 % passes (i) after 9 trials, 4 of them failed"),
        ("isolation.ramped", {"id": "i", "why": "probe", "from": 0.1, "share": 0.25, "trials": 0, "failures": 0},
         "Nobody answered, a step as a trial: 10 % → 25 % passes (i)"),
        ("incident.notified", {"kind": "opened", "page": True}, "People are paged: opened"),
        ("incident.notified", {"kind": "opened"}, "People are told: opened"),
        ("incident.silenced", {"kind": "opened", "by": "lea", "silence": 3}, "Nobody is told (opened): silence 3 by lea"),
        ("breaker.opened", {"open_s": 4.2, "detail": "7 failures in a row", "worker": 0, "rule": "consecutive"},
         "The breaker of `route:checkout` opened for 4.2s: 7 failures in a row"),
        ("config.applied", {"version": 3, "changes": [{"path": "a"}, {"path": "b"}, {"path": "c"}, {"path": "d"}]},
         "Config version 3 is applied: `a`, `b`, `c` and more"),
        ("verdict.false_positive", {"reason": "a | test"}, "**Released as false\\_positive**: a \\| test"),
        ("verdict.false_positive", {"reason": "bad_param"}, "**Released as false\\_positive**: bad\\_param"),
        ("drill.ended", {"id": 1, "state": "failed", "missed": ["told"], "why": ""}, "Drill 1 failed, missed told"),
        ("isolation.budget_met", {"id": "isolation-1", "share": 0.01, "max_refused": 0.8},
         "Within the budget again: 1 % passes (isolation-1)"),
        ("isolation.sampled", {"id": "isolation-1", "from": 0.01, "share": 0.25, "rate_per_s": 2.5},
         "The sample follows the traffic: 1 % → 25 % of 2.5 requests a second passes (isolation-1)"),
        ("detect.tuned", {"control": "detect.errors:a_b", "hidden": 1, "offset": 0.9},
         "The threshold of `detect.errors:a_b` is moved, to +0.9 in all; it would have hidden 1 past incident"),
        ("detect.tuning_withheld", {"control": "detect.errors:a", "hidden": 2, "because": "it would have hidden 1 confirmed"},
         "The threshold of `detect.errors:a` stays: it would have hidden 1 confirmed"),
        ("proposal.reopened", {"id": 1, "reason": "version 2 was not confirmed and reverted"},
         "Proposal 1 is open again: version 2 was not confirmed and reverted"),
        ("incident.opened", {"detectors": ["errors"]}, "`incident.opened`; detectors errors"),
        ("not.yet.known", {"b": True, "a": 0.12345}, "`not.yet.known`; a 0.1235; b true"),
    ],
)  # fmt: skip
def test_an_event_is_a_sentence(kind: str, body: dict[str, Any], words: str) -> None:
    """
    What is known is told in words; of another release, or without its facts, by kind and facts.
    """
    assert told(event(kind, body)) == words


def test_every_line_links_its_datum() -> None:
    """
    The link's target is a heading with the whole event; a renewal is counted only; before the onset is before it.
    """
    rows = [event("incident.note", {"text": "a|b"}), {**event("isolation.renewed", {}), "sequence": 8}]
    lines, behind = timeline(rows, 1_800_000_010.5), "\n".join(data(rows))
    assert "| 08:00:00Z | −10s | Note: a\\|b | lea | [7](#datum-7) |" in lines
    assert lines[-1] == "1 renewal of a lease not listed."
    assert (
        '### Datum 7\n\n`incident.note` on `route:checkout`, 2027-01-15T08:00:00.500Z, by lea, hash `abababababababab`: `{"text": "a|b"}`'
        in behind
    )
    assert "Datum 8" not in behind


def test_every_event_that_can_reach_a_draft_has_a_sentence() -> None:
    """
    Whatever the code appends to an incident, and whatever is gathered from around it.
    """
    kinds = emitted()
    assert {"incident.opened", "isolation.budget_met", "ladder.probe", "verdict.benign", "proposal.reopened"} <= kinds
    assert (kinds | AROUND) - COUNTED - _SENTENCES.keys() == set()


def test_what_the_engine_writes_is_what_the_sentences_read() -> None:
    """
    No event of a played outage falls back to its kind and its facts.
    """
    events = [each for each in ended().of(fx.AppendEvent) if each.incident and each.kind not in COUNTED]
    assert len(events) > 5
    for each in events:
        words = told({"kind": each.kind, "scope": each.scope, "author": each.author, "body": each.body})
        assert each.kind not in words, words
