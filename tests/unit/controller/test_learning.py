"""Proposals: made after an incident, decided by a person, and never by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.diff import Change, diff
from sidecar.controller.configuring import Configuring
from sidecar.controller.effects import AppendEvent, PutProposal, Write
from sidecar.controller.journal import Journal
from sidecar.controller.learning import Learning
from sidecar.controller.ports import ConfigRefused
from sidecar.controller.replaying import Replays
from sidecar.controller.rollout import Rollout
from sidecar.controller.starting import Source
from sidecar.replay.learned import Learned
from sidecar.replay.reel import Reel

TEXT = "routes: [{name: checkout, match: {path: /**}, limit: {rate: 100/s}}]\n"
MORE = {
    "kind": "threshold", "why": "earlier", "changes": [], "rule": None, "effect": {"over_s": 1.0},
    "settings": [[["routes", "checkout", "detect", "sensitivity"], "high"]],
}  # fmt: skip
RULE = MORE | {
    "kind": "validation",
    "settings": [],
    "rule": {"path": "routes.checkout.limit.rate", "at_least": 20.0},
}


class _NoWorkers:
    """A link without workers."""

    def workers(self) -> frozenset[int]:
        return frozenset()


class Bench:
    """A Learning over a real store and a real history of versions, without workers."""

    def __init__(self, state: Path) -> None:
        self.written: list[Write] = []
        self.journal = Journal(state, lambda sequence, event: None)
        source = Source(state / "sidecar.yaml", {}, {"--upstream": "http://127.0.0.1:9"})
        self.configuring = Configuring(source, self.journal, lambda active, changes: None)
        replays = Replays(self.journal, Reel(), lambda: 0.0)
        self.learning = Learning(self.configuring, replays, self.put, self.none, Learned, lambda step: None)

    def put(self, writes: Sequence[Write]) -> None:
        self.written += writes

    async def none(self) -> list[dict[str, Any]]:
        return []

    def propose(self, *found: dict[str, Any], incident: int = 12) -> None:
        self.learning._propose(incident, found)


@pytest.fixture
async def bench(tmp_path: Path):  # type: ignore[no-untyped-def]
    (tmp_path / "sidecar.yaml").write_text(TEXT)
    made = Bench(tmp_path)
    await made.journal.open()
    await made.configuring.begin()
    made.configuring.serve(Rollout(_NoWorkers()))  # type: ignore[arg-type]
    yield made
    await made.journal.close()


async def test_apply_makes_a_version_that_waits_for_its_confirmation(bench: Bench) -> None:
    """
    The settings are put into the text that runs, under the source `proposal`; without a confirmation it reverts.
    """
    bench.propose(MORE)
    answer = await bench.learning.apply(1, "ops", None)
    assert (answer["state"], answer["version"], answer["decided_by"]) == ("applied", 2, "ops")
    row = bench.configuring.active.row
    assert (row.source, row.state, row.author) == ("proposal", "confirming", "ops")
    assert [change.path for change in diff(TEXT, row.text)] == ["routes.checkout.detect.sensitivity"]
    assert bench.configuring.pending is not None
    with pytest.raises(ConfigRefused, match="is applied"):
        await bench.learning.apply(1, "ops", None)


async def test_dismiss_is_final_and_the_same_is_not_proposed_again(bench: Bench) -> None:
    """
    What a person said no to does not come back with the next study of the same incident.
    """
    bench.propose(MORE)
    bench.learning.dismiss(1, "ops", "no")
    bench.propose(MORE)
    assert [row["state"] for row in bench.learning.proposals(None)] == ["dismissed"]
    with pytest.raises(ConfigRefused, match="is dismissed"):
        bench.learning.dismiss(1, "ops", "")


async def test_a_new_study_supersedes_the_open_ones(bench: Bench) -> None:
    """
    Only the latest word of an incident is open.
    """
    bench.propose(MORE)
    bench.propose(MORE | {"settings": [[["routes", "checkout", "breaker"], "{}"]]})
    assert [row["state"] for row in bench.learning.proposals(None)] == ["open", "superseded"]


async def test_a_rule_refuses_what_it_forbids_until_it_is_lifted(bench: Bench) -> None:
    """
    The value that caused an incident cannot be set so low again; the message says why and how all the same.
    """
    bench.propose(RULE)
    await bench.learning.apply(1, "ops", None)
    low = TEXT.replace("100/s", "5/s")
    with pytest.raises(ConfigRefused) as refused:
        await bench.configuring.apply(low, author="a", reason="", if_match=1, dry_run=False, confirm_within_s=None)
    assert refused.value.status == 422
    assert "below the 20/s" in refused.value.errors[0]["problem"]
    assert "proposal dismiss 1" in refused.value.errors[0]["hint"]
    bench.learning.dismiss(1, "ops", "we know better")
    done = await bench.configuring.apply(low, author="a", reason="", if_match=1, dry_run=False, confirm_within_s=None)
    assert done["version"] == 2


async def test_a_proposal_says_its_effect_and_its_rule_in_words(bench: Bench) -> None:
    """
    Whoever shows it, a command or a post-mortem, shows these words; they are not stored.
    """
    bench.propose(RULE | {"rule": {"path": "upstream.response_timeout", "at_least": 0.4, "unit": "s"}})
    (row,) = bench.learning.proposals("open")
    assert (row["effect"]["words"], row["rule"]["words"]) == ("measured over 1s", "never below 0.4s")
    stored = next(write for write in bench.written if isinstance(write, PutProposal))
    assert ("words" in stored.document["effect"], "words" in stored.document["rule"]) == (False, False)


async def test_what_no_longer_fits_is_a_conflict(bench: Bench) -> None:
    """
    A route that is gone cannot be changed; the proposal stays open.
    """
    bench.propose(MORE | {"settings": [[["routes", "gone", "breaker"], "{}"]]})
    with pytest.raises(ConfigRefused, match="does not fit"):
        await bench.learning.apply(1, "ops", None)
    assert bench.learning.proposal(1)["state"] == "open"  # type: ignore[index]
    with pytest.raises(ConfigRefused, match="no proposal 9"):
        await bench.learning.apply(9, "ops", None)


async def test_everything_is_stored_and_told(bench: Bench) -> None:
    """
    Each step leaves the proposal and an event with its author; a new controller goes on with them.
    """
    bench.propose(MORE)
    bench.learning.dismiss(1, "ops", "no")
    events = [write for write in bench.written if isinstance(write, AppendEvent)]
    assert [(event.kind, event.author) for event in events] == [
        ("proposal.made", "automation"), ("proposal.dismissed", "ops"),
    ]  # fmt: skip
    stored = [write.document for write in bench.written if isinstance(write, PutProposal)]
    bench.learning.restore(stored[-1:])
    assert bench.learning.proposal(1)["state"] == "dismissed"  # type: ignore[index]
    assert "settings" not in bench.learning.proposal(1)  # type: ignore[operator]
    assert bench.learning.faults([Change("routes.checkout.limit.rate", "100/s", "1/s")]) == []


async def test_what_was_not_confirmed_is_open_again(bench: Bench) -> None:
    """
    Its version reverted: it is in force no more, so it can be applied again; the event says why.
    """
    bench.propose(MORE)
    await bench.learning.apply(1, "ops", 60.0)
    await bench.configuring.revert("nobody confirmed it in time")
    found = bench.learning.proposal(1)
    assert found is not None
    assert (found["state"], found["version"], found["decided_by"]) == ("open", None, None)
    assert found["reason"] == "version 2 was not confirmed and reverted"
    assert [write.kind for write in bench.written if isinstance(write, AppendEvent)][-1] == "proposal.reopened"
    assert (await bench.learning.apply(1, "ops", 60.0))["version"] == 4


async def test_a_proposal_that_was_rolled_back_can_be_applied_again(bench: Bench) -> None:
    """
    While its settings are in force it is applied and cannot be applied twice; taken out by a later version it can.
    """
    bench.propose(MORE)
    await bench.learning.apply(1, "ops", 60.0)
    await bench.configuring.confirm("ops")
    with pytest.raises(ConfigRefused, match="is applied as version 2"):
        await bench.learning.apply(1, "ops", None)
    await bench.configuring.rollback(1, author="ops", reason="")
    assert (await bench.learning.apply(1, "ops", None))["version"] == 4


async def test_a_rule_holds_for_the_file_too(bench: Bench, tmp_path: Path) -> None:
    """
    A file that sets the forbidden value changes nothing when it is read again.
    """
    bench.propose(RULE)
    await bench.learning.apply(1, "ops", None)
    (tmp_path / "sidecar.yaml").write_text(TEXT.replace("100/s", "5/s"))
    await bench.configuring.reload("SIGHUP")
    assert (bench.configuring.active.version, bench.configuring.last_apply_ok) == (1, False)


@pytest.mark.parametrize(
    ("rule", "refused", "taken"),
    [
        ({"path": "routes.checkout.response_timeout", "at_least": 0.5, "unit": "s"}, "400ms", "1s"),
        ({"path": "routes.checkout.concurrency.max", "at_least": 7.0, "unit": ""}, "6", "7"),
    ],
)
async def test_a_rule_reads_the_value_in_its_unit(bench: Bench, rule: dict[str, Any], refused: str, taken: str) -> None:
    """
    A duration is compared as a duration, a count as a count.
    """
    bench.propose(RULE | {"rule": rule})
    await bench.learning.apply(1, "ops", None)
    assert len(bench.learning.faults([Change(rule["path"], None, refused)])) == 1
    assert bench.learning.faults([Change(rule["path"], None, taken), Change(rule["path"], taken, None)]) == []
