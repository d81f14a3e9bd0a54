"""The budget path: what is spent faster than it lasts is told once, unless somebody else has told it."""

from __future__ import annotations

import json

import pytest

from sidecar.detect.alarm import State
from sidecar.detect.bank import Bank
from sidecar.detect.burn import RULES, BurnDetector, Cells
from sidecar.detect.policies import DetectPolicy, Objective
from sidecar.facts import Detector, RouteSecond, Scope
from sidecar.measure.histogram import index

SCOPE = Scope.route("checkout")
HOUR, DAY = 3600, 86_400
RATE = 100  # a second
STEP_S = 10.0


class Ledger:
    """Feeds a detector ten seconds at a time, at 100 requests a second."""

    def __init__(self, objective: Objective | None = None) -> None:
        self.detector = BurnDetector(objective or Objective(bad_ratio=0.001))
        self.at = 0.0
        self.began: list[float] = []
        self._owed = 0.0

    def run(self, seconds: float, bad: float = 0.0, *, slow: float = 0.0, told: bool = False) -> Ledger:
        """Let *seconds* pass, in which the part *bad* fails and the part *slow* takes two seconds."""
        for _ in range(round(seconds / STEP_S)):
            self.at += STEP_S
            requests = int(RATE * STEP_S)
            self._owed += requests * bad
            failed, self._owed = int(self._owed), self._owed % 1
            late = round(requests * slow)
            latency = {index(0.02): requests - late, index(2.0): late}
            row = RouteSecond(
                "checkout", self.at, arrivals=requests, successes=requests - failed, failures=failed, latency=latency
            )
            before = self.detector.since_at
            self.detector.observe(row, STEP_S, told=told)
            if before is None and self.detector.since_at is not None:
                self.began.append(self.at)
        return self

    @property
    def factor(self) -> float:
        """The burn rate that the claim is held against; 0 without a claim."""
        signal = self.detector.signal(SCOPE)
        return signal.threshold if signal is not None else 0.0


@pytest.mark.parametrize(
    ("bad", "factor", "within_s"), [(0.02, 14.4, HOUR), (0.008, 6.0, 6 * HOUR), (0.0015, 1.0, 3 * DAY)]
)
def test_each_rule_finds_its_burn_within_its_long_window(bad: float, factor: float, within_s: float) -> None:
    """
    20 times the budget is found within an hour, 8 times within six, 1.5 times within three days, and not by a steeper rule.
    """
    ledger = Ledger().run(3 * DAY).run(2 * HOUR, bad)
    while not ledger.began and ledger.at < 4 * DAY + within_s:
        ledger.run(HOUR / 4, bad)

    assert ledger.began
    assert ledger.began[0] - 3 * DAY <= within_s
    assert ledger.factor == factor


def test_what_the_objective_allows_is_silent() -> None:
    """
    At exactly the allowed ratio nothing is raised in days.
    """
    assert Ledger().run(5 * DAY, 0.001).began == []


def test_the_numbers_are_those_of_the_workbook() -> None:
    """
    Each rule is a part of a month's budget: 2 % in an hour, 5 % in six hours, 10 % in three days.
    """
    assert [rule.factor * rule.long_s / (30 * DAY) for rule in RULES] == pytest.approx([0.02, 0.05, 0.1])


def test_what_was_told_is_not_told_again() -> None:
    """
    An outage that errors raise burns the budget and is no claim of this detector, the seconds before the alarm included.
    """
    ledger = Ledger().run(3 * DAY).run(20, 1.0).run(600, 1.0, told=True).run(2 * HOUR)
    assert ledger.began == []


def test_a_claim_fades_and_ends_when_the_short_window_is_clean() -> None:
    """
    After the fault the short window empties first; five minutes later the claim is over, and the next one is a new one.
    """
    ledger = Ledger().run(3 * DAY).run(HOUR, 0.05)
    assert ledger.detector.state is State.ALARM

    ledger.run(4 * HOUR)
    assert ledger.detector.state is State.NORMAL
    ledger.run(HOUR, 0.05)
    assert len(ledger.began) == 2


def test_a_first_failure_does_not_stand_for_three_days() -> None:
    """
    What was not watched counts as good: a minute of 1 % failures at the start is silent, an hour of 2 % is not.
    """
    assert Ledger().run(60, 0.01).began == []
    assert Ledger().run(HOUR, 0.02).began != []


def test_a_few_failures_are_no_burn() -> None:
    """
    Nine failures in a quiet three days are above a strict budget and may be chance.
    """
    detector = BurnDetector(Objective(bad_ratio=0.0001))
    for i in range(1, 1000):
        failed = int(i % 100 == 0)
        row = RouteSecond("r", 300.0 * i, arrivals=5, successes=5 - failed, failures=failed)
        detector.observe(row, 10.0, told=False)
    assert detector.signal(SCOPE) is None


def test_slow_answers_spend_a_budget_of_their_own() -> None:
    """
    One percent may take longer than 300 ms; a third of the requests does, and the claim names what is allowed.
    """
    ledger = Ledger(Objective(slow_ratio=0.01, slow_s=0.3)).run(3 * DAY).run(HOUR, slow=0.3)
    signal = ledger.detector.signal(SCOPE)

    assert signal is not None
    assert (signal.detector, signal.baseline, signal.unit) == (Detector.BURN, 0.01, "ratio")
    assert signal.score >= signal.threshold == 14.4


def test_benign_is_quiet_until_it_stopped_once() -> None:
    """
    A person's `benign` ends the claim; burning on raises nothing, burning again does.
    """
    ledger = Ledger().run(3 * DAY).run(HOUR, 0.05)
    ledger.detector.accept()
    ledger.run(HOUR, 0.05)
    assert ledger.detector.signal(SCOPE) is None

    ledger.run(DAY).run(HOUR, 0.05)
    assert ledger.detector.signal(SCOPE) is not None


def test_a_snapshot_brings_back_the_same_future() -> None:
    """
    Saved as JSON and restored on another clock, the ledger goes on; one of another length is refused.
    """
    first, second = Ledger().run(3 * DAY).run(1200, 0.02), Ledger()
    second.detector.restore(json.loads(json.dumps(first.detector.snapshot())), 0.0)
    second.at = first.at
    for ledger in (first, second):
        ledger.run(HOUR, 0.02)

    assert second.began == first.began != []
    with pytest.raises(ValueError, match="9 sums instead of 6"):
        Cells(1.0, 1).restore(Cells(1.0, 2).snapshot())


def test_a_bank_has_one_for_each_route_with_an_objective() -> None:
    """
    The objective arrives by the policy, the claim leaves by the bank, and another objective begins an empty ledger.
    """
    policy = DetectPolicy(objectives={"a": Objective(0.001)})
    bank = Bank(policy, ["a", "b"], 0.0)
    states = {row.route: row.state for row in bank.inventory() if row.name == "detect.burn"}
    assert states == {"a": "enforce", "b": "cannot run"}

    found = set()
    for i in range(1, 4000):
        failed = int(i > 400 and i % 4 == 0)
        rows = [RouteSecond(name, float(i), arrivals=10, successes=10 - failed, failures=failed) for name in "ab"]
        found |= {(signal.detector, signal.scope.name) for signal in bank.observe(rows, float(i))}
    assert (Detector.BURN, "b") not in found

    bank.apply(DetectPolicy(objectives={"a": Objective(0.5)}), ["a", "b"], 4000.0)
    assert bank.scores()["a", Detector.BURN] == 0.0
    bank.apply(DetectPolicy(), ["a", "b"], 4000.0)
    assert bank.snapshot()["a"]["burn"] is None
