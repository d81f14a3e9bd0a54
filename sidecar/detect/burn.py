"""
The budget path: is a route's error budget being spent faster than it lasts?

Theory
    An objective (`routes.ROUTE.slo`) allows a part of all requests to be bad: to fail, or to be slower than its bound. The
    burn rate is the bad part over the allowed part: at 1 the budget of a month lasts a month. It is measured over two
    windows, a long one, that says that it matters, and a short one, that says that it still goes on:

        burn = bad / (allowed · requests)        at 14.4, an hour has cost 2 % of a month's budget

    What the tests of every second have already told, or what is on purpose, is not told again: seconds in which errors,
    latency or a trip claim something count in the long window only, and so do the up to five minutes before. So an outage that was found raises nothing here,
    and a slow leak below every test's reach does. (A baseline learns at most 0.1 logit an hour, which is a
    factor of 11 in a day: this is the path that sees it.)

    Traffic from before the sidecar's start was not seen. It is taken to have been good and as frequent, so the first
    failures of a first minute do not pose as those of three days. A few failures say little: the excess has to be more
    than chance, bad − 2·√bad, of ten bad requests at least.

Tables
    factor    long     short     says
    14.4      1 h      5 min     2 % of the month's budget in an hour
    6         6 h      30 min    5 % in six hours
    1         3 d      6 h       10 % in three days

    windows are kept in cells of 150 s and of 2 h: one is never shorter than it says, and at most a cell longer
    the claim     begins when a factor is passed in both of its windows, fades when in none, ends five minutes later

    Advisory: it raises and never isolates. A route without an objective has no such detector.

What can go wrong
    A route that is worse than its objective every day raises as long as it is: that is what the objective says. `benign`
    ends the claim until the burning has stopped once; a truer objective ends it for good. Requests that we refuse are
    not the API's failures and are not counted.

Source: The Site Reliability Workbook, 2018, chapter 5, table 5-8.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from math import inf, sqrt
from typing import Any, ClassVar, Final, NamedTuple

from sidecar.detect.alarm import State
from sidecar.detect.keep import Document, Names, keep, revive
from sidecar.detect.policies import Objective
from sidecar.facts import Detector, RouteSecond, Scope, Signal
from sidecar.measure.histogram import count_above

LOOK_S: Final = 10.0
CLEAR_S: Final = 300.0
LEAST_BAD: Final = 10.0
CHANCE: Final = 2.0  # standard deviations of a Poisson count
FINE_S: Final = 150.0
FINE: Final = 24  # cells: an hour
COARSE_S: Final = 7200.0
COARSE: Final = 36  # cells: three days
_WIDTH: Final = 3  # of a cell: requests, bad ones, bad ones that were not told yet


class Rule(NamedTuple):
    """A burn rate and the two windows over which it must hold."""

    factor: float
    long_s: float
    short_s: float


RULES: Final = (Rule(14.4, 3600.0, 300.0), Rule(6.0, 21_600.0, 1800.0), Rule(1.0, 259_200.0, 21_600.0))


class Cells:
    """Sums of the last *count* cells of *cell_s* seconds, and of the one that is not over."""

    __slots__ = ("_cell_s", "_left_s", "_sums")

    def __init__(self, cell_s: float, count: int) -> None:
        self._cell_s = self._left_s = cell_s
        self._sums = array("f", bytes(4 * _WIDTH * (count + 1)))  # the open one last

    def add(self, requests: int, bad: int, fresh: int, elapsed_s: float) -> None:
        """Take one second."""
        sums = self._sums
        sums[-3] += requests
        sums[-2] += bad
        sums[-1] += fresh
        self._left_s -= elapsed_s
        if self._left_s <= 0:
            self._left_s = self._cell_s
            del sums[:_WIDTH]
            sums.extend((0.0, 0.0, 0.0))

    def tell(self, most: float = inf) -> float:
        """Take what the last two cells hold untold, *most* of it at most, as told; return how much it was."""
        sums, told = self._sums, 0.0
        for i in (-1, -1 - _WIDTH):
            taken = min(sums[i], most - told)
            sums[i] -= taken
            told += taken
        return told

    def over(self, window_s: float) -> tuple[float, float, float]:
        """Return (requests, bad, bad and not told) of the last *window_s*, a cell more at most."""
        held = self._sums[-_WIDTH * (int(window_s / self._cell_s) + 1) :]
        return sum(held[0::3]), sum(held[1::3]), sum(held[2::3])

    def snapshot(self) -> Document:
        """Return the memory as a JSON object."""
        return {"left_s": self._left_s, "sums": list(self._sums)}

    def restore(self, row: Mapping[str, Any]) -> None:
        """Put a snapshot back; one of another length is a ValueError."""
        sums = array("f", row["sums"])
        if len(sums) != len(self._sums):
            raise ValueError(f"{len(sums)} sums instead of {len(self._sums)}")
        self._left_s, self._sums = row["left_s"], sums


class Budget:
    """
    One budget: so many bad requests of all.

    Attributes:
        allowed_ratio: The part that may be bad.
        rule: The first that is passed in both windows; None while none is.
        burn, ratio, requests: Of that rule's long window, or of the hour: how fast it is spent, the bad part and the sample
            of what was seen.
    """

    __slots__ = ("_coarse", "_fine", "allowed_ratio", "burn", "ratio", "requests", "rule")

    def __init__(self, allowed_ratio: float) -> None:
        self.allowed_ratio = allowed_ratio
        self._fine, self._coarse = Cells(FINE_S, FINE), Cells(COARSE_S, COARSE)
        self.rule: Rule | None = None
        self.burn = self.ratio = self.requests = 0.0

    def __repr__(self) -> str:
        return f"<Budget of {self.allowed_ratio:.3%} burns at {self.burn:.1f}>"

    def add(self, requests: int, bad: int, elapsed_s: float, *, told: bool) -> None:
        """Take one second; *told*: somebody else has raised for it."""
        fresh = 0 if told else bad
        self._fine.add(requests, bad, fresh, elapsed_s)
        self._coarse.add(requests, bad, fresh, elapsed_s)

    def tell(self) -> None:
        """Take the last minutes as told: what is raised now began in them."""
        self._coarse.tell(self._fine.tell())

    def look(self, seen_s: float) -> None:
        """Find out how fast it is spent, having watched for *seen_s* in all."""
        self.rule = next((rule for rule in RULES if self._passes(rule, seen_s)), None)
        window_s = (self.rule or RULES[0]).long_s
        requests, bad, _ = self._cells(window_s).over(window_s)
        self.requests, self.ratio = requests, bad / requests if requests else 0.0
        self.burn = self.ratio / self.allowed_ratio / _unseen(window_s, seen_s)

    def _passes(self, rule: Rule, seen_s: float) -> bool:
        long, bad, _ = self._over(rule.long_s, seen_s)
        short, _, fresh = self._over(rule.short_s, seen_s)
        limit = rule.factor * self.allowed_ratio
        return bad >= LEAST_BAD and bad - CHANCE * sqrt(bad) >= limit * long and fresh > 0 and fresh >= limit * short

    def _over(self, window_s: float, seen_s: float) -> tuple[float, float, float]:
        requests, bad, fresh = self._cells(window_s).over(window_s)
        return requests * _unseen(window_s, seen_s), bad, fresh

    def _cells(self, window_s: float) -> Cells:
        return self._fine if window_s <= FINE * FINE_S else self._coarse

    def snapshot(self) -> Document:
        """Return the memory as a JSON object."""
        return {"fine": self._fine.snapshot(), "coarse": self._coarse.snapshot()}

    def restore(self, row: Mapping[str, Any]) -> None:
        """Put a snapshot back; one of another shape is a KeyError, TypeError or ValueError."""
        self._fine.restore(row["fine"])
        self._coarse.restore(row["coarse"])


def _unseen(window_s: float, seen_s: float) -> float:
    """Return how many times longer the window is than what was seen of it."""
    return max(window_s / seen_s, 1.0) if seen_s else 1.0


class BurnDetector:
    """
    The budgets of one route.

    Attributes:
        since_at: When the claim that stands began; None without one.
        seen_s: How long it was watched.
    """

    __slots__ = ("_calm_s", "_due_s", "_muted", "_objective", "_told", "failed", "seen_s", "since_at", "slow")
    KEPT: ClassVar[Names] = ("_calm_s", "_due_s", "_muted", "_told", "seen_s")
    TIMES: ClassVar[Names] = ("since_at",)

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self.failed = Budget(objective.bad_ratio) if objective.bad_ratio else None
        self.slow = Budget(objective.slow_ratio) if objective.slow_ratio else None
        self._due_s = LOOK_S
        self._calm_s = self.seen_s = 0.0
        self._muted = self._told = False
        self.since_at: float | None = None

    def __repr__(self) -> str:
        return f"<BurnDetector {self.state} {self.failed!r} {self.slow!r}>"

    @property
    def state(self) -> State:
        """Return where it stands; it has nothing to learn."""
        if self.since_at is None:
            return State.NORMAL
        return State.RECOVERING if self._calm_s else State.ALARM

    @property
    def score(self) -> float:
        """Return the highest burn rate as a part of the factor that it is held against: from 1 on it may raise."""
        return max(one.burn / (one.rule or RULES[0]).factor for one in self._budgets())

    def _budgets(self) -> list[Budget]:
        return [budget for budget in (self.failed, self.slow) if budget is not None]

    def observe(self, second: RouteSecond, elapsed_s: float, *, told: bool) -> None:
        """
        Take one second.

        Args:
            second: What happened.
            elapsed_s: Seconds since the one before, as far as they were observed.
            told: Somebody else claims something in it, or it is on purpose.
        """
        if self.failed is not None:
            self.failed.add(second.judged, second.failures, elapsed_s, told=told)
        if self.slow is not None:
            ended = sum(second.latency.values())
            self.slow.add(ended, count_above(second.latency, self._objective.slow_s), elapsed_s, told=told)
        if told and not self._told:
            for budget in self._budgets():
                budget.tell()
        self._told = told
        self.seen_s += elapsed_s
        self._due_s -= elapsed_s
        if self._due_s <= 0:
            self._due_s = LOOK_S
            self._look(second.at)

    def _look(self, at: float) -> None:
        for budget in self._budgets():
            budget.look(self.seen_s)
        burning = any(budget.rule is not None for budget in self._budgets())
        self._muted = self._muted and burning
        if self.since_at is None:
            if burning and not self._muted:
                self.since_at, self._calm_s = at, 0.0
            return
        self._calm_s = 0.0 if burning else self._calm_s + LOOK_S
        if self._calm_s > CLEAR_S:
            self.since_at, self._calm_s = None, 0.0

    def accept(self) -> None:
        """End the claim until the burning has stopped once: a person said `benign`."""
        self._muted = self.since_at is not None
        self.since_at, self._calm_s = None, 0.0

    def signal(self, scope: Scope) -> Signal | None:
        """Return the claim while it stands."""
        if self.since_at is None:
            return None
        worst = max(self._budgets(), key=lambda one: (one.rule is not None, one.burn))
        return Signal(
            Detector.BURN,
            scope,
            value=worst.ratio,
            baseline=worst.allowed_ratio,
            sample=round(worst.requests),
            score=worst.burn,
            threshold=(worst.rule or RULES[-1]).factor,
            since_at=self.since_at,
            fading=self._calm_s > 0,
        )

    def snapshot(self) -> Document:
        """Return the memory as a JSON object."""
        budgets = {
            name: one.snapshot() for name, one in (("failed", self.failed), ("slow", self.slow)) if one is not None
        }
        return {**keep(self), **budgets}

    def restore(self, row: Mapping[str, Any], shift_s: float) -> None:
        """Put a snapshot back, its times moved by *shift_s*; a budget that it lacks begins anew."""
        revive(self, row, shift_s)
        for name, budget in (("failed", self.failed), ("slow", self.slow)):
            if budget is not None and name in row:
                budget.restore(row[name])
        for budget in self._budgets():
            budget.look(self.seen_s)
