"""The post-mortem draft: complete, exact, the same bytes for the same record."""

from __future__ import annotations

import re
from dataclasses import replace

from sidecar.incident.postmortem.draft import postmortem
from tests.support import documents as d
from tests.support.plays import break_route, warm
from tests.support.records import ended, record


def test_the_same_record_gives_the_same_bytes() -> None:
    """
    Two runs of the same play, two drafts, no difference.
    """
    assert postmortem(record(ended())) == postmortem(record(ended()))


def test_the_impact_is_exact() -> None:
    """
    The figures are those of the incident's document.
    """
    kept = record(ended())
    incident, draft = kept.incident, postmortem(kept)

    assert f"| requests failed by the upstream | {incident['impact']['failed']:,} |" in draft
    assert f"| requests refused by isolations | {incident['impact']['refused']:,} |" in draft
    assert f"or one that an isolation refused | {incident['impact']['seconds']:,} |" in draft


def test_the_scopes_are_the_whole() -> None:
    """
    The rows of the scopes add up to the incident's sum, with why each request was refused, over a widening too.
    """
    world = ended()
    impact = world.incident()["impact"]

    assert [row["scope"] for row in impact["scopes"]] == ["route:checkout"]
    assert sum(row["failed"] for row in impact["scopes"]) == impact["failed"] > 0
    assert sum(row["isolated"] for row in impact["scopes"]) == impact["refused"] > 0
    assert impact["scopes"][0]["reasons"] == {"isolated": impact["refused"]}
    assert impact["others"]["failed"] == 0 < impact["others"]["requests"]


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
    kept = record(ended())

    draft = postmortem(kept)

    for head in (
        "Summary", "Impact", "Times", "Timeline", "What changed before", "Hypotheses, ranked by attribution", "Verdict",
        "What went well, measured", "What did not, measured", "Runbook", "Actions", "For people to fill in", "Data",
    ):  # fmt: skip
        assert f"## {head}\n" in draft
    shown = [str(event["sequence"]) for event in kept.events if event["kind"] != "isolation.renewed"]
    assert re.findall(r"\(#datum-(\d+)\) \|$", draft, re.MULTILINE) == shown
    assert re.findall(r"^### Datum (\d+)$", draft, re.MULTILINE) == shown
    assert "lea said confirmed" in draft


def test_the_summary_says_it_all_in_words() -> None:
    """
    How long, how much, by whom found, what was done, who answered: one paragraph that can be sent as it is.
    """
    kept = record(ended())
    (summary,) = re.findall(r"## Summary\n\n(.+)\n", postmortem(kept))
    impact = kept.incident["impact"]

    assert summary.startswith("It lasted ")
    assert (
        f"The API failed {impact['failed']:,} requests, and we refused {impact['refused']:,}, of which about "
        in summary
    )
    assert "isolation of `route:checkout`, under a lease. lea was the first to answer, " in summary


def test_a_rollback_is_an_answer_and_an_old_trip_is_not_its_own() -> None:
    """
    Who rolls back has answered, before the verdict; what the breaker did minutes before the onset is not counted.
    """
    kept = record(ended())
    onset = kept.events[0]["unix"]
    back = {
        **kept.events[0],
        "kind": "config.rolled_back",
        "author": "kim",
        "unix": onset + 1.0,
        "body": {"version": 3},
    }
    trip = {**kept.events[0], "kind": "breaker.opened", "unix": onset - 60.0, "body": {"open_s": 4.0, "detail": "x"}}

    draft = postmortem(replace(kept, events=[trip, back, *kept.events]))

    assert "kim was the first to answer" in draft
    assert "The breaker opened" not in draft.split("## Impact", maxsplit=1)[0]


def test_the_culprit_is_the_first_hypothesis() -> None:
    """
    Parts of the traffic are ranked by what they explain: the path that fails while all others are well stands first.
    """
    account = {
        "parts": {
            "client": [["c1", 50, 30], ["c2", 50, 28]],
            "path": [["/api/pay", 60, 57], ["/api/cart", 40, 1]],
            "method": [["POST", 100, 58]],
            "status": [["500", 58, 58], ["201", 42, 0]],
        }
    }

    draft = postmortem(record(ended(), account=account))

    assert "| 1 | path `/api/pay` | 98 % | 95 % of 60 | 2.5 % of 40 | **explains it: the rest is well** |" in draft
    assert "| 2 | client `c1` | 52 % | 60 % of 50 | 56 % of 50 | as bad as the rest |" in draft
    assert "| 4 | method `POST` | 100 % | 58 % of 100 | – | nothing to compare with |" in draft
    assert "- How it failed: `500` 58." in draft


