"""The timeline in words: every event has a sentence or its facts, and nothing in it is markup."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.incident.postmortem.timeline import data, timeline, told


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
