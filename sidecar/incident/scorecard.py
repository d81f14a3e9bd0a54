"""
How good a detector is on a route, by what people said of its incidents.

Theory
    Precision is confirmed / (confirmed + false positives); `benign` says that it was right about an effect that is wanted,
    and counts for neither. A rule that is wrong more often than right costs more trust than it earns: with at least
    `LEAST` verdicts and a precision below `HALF` it is demoted to observe. A false positive that was learnt meanwhile, so that
    the same score, or the same size (`decide/size.py`), would be silent now, is no reason for that: it does not count. What it would have raised from then on is
    its shadow record; a person who promotes it sees that first, and it starts anew: verdicts of before do not count.

What can go wrong
    The same incident is judged twice: the newer verdict replaces the older one. Memory: `KEPT` verdicts a detector and
    route, the oldest go first.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from math import inf
from statistics import median
from typing import Any, Final

from sidecar.incident.words import rfc3339

LEAST: Final = 5
HALF: Final = 0.5
KEPT: Final = 50
SHOWN: Final = 10
CONFIG: Final = "config"  # who let it observe, where no person and no demotion did


@dataclass(frozen=True, slots=True)
class Judgement:
    """
    One verdict about one incident.

    Attributes:
        delay_s: From the onset to its detection.
        pages: How often people were told of it urgently.
        refused_s: Seconds in which it made us refuse.
        step: What it moved the threshold by, to take back when the verdict changes.
        hushed_at: The offset of the threshold above which its score would have been silent.
    """

    incident: int
    verdict: str
    unix: float
    delay_s: float
    pages: int
    refused_s: float
    step: float = 0.0
    hushed_at: float = inf

    def learnt(self, offset: float) -> bool:
        """Tell whether it was false and a threshold moved by *offset* would not raise it again."""
        return self.verdict == "false_positive" and self.hushed_at < offset


@dataclass(frozen=True, slots=True)
class Shadow:
    """What a demoted detector would have raised since then."""

    since_unix: float
    alarms: int = 0
    seconds: int = 0


@dataclass(frozen=True, slots=True)
class Scorecard:
    """
    One detector on one route.

    Attributes:
        judged: The oldest first.
        counts_from: Unix seconds of the last promotion: older verdicts do not demote again.
        demoted: Its shadow record while it is demoted.
        by: Who demoted it.
    """

    judged: tuple[Judgement, ...] = ()
    counts_from: float = 0.0
    demoted: Shadow | None = None
    by: str = ""

    @property
    def precision(self) -> float | None:
        """Return the part that was right; None without any verdict that says it."""
        return _precision(self.judged)

    def too_often_wrong(self, offset: float = 0.0, silent: Collection[int] = ()) -> bool:
        """Tell whether it has to be demoted, now that its threshold moved by *offset* and what *silent* said would not be told."""
        rows = tuple(
            row
            for row in self.judged
            if row.unix >= self.counts_from and not row.learnt(offset) and row.incident not in silent
        )
        told = [row for row in rows if row.verdict in ("confirmed", "false_positive")]
        precision = _precision(rows)
        return len(told) >= LEAST and precision is not None and precision < HALF

    def of(self, incident: int) -> Judgement | None:
        """Return what was said of one incident."""
        return next((row for row in self.judged if row.incident == incident), None)

    def judge(self, row: Judgement) -> Scorecard:
        """Return this with one more verdict, in place of an older one about the same incident."""
        others = tuple(old for old in self.judged if old.incident != row.incident)
        return replace(self, judged=(*others, row)[-KEPT:])

    def demote(self, unix: float, by: str) -> Scorecard:
        """Return this, demoted."""
        return replace(self, demoted=self.demoted or Shadow(unix), by=by)

    def promote(self, unix: float) -> Scorecard:
        """Return this in force again."""
        return replace(self, demoted=None, counts_from=unix, by="")

    def heard_again(self) -> Scorecard:
        """Return this after the config let it observe for a while: its verdicts count on."""
        return replace(self, demoted=None, by="")

    def shadow(self, *, began: bool) -> Scorecard:
        """Return this with one more second in which it would have sounded; *began*: an alarm of its own."""
        if self.demoted is None:
            return self
        seen = self.demoted
        return replace(self, demoted=replace(seen, alarms=seen.alarms + began, seconds=seen.seconds + 1))

    def words(self, confirmed: int = 0, wrong: int = 0) -> str:
        """
        Return why it only observes, and what it would have raised since.

        Args:
            confirmed, wrong: Of that, what people confirmed, and called false.
        """
        if self.demoted is None:
            return ""
        right = sum(row.verdict == "confirmed" for row in self.judged)
        told = sum(row.verdict in ("confirmed", "false_positive") for row in self.judged)
        record = f"{right} of {told} verdicts confirm it" if told else "nobody has judged it yet"
        first = "observes by the config" if self.by == CONFIG else f"demoted by {self.by}: {record}"
        judged = f", {confirmed} of {confirmed + wrong} judged confirmed" if confirmed + wrong else ""
        return f"{first}; would have raised {self.demoted.alarms or 'nothing'} since{judged}"

    def document(self) -> dict[str, Any]:
        """Return it in its public shape."""
        counts = {
            word: sum(row.verdict == word for row in self.judged) for word in ("confirmed", "false_positive", "benign")
        }
        delays = [row.delay_s for row in self.judged if row.verdict == "confirmed"]
        wrong = [row for row in self.judged if row.verdict == "false_positive"]
        return {
            **counts,
            "precision": self.precision,
            "delay_s": median(delays) if delays else None,
            "pages": sum(row.pages for row in self.judged),
            "falsely_refused_s": sum(row.refused_s for row in wrong),
            "last": [
                {"incident": row.incident, "verdict": row.verdict, "time": rfc3339(row.unix)}
                for row in self.judged[: -SHOWN - 1 : -1]
            ],
            "demoted": _shadow(self.demoted),
        }

    def to_json(self) -> dict[str, Any]:
        """Return it as the store keeps it."""
        demoted = self.demoted
        return {
            "judged": [
                [r.incident, r.verdict, r.unix, r.delay_s, r.pages, r.refused_s, r.step, *_finite(r.hushed_at)]
                for r in self.judged
            ],
            "counts_from": self.counts_from,
            "demoted": [demoted.since_unix, demoted.alarms, demoted.seconds] if demoted else None,
            "by": self.by,
        }  # fmt: skip

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Scorecard:
        """Read what `to_json` wrote."""
        return cls(
            tuple(Judgement(*values) for values in row["judged"]),
            row["counts_from"],
            Shadow(*row["demoted"]) if row["demoted"] else None,
            row["by"],
        )


def _finite(number: float) -> tuple[float, ...]:
    """Return *number* for a row of JSON, which has no infinity: the field is left out."""
    return () if number == inf else (number,)


def _precision(rows: tuple[Judgement, ...]) -> float | None:
    right = sum(row.verdict == "confirmed" for row in rows)
    wrong = sum(row.verdict == "false_positive" for row in rows)
    return right / (right + wrong) if right + wrong else None


def _shadow(seen: Shadow | None) -> dict[str, Any] | None:
    if seen is None:
        return None
    return {"since_time": rfc3339(seen.since_unix), "would_have_raised": seen.alarms, "seconds": seen.seconds}