def test_free_text_cannot_break_the_page() -> None:
    """
    Pipes, back-ticks and line ends of a note stay inside their cell.
    """
    draft = postmortem(record(ended()))

    assert r"the \| database \`was\` failed over" in draft


def test_a_running_incident_has_a_draft_too() -> None:
    """
    What has not happened yet is said to be missing.
    """
    world = warm()
    break_route(world)
    world.until(world.live, 4)

    draft = postmortem(record(world))

    assert "has not ended" in draft
    assert "| recovered (resolved) | never |  |" in draft
    assert "Nobody has given a verdict" in draft
    assert "No config version that touches the scope" in draft


def test_the_draft_survives_lost_evidence() -> None:
    """
    Old evidence may be gone; the draft says so.
    """
    assert "The frozen evidence is no longer stored." in postmortem(record(ended(), evidence=None))


def test_an_incident_of_an_older_release_has_a_draft() -> None:
    """
    Without an account the draft says what it lacks, and ranks what was known at detection.
    """
    kept = record(ended(), account=None)
    impact = {**kept.incident["impact"], "scopes": [], "others": {"requests": 0, "failed": 0}}

    draft = postmortem(replace(kept, incident={**kept.incident, "impact": impact}))

    assert "It was not counted by scope: it began under an older release." in draft
    assert "| 1 | client " in draft


def test_the_draft_of_a_drill_says_so() -> None:
    """
    Nobody takes a practised fault for a real one, in the title or in the first line.
    """
    kept = record(ended())

    draft = postmortem(replace(kept, incident={**kept.incident, "drill": True}))

    assert "**This was a drill.**" in draft.split("## Summary", maxsplit=1)[0]
    assert "a drill" not in postmortem(kept)


def test_actions_are_what_it_taught() -> None:
    """
    Each proposal is an action with its change and predicted effect, ticked when it was applied; a tick names its person.
    """
    kept = record(ended())
    incident = kept.incident
    narrowest = {"dimension": "path", "name": "/api/pay", "share": 0.92, "requests": 40, "failures": 38}
    ticked = {"step": 1, "text": "Look", "done_by": "lea", "done_time": "2026-01-05T12:00:00Z"}
    told = {
        **incident, "affected": {**incident["affected"], "narrowest": narrowest}, "checklist": [ticked],
    }  # fmt: skip
    rule = {"path": "routes.checkout.response_timeout", "at_least": 0.4, "unit": "s", "words": "never below 0.4s"}
    applied = {**d.PROPOSAL, "id": 4, "state": "applied", "decided_by": "ops", "rule": rule}

    draft = postmortem(replace(kept, incident=told, proposals=[d.PROPOSAL, applied]))

    assert "- [ ] Proposal 3 (open): it would have been found earlier" in draft
    assert "- [x] Proposal 4 (applied by ops)" in draft
    assert "  - `routes.checkout.detect.sensitivity`: not set → `high`" in draft
    assert "  - Effect: found 7s earlier, no alarm hidden, none added (over 24h)." in draft
    assert "  - `routes.checkout.response_timeout` never below 0.4s" in draft
    assert "- At detection 92 % of the change was one path: `/api/pay` (38 of 40 failed)." in draft
    assert "- [x] Look (lea, 2026-01-05T12:00:00Z)" in draft
    assert "No proposal came of it." in postmortem(kept)


def test_each_isolation_has_its_own_cost() -> None:
    """
    Requests, seconds and collateral stand by scope; together the isolations refused what the incident says.
    """
    kept = record(ended())
    incident, draft = kept.incident, postmortem(kept)
    (row,) = incident["isolations"]

    assert row["refused"] == incident["impact"]["refused"] > 0
    assert row["would_have_succeeded_ratio"] == incident["collateral"]["would_have_succeeded_ratio"]
    assert f"| `route:checkout` (isolation-1) | 53s | {row['refused']:,} |" in draft
    assert "| released: recovered on evidence |" in draft
