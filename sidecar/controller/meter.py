"""
What passes of an isolated scope, and what it costs: trials for the ramp, collateral for people.

A trial fails when the upstream failed it, or, for a scope that was isolated for its latency, when it was slow. The cost
is counted every second for each running incident: failed by the upstream, refused by us, and of the refused the part
that would have succeeded, by the trial traffic of the last `COLLATERAL_S` seconds.

What a step has shown is stored every `REWRITE_S` while it moves, with the step it belongs to: a restart goes on with the
same test, and never credits one step with the trials of another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sidecar.controller.book import REWRITE_S, Book
from sidecar.controller.history import History
from sidecar.decide.lease import Isolation
from sidecar.decide.ramp import Proof, Trial
from sidecar.detect.recovery import Health, RecoveryTest
from sidecar.facts import Moment, RouteSecond, ScopeKind
from sidecar.incident import lifecycle, tally
from sidecar.incident.account import Held
from sidecar.incident.lifecycle import Incident
from sidecar.measure import histogram

COLLATERAL_S: Final = 10.0
_PROOFS: Final = {Health.HEALTHY: Proof.HEALTHY, Health.BROKEN: Proof.SICK, Health.UNDECIDED: Proof.UNSURE}


@dataclass(slots=True)
class Trials:
    """What one isolation's passing requests say: this step's test, and the last seconds for the collateral meter."""

    test: RecoveryTest
    successes: int = 0
    success_at: float | None = None
    recent: list[tuple[float, int, int]] = field(default_factory=list)
    stored_at: float = 0.0
    moved: bool = False

    @classmethod
    def of(cls, isolation: Isolation, document: Mapping[str, Any] | None) -> Trials:
        """Return the trials of *isolation*, gone on with from what a *document* of the same step says."""
        if document is None or document["step_at"] != isolation.step_at:
            return cls(RecoveryTest(isolation.normal_ratio, isolation.broken_ratio))
        return cls(RecoveryTest.restored(document["test"]), document["successes"], document["success_at"])

    def document(self, isolation: Isolation) -> dict[str, Any]:
        """Return what a restart needs."""
        return {
            "step_at": isolation.step_at,
            "test": self.test.snapshot(),
            "successes": self.successes,
            "success_at": self.success_at,
        }

    def shown(self, since_at: float) -> Trial:
        """Return what this step has shown, as the ramp reads it."""
        return Trial(_PROOFS[self.test.health], self.successes, self.success_at, since_at)

    def begin(self) -> None:
        """Begin the next step."""
        self.test.reset()
        self.successes, self.success_at = 0, None
        self.moved = True


class Meter:
    """
    Trials by isolation, cost by incident.

    Args:
        book: What is so.
        history: Knows the routes of a scope.
    """

    def __init__(self, book: Book, history: History) -> None:
        self._book = book
        self._history = history
        self._trials: dict[str, Trials] = {}

    def __repr__(self) -> str:
        return f"<Meter {len(self._trials)} trials>"

    def of(self, isolation: Isolation) -> Trials:
        """Return the trials of one isolation; after a restart they go on."""
        trials = self._trials.get(isolation.id)
        if trials is None:
            trials = Trials.of(isolation, self._book.trials.get(isolation.id))
            self._trials[isolation.id] = trials
        return trials

    def forget(self, isolation: Isolation) -> None:
        """Drop the trials of one that has ended."""
        self._trials.pop(isolation.id, None)

    def take(self, rows: Mapping[str, RouteSecond], shown: Mapping[str, RouteSecond], now: Moment) -> None:
        """
        Take this second's trial traffic and count its cost for every running incident.

        Args:
            rows: As they were counted, by route: what it costs.
            shown: As detection is shown them: a drill's slow answers are slow trials.
        """
        for isolation in self._book.live():
            self._meter(isolation, shown, now)
        for incident in self._book.running():
            self._count(incident, rows, now)

    def _meter(self, isolation: Isolation, rows: Mapping[str, RouteSecond], now: Moment) -> None:
        trials = self.of(isolation)
        touched = [rows[name] for name in self._history.routes_of(isolation.scope) if name in rows]
        good = sum(row.passed_trials.get(isolation.id, (0, 0))[0] for row in touched)
        bad = sum(row.passed_trials.get(isolation.id, (0, 0))[1] for row in touched)
        slow = min(self._slow_now(isolation, touched), good)
        if good + bad:
            trials.recent = [r for r in trials.recent if now.at - r[0] < COLLATERAL_S]
            trials.recent.append((now.at, good, bad))
            trials.test.observe(good - slow, bad + slow)
            trials.successes += good - slow
            trials.success_at = now.at if good > slow else trials.success_at
            trials.moved = True
        if good + bad or any(row.held.get(isolation.id) for row in touched):
            self._book.isolations[isolation.id] = replace(isolation, busy_at=now.at)
        if trials.moved and now.at - trials.stored_at >= REWRITE_S:
            self._keep(isolation.id, trials, now)

    def save(self, now: Moment) -> None:
        """Store what all steps have shown: this controller ends."""
        for isolation in self._book.live():
            trials = self._trials.get(isolation.id)
            if trials is not None and trials.moved:
                self._keep(isolation.id, trials, now)

    def _keep(self, key: str, trials: Trials, now: Moment) -> None:
        isolation = self._book.isolations[key]
        self._book.keep_trials(isolation, trials.document(isolation))
        trials.stored_at, trials.moved = now.at, False

    @staticmethod
    def _slow_now(isolation: Isolation, rows: Sequence[RouteSecond]) -> int:
        limit = isolation.slow_over_s
        if limit is None:
            return 0
        if isolation.scope.kind is ScopeKind.CLIENT:
            return tally.requests_of(rows, isolation.scope)[2]
        return sum(histogram.count_above(row.latency, limit) for row in rows)

    def _charge(self, key: str, held: int, good_ratio: float | None) -> None:
        """Note what one isolation cost this second, beside its incident's sum."""
        isolation = self._book.isolations.get(key)
        if isolation is None:
            return
        judged = 0 if good_ratio is None else held
        self._book.isolations[key] = replace(
            isolation,
            refused=isolation.refused + held,
            judged=isolation.judged + judged,
            spared=isolation.spared + judged * (good_ratio or 0.0),
        )

    def _count(self, incident: Incident, rows: Mapping[str, RouteSecond], now: Moment) -> None:
        names = self._history.routes_of(incident.scope)
        touched = [rows[name] for name in names if name in rows]
        failed = tally.requests_of(touched, incident.scope)[1]
        held = self._held(incident, touched)
        account = self._book.account(incident)
        account.take(touched, incident.scope, held, now.unix)
        account.bystanders(touched, incident.scope, (row for name, row in rows.items() if name not in names))
        refused = sum(each.requests for each in held.values())
        if failed or refused:
            cost = incident.impact
            impact = lifecycle.Impact(
                cost.failed + failed,
                cost.refused + refused,
                cost.judged + sum(each.judged for each in held.values()),
                cost.spared + sum(each.spared for each in held.values()),
                cost.seconds + 1,
            )
            self._book.move_incident(replace(incident, impact=impact), now)

    def _held(self, incident: Incident, touched: Sequence[RouteSecond]) -> dict[str, Held]:
        """Return what the incident's isolations refused this second, by route, and charge them with it."""
        made: dict[str, Held] = {}
        for key in incident.isolations:
            by_route = {row.route: row.held[key] for row in touched if row.held.get(key)}
            if not by_route:
                continue
            ratio = self._good_ratio(key)
            self._charge(key, sum(by_route.values()), ratio)
            for name, count in by_route.items():
                judged, old = 0 if ratio is None else count, made.get(name, Held())
                spared = old.spared + judged * (ratio or 0.0)
                made[name] = Held(old.requests + count, old.judged + judged, spared)
        return made

    def _good_ratio(self, key: str) -> float | None:
        """Return the part of an isolation's trials of the last seconds that succeeded; None without any."""
        trials = self._trials.get(key)
        good = sum(r[1] for r in trials.recent) if trials else 0
        total = good + sum(r[2] for r in trials.recent) if trials else 0
        return good / total if total else None
