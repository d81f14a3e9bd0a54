"""The post-mortem draft: complete, exact, the same bytes for the same record."""

from __future__ import annotations

from typing import Any

from sidecar.controller import effects as fx
from sidecar.controller.commands import Acknowledge, Confirm, Note
from sidecar.incident.postmortem import postmortem
from tests.support import documents as d
from tests.support.plays import break_route, broken, warm
from tests.support.world import World


def record(world: World, number: int = 1) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any] | None]:
    """Return what the store has of an incident."""
    events = [
        {"sequence": i, "unix": e.unix, "kind": e.kind, "author": e.author, "scope": e.scope, "body": e.body}
        for i, e in enumerate(world.of(fx.AppendEvent), start=1)
        if e.incident == number
    ]
    return world.incident(number), events, world.engine.evidence(number)


def ended() -> World:
    """An outage of 30 s that was acknowledged, confirmed and recovered."""
    world = broken()
    world.run(5)
    world.command(Acknowledge(1, "lea"))
    world.command(Note(1, "lea", "the | database `was`\nfailed over"))
    world.run(5)
    world.command(Confirm(1, "lea"))
    world.run(20)
    break_route(world, fail=0.0)
    world.until(lambda: world.incident()["state"] == "resolved", 60)
    return world


def test_the_same_record_gives_the_same_bytes() -> None:
    """
    Two runs of the same play, two drafts, no difference.
    """
    assert postmortem(*record(ended())) == postmortem(*record(ended()))


def test_the_impact_is_exact() -> None:
    """
    The figures are those of the incident's document.
    """
    incident, events, evidence = record(ended())

    draft = postmortem(incident, events, evidence)

    assert f"| requests failed by the upstream | {incident['impact']['failed']:,} |" in draft
    assert f"| requests refused by isolations | {incident['impact']['refused']:,} |" in draft
    assert f"| seconds with a failed or refused request | {incident['impact']['seconds']:,} |" in draft


def test_what_was_counted_is_what_happened() -> None:
    """
    The incident's cost equals what the worker counted from the onset on.
    """
    world = ended()
    route = world._routes["checkout"]

    impact = world.incident()["impact"]

    assert impact["failed"] == route.outcomes["failure"]
    assert impact["refused"] == route.refused["isolated"]


def test_every_section_is_there_and_every_event_has_its_datum() -> None:
    """
    Summary to open ends; each line of the timeline stands for one event of the chain.
    """
    incident, events, evidence = record(ended())

    draft = postmortem(incident, events, evidence)

    for head in (
        "Summary", "Impact", "Times from the onset", "Timeline", "What changed before", "Hypotheses, by what was measured",
        "Verdict", "What went well, measured", "For people to fill in",
    ):  # fmt: skip
        assert f"## {head}\n" in draft
    shown = [event for event in events if event["kind"] not in ("incident.notified", "isolation.renewed")]
    assert draft.count("\n| 2027-01-15T") == len(shown)
    assert "lea said confirmed" in draft


def test_free_text_cannot_break_the_page() -> None:
    """
    Pipes, back-ticks and line ends of a note stay inside their cell.
    """
    draft = postmortem(*record(ended()))

    assert r"the \| database \`was\` failed over" in draft


def test_a_running_incident_has_a_draft_too() -> None:
    """
    What has not happened yet is said to be missing.
    """
    world = warm()
    break_route(world)
    world.until(world.live, 4)

    draft = postmortem(*record(world))

    assert "has not ended" in draft
    assert "| resolved | never |  |" in draft
    assert "Nobody has given a verdict" in draft
    assert "No config version that touches the scope" in draft


def test_the_draft_survives_lost_evidence() -> None:
    """
    Old evidence may be gone; the draft says so.
    """
    incident, events, _ = record(ended())

    assert "The frozen evidence is no longer stored." in postmortem(incident, events, None)


def test_the_draft_of_a_drill_says_so() -> None:
    """
    Nobody takes a practised fault for a real one, in the title or in the first line.
    """
    world = ended()
    incident, events, evidence = record(world)

    draft = postmortem({**incident, "drill": True}, events, evidence)

    assert "**This was a drill.**" in draft.split("## Summary", maxsplit=1)[0]
    assert "a drill" not in postmortem(incident, events, evidence)


def test_actions_are_what_it_taught() -> None:
    """
    Each proposal is an action with its change and predicted effect, ticked when it was applied; a tick names its person.
    """
    incident, events, evidence = record(ended())
    narrowest = {"dimension": "path", "name": "/api/pay", "share": 0.92, "requests": 40, "failures": 38}
    ticked = {"step": 1, "text": "Look", "done_by": "lea", "done_time": "2026-01-05T12:00:00Z"}
    told = {
        **incident, "affected": {**incident["affected"], "narrowest": narrowest}, "checklist": [ticked],
    }  # fmt: skip
    applied = {**d.PROPOSAL, "id": 4, "state": "applied", "decided_by": "ops"}

    draft = postmortem(told, events, evidence, [d.PROPOSAL, applied])

    assert "- [ ] Proposal 3 (open): it would have been found earlier" in draft
    assert "- [x] Proposal 4 (applied by ops)" in draft
    assert "  - `routes.checkout.detect.sensitivity`: not set → `high`" in draft
    assert "Predicted: found 7 s earlier, 0 requests refused over 24h." in draft
    assert "92 % of the change is one path: `/api/pay` (38 of 40 failed at detection)." in draft
    assert "- [x] Look (lea, 2026-01-05T12:00:00Z)" in draft
    assert "No proposal came of it." in postmortem(incident, events, evidence)


def test_each_isolation_has_its_own_cost() -> None:
    """
    Requests, seconds and collateral stand by scope; together the isolations refused what the incident says.
    """
    incident, events, evidence = record(ended())
    (row,) = incident["isolations"]

    draft = postmortem(incident, events, evidence)

    assert row["refused"] == incident["impact"]["refused"] > 0
    assert row["would_have_succeeded_ratio"] == incident["collateral"]["would_have_succeeded_ratio"]
    assert f"| `route:checkout` | 53s | {row['refused']:,} |" in draft
    assert "| released: recovered on evidence |" in draft
