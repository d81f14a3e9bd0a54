"""An incident's states, claims and documents."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sidecar.facts import Action, Detector, Moment, Scope, Signal
from sidecar.incident import documents, lifecycle
from sidecar.incident.lifecycle import (
    Affected,
    Impact,
    Incident,
    IncidentState,
    Proposal,
    Resolution,
    Severity,
    Suspect,
    Ticked,
    Verdict,
)
from sidecar.incident.telling import alert, claim_text, commands, done_text, title

CHECKOUT = Scope.route("checkout")
NOW = Moment(1000.0, 1_800_000_000.0)


def at(seconds: float) -> Moment:
    """Return the moment so many seconds after the opening."""
    return Moment(NOW.at + seconds, NOW.unix + seconds)


def signal(detector: Detector = Detector.ERRORS, **given: object) -> Signal:
    """All of 40 requests of checkout fail, since 2 s before the opening."""
    strong = Signal(detector, CHECKOUT, 1.0, 0.001, 40, 30.0, 20.0, 998.0, severe=True, material=True)
    return replace(strong, **given)  # type: ignore[arg-type]


def incident(*signals: Signal, **given: object) -> Incident:
    """A fresh incident that has heard these signals."""
    fresh = Incident(12, CHECKOUT, NOW, at(-2), NOW)
    heard = lifecycle.hear(fresh, signals or (signal(),), NOW)
    return replace(heard, **given)  # type: ignore[arg-type]


# --- what it hears -----------------------------------------------------------------------------------------------------


def test_a_second_signal_joins_and_the_first_onset_stays() -> None:
    """
    Claims are kept by detector and scope; severity only rises.
    """
    first = incident(signal(severe=False))
    assert first.severity is Severity.WARNING

    both = lifecycle.hear(first, (signal(since_at=1005.0), signal(Detector.LATENCY, severe=False)), at(6))

    assert both.severity is Severity.SEVERE
    assert both.detectors == (Detector.ERRORS, Detector.LATENCY)
    assert next(claim for claim in both.claims if claim.signal.detector is Detector.ERRORS).since == at(-2)
    assert lifecycle.hear(both, (), at(7)).severity is Severity.SEVERE


def test_what_does_not_sound_any_more_is_remembered_silent() -> None:
    """
    The claim stays with its worst value; quiet counts from the last time it was loud.
    """
    loud = incident()

    fading = lifecycle.hear(loud, (signal(value=0.1, score=3.9),), at(20))
    silent = lifecycle.hear(fading, (), at(30))

    assert fading.quiet_s(at(20)) == 20.0  # a score below a fifth of the threshold is not loud
    assert silent.quiet_s(at(30)) == 30.0
    assert not silent.claims[0].sounding
    assert silent.claims[0].worst.value == 1.0


def test_the_worst_value_rests_on_a_sample_that_speaks() -> None:
    """
    All of 4 requests is forgotten for 60 % of 40.
    """
    few = incident(signal(sample=4))

    many = lifecycle.hear(few, (signal(value=0.6),), at(1))

    assert many.claims[0].worst.value == 0.6
    assert lifecycle.hear(many, (signal(sample=4),), at(2)).claims[0].worst.value == 0.6


def test_the_worst_of_a_silence_is_its_quietest_second() -> None:
    """
    No request at all counts although there is no sample, and a flood after it is no worse silence.
    """
    few = incident(signal(Detector.SILENCE, value=2.0, baseline=10.0, sample=20))

    none = lifecycle.hear(few, (signal(Detector.SILENCE, value=0.0, baseline=10.0, sample=0),), at(1))
    flood = lifecycle.hear(none, (signal(Detector.SILENCE, value=200.0, baseline=10.0, sample=40),), at(2))

    assert none.claims[0].worst.value == 0.0
    assert flood.claims[0].worst.value == 0.0


def test_what_came_after_a_breaker_opened_says_nothing_of_its_trip() -> None:
    """
    All of 7 requests failed: neither a larger sample without a failure nor none at all takes its place.
    """
    tripped = incident(signal(Detector.TRIP, value=1.0, sample=7))

    well = lifecycle.hear(tripped, (signal(Detector.TRIP, value=0.0, sample=35),), at(1))
    none = lifecycle.hear(well, (signal(Detector.TRIP, value=0.0, sample=0),), at(2))

    assert (none.claims[0].worst.value, none.claims[0].worst.sample) == (1.0, 7)
    assert title(none) == "checkout: the breaker opened (100 % of 7 requests failed)"


def test_a_surge_was_worst_at_its_height() -> None:
    """
    What lies on the healthy side of normal is never the worst, however far away.
    """
    surge = incident(signal(Detector.SURGE, value=15.0, baseline=10.0))

    gone = lifecycle.hear(surge, (signal(Detector.SURGE, value=0.0, baseline=10.0),), at(1))

    assert gone.claims[0].worst.value == 15.0


def test_claims_are_bounded() -> None:
    """
    A cause that wanders from client to client does not grow the incident for ever.
    """
    wandering = incident()
    for i in range(40):
        wandering = lifecycle.hear(wandering, (signal(scope=Scope.client("checkout", f"c{i}")),), at(i))

    assert len(wandering.claims) == lifecycle.MAX_CLAIMS


# --- states ------------------------------------------------------------------------------------------------------------


def test_the_way_through_all_states() -> None:
    """
    Open, acknowledged, mitigated, resolved, closed; each keeps its moment.
    """
    seen = lifecycle.acknowledge(incident(), "ops", at(10))
    better = lifecycle.mitigate(seen, at(20))
    ended = lifecycle.resolve(better, Resolution.RECOVERED, at(30))
    closed = lifecycle.close(ended, at(40))

    assert [i.state.value for i in (seen, better, ended, closed)] == ["acknowledged", "mitigated", "resolved", "closed"]
    assert (closed.acknowledged, closed.mitigated, closed.resolved, closed.closed) == (at(10), at(20), at(30), at(40))
    assert not ended.running
    assert not any(claim.sounding for claim in ended.claims)


def test_a_relapse_returns_to_who_looks() -> None:
    """
    Acknowledged when somebody looks, open when nobody does.
    """
    assert lifecycle.relapse(lifecycle.mitigate(incident(), NOW)).state is IncidentState.OPEN
    seen = lifecycle.acknowledge(incident(), "ops", NOW)
    assert lifecycle.relapse(lifecycle.mitigate(seen, NOW)).state is IncidentState.ACKNOWLEDGED


def test_a_mitigated_incident_stays_so_when_acknowledged_or_withdrawn() -> None:
    """
    Who looks and how far the recovery is are two things.
    """
    better = lifecycle.acknowledge(lifecycle.mitigate(incident(), NOW), "ops", at(1))

    assert better.state is IncidentState.MITIGATED
    assert lifecycle.withdraw(better, at(2)).state is IncidentState.MITIGATED


def test_a_withdrawal_asks_anew() -> None:
    """
    Open again, nobody looks, the ladder starts from its first rung.
    """
    seen = replace(lifecycle.acknowledge(incident(), "ops", at(10)), rungs=2)

    gone = lifecycle.withdraw(seen, at(910))

    assert (gone.state, gone.acknowledged_by, gone.rungs, gone.unanswered) == (IncidentState.OPEN, "", 0, at(910))
    assert gone.acknowledged == at(10)  # when somebody first looked stays true


def test_a_flap_reopens_and_counts() -> None:
    """
    The same cause is back: no resolution, one flap more, what was confirmed stays confirmed.
    """
    ended = lifecycle.resolve(incident(verdict=Verdict.CONFIRMED), Resolution.RECOVERED, at(30))

    back = lifecycle.reopen(ended, at(60))

    assert (back.state, back.resolution, back.resolved, back.flaps) == (IncidentState.OPEN, None, None, 1)
    assert back.verdict is Verdict.CONFIRMED


# --- words -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "scope", "words"),
    [
        (signal(), CHECKOUT, "POST checkout: 100 % of requests fail (normally 0.1 %)"),
        (
            signal(),
            Scope.client("checkout", "c1"),
            "client c1 on checkout: 100 % of its requests fail (normally 0.1 %)",
        ),
        (signal(), Scope.service(), "the whole service: 100 % of requests fail (normally 0.1 %)"),
        (
            signal(Detector.LATENCY, value=2.3, baseline=0.12, unit="s"),
            CHECKOUT,
            "POST checkout: answers take 2.3s (normally 120ms)",
        ),
        (signal(Detector.LATENCY, value=0.4), CHECKOUT, "POST checkout: 40 % of requests are slow (normally 0.1 %)"),
        (
            signal(Detector.REFUSALS, value=0.4),
            CHECKOUT,
            "POST checkout: 40 % of requests are refused by limits (before: 0.1 %)",
        ),
        (
            signal(Detector.SURGE, value=120.0, baseline=20.0, unit="per_s"),
            CHECKOUT,
            "POST checkout: 120/s requests arrive (normally 20/s)",
        ),
        (
            signal(Detector.SILENCE, value=0.0, baseline=20.0, unit="per_s"),
            CHECKOUT,
            "POST checkout: hardly any requests arrive (normally 20/s)",
        ),
        (
            signal(Detector.SILENCE, value=8.0, baseline=20.0, unit="per_s"),
            CHECKOUT,
            "POST checkout: only 8/s requests arrive (normally 20/s)",
        ),
        (
            signal(Detector.TRIP, value=0.85, sample=34),
            CHECKOUT,
            "POST checkout: the breaker opened (85 % of 34 requests failed)",
        ),
        (signal(Detector.TRIP, value=0.0), CHECKOUT, "POST checkout: the breaker opened"),
    ],
)
def test_titles_are_plain_words(told: Signal, scope: Scope, words: str) -> None:
    """
    Where, what, and what is normal.
    """
    on_scope = replace(told, scope=scope)
    made = replace(
        lifecycle.hear(Incident(1, scope, NOW, NOW, NOW), (on_scope,), NOW), affected=Affected(method="POST")
    )

    assert title(made) == words
    assert claim_text(made.lead, scope) in words


@pytest.mark.parametrize(
    ("worst", "present", "words"),
    [
        (signal(), 0.3, "100 % of requests failed (30 % now, normally 0.1 %)"),
        (
            signal(Detector.LATENCY, value=0.442, baseline=0.003, unit="s"),
            0.007,
            "answers took 442ms (7ms now, normally 3ms)",
        ),
        (
            signal(Detector.LATENCY, value=0.442, baseline=0.003, unit="s"),
            0.4,
            "answers take 442ms (normally 3ms)",
        ),
        (signal(Detector.REFUSALS, value=0.4), 0.0, "40 % of requests were refused by limits (0 % now, before: 0.1 %)"),
    ],
)
def test_the_present_stands_beside_the_worst(worst: Signal, present: float, words: str) -> None:
    """
    An incident that goes on at no more than half of its worst says both; a resolved one says its worst, in the past.
    """
    running = lifecycle.hear(incident(worst), (replace(worst, value=present),), at(10))
    over = lifecycle.resolve(running, Resolution.RECOVERED, at(20))

    assert title(running) == f"checkout: {words}"
    past = title(incident(worst)).replace(" fail ", " failed ").replace(" take ", " took ").replace(" are ", " were ")
    assert title(over) == past


def test_a_fading_signal_is_not_heard() -> None:
    """
    Whatever its score, a signal that only waits for its end lets the incident be quiet.
    """
    told = lifecycle.hear(incident(), (signal(fading=True),), at(8))

    assert told.claims[0].sounding
    assert told.quiet_s(at(8)) == 8.0


def test_the_claim_on_the_own_scope_leads() -> None:
    """
    After widening the title speaks of the route, not of the client that was seen first.
    """
    both = incident(signal(scope=Scope.client("checkout", "c1")), signal(value=0.6))

    assert both.lead.signal.scope == CHECKOUT


@pytest.mark.parametrize(
    ("given", "isolated", "expected"),
    [
        ({}, True, ["confirm 12", "release 12 --verdict false_positive", "ack 12", "show 12"]),
        ({"verdict": Verdict.CONFIRMED, "acknowledged_by": "ops"}, True, ["release 12 --verdict none", "show 12"]),
        ({"state": IncidentState.RESOLVED}, False, ["postmortem 12", "release 12 --verdict false_positive", "confirm 12", "close 12"]),
        ({"state": IncidentState.RESOLVED, "verdict": Verdict.BENIGN}, False, ["postmortem 12", "close 12"]),
        ({"state": IncidentState.CLOSED}, False, ["postmortem 12"]),
    ],
)  # fmt: skip
def test_commands_fit_the_state(given: dict[str, object], isolated: bool, expected: list[str]) -> None:
    """
    Only what would be accepted now, the most likely first.
    """
    lines = commands(incident(**given), isolated=isolated, propose_rollback=False)

    assert lines == [f"sidecar incident {words}" for words in expected]


def test_a_proposed_rollback_comes_first_and_an_unisolated_scope_can_be_throttled() -> None:
    """
    The exact commands, scope quoted for the shell.
    """
    suspect = Suspect(7, 6, "ops", "api", NOW.unix)
    scope = Scope.client("checkout", "a b")
    made = incident(suspect=suspect, scope=scope, proposal=Proposal(scope, Action.THROTTLE, 0.1))

    lines = commands(made, isolated=False, propose_rollback=True)

    assert lines[0] == "sidecar config rollback 6"
    assert "sidecar override set 'client:checkout:a b' throttle=10% --ttl 15m --reason 'incident 12'" in lines


def test_done_says_what_why_and_what_would_have_been() -> None:
    """
    Nothing done has a reason; an ended isolation says how it ended.
    """
    watching = incident(ruling="observe mode", proposal=Proposal(CHECKOUT, Action.THROTTLE, 0.1))

    assert done_text(watching, []) == "nothing (observe mode); would throttle route:checkout to 10 %"
    ended = {"id": "isolation-1", "state": "released", "ended_why": "recovered on evidence"}
    assert done_text(incident(), [ended]) == "isolation-1 released: recovered on evidence"


def test_a_resolved_alert_tells_how_bad_it_was() -> None:
    """
    The worst value, not the good one at the end; how long, and how it ended.
    """
    ended = lifecycle.resolve(lifecycle.hear(incident(), (signal(value=0.01),), at(30)), Resolution.RECOVERED, at(40))
    document = documents.public(ended, [], None, propose_rollback=False)

    text = alert("resolved", document, ended, at(40))

    assert "errors: 100 %, normally 0.1 %" in text
    assert "(42s, recovered)" in text


# --- documents ---------------------------------------------------------------------------------------------------------


def full() -> Incident:
    """An incident with every field set."""
    made = incident(
        signal(),
        signal(Detector.LATENCY, unit="s", value=2.0),
        verdict=Verdict.CONFIRMED,
        isolations=("isolation-1",),
        suspect=Suspect(7, 6, "ops", "api", NOW.unix, ({"path": "a", "old": 1, "new": None},)),
        rolled_back=True,
        proposal=Proposal(CHECKOUT, Action.THROTTLE, 0.1),
        ruling="observe mode",
        quote="said before",
        budget_reached=True,
        drill=True,
        ticks=(Ticked("Look at the breaker", "ops", NOW.unix),),
        affected=Affected(0.5, 40, 40, "POST", (("c1", 10, 10),), (("/x/{id}", 40, 40),)),
        impact=Impact(3, 4, 2, 1.5, 5),
        isolated=at(0),
    )
    acknowledged = lifecycle.acknowledge(made, "ops", at(5))
    return lifecycle.close(lifecycle.resolve(lifecycle.mitigate(acknowledged, at(6)), Resolution.EXPIRED, at(7)), at(8))


def test_what_the_store_keeps_brings_everything_back() -> None:
    """
    Through JSON and back: the same incident, monotonic moments re-made from the wall clock.
    """
    stored = json.loads(json.dumps(documents.kept(full())))

    assert documents.from_kept(stored, at(100)) == full()
    other_boot = documents.from_kept(stored, Moment(7.0, at(100).unix))
    assert other_boot.opened == Moment(7.0 - 100.0, NOW.unix)


def test_the_public_document_has_the_contracts_keys() -> None:
    """
    Every key of the contract is there, whatever the state.
    """
    contract = {
        "id", "title", "state", "verdict", "resolution", "severity", "scope", "opened_time", "acknowledged_time",
        "resolved_time", "flaps", "signals", "isolations", "suspect", "next_step", "runbook", "commands",
    }  # fmt: skip
    for made in (incident(), full()):
        document = documents.public(made, [], None, propose_rollback=True)
        assert contract <= set(document)
        assert {"detector", "scope", "value", "baseline", "sample", "score", "threshold", "since_time"} <= set(
            document["signals"][0]
        )
        json.dumps(document)


def test_collateral_is_unknown_without_trials() -> None:
    """
    None, not zero: nobody knows what the refused would have become.
    """
    assert Impact(refused=10).would_have_succeeded_ratio is None
    assert Impact(refused=10, judged=4, spared=1.0).would_have_succeeded_ratio == 0.25


def test_the_stored_part_is_not_public() -> None:
    """
    What the store keeps for a restart does not leave by the API.
    """
    assert documents.without_kept({"id": 1, documents.KEPT: {"x": 1}}) == {"id": 1}
