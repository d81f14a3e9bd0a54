"""The scoreboard of detection: its rows, with goals, as text and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Effort:
    """
    How much to measure.

    Attributes:
        workers: Processes that measure side by side.
        quick: A tenth of the seeds and days: to see that it runs, not to quote.
    """

    workers: int = 2
    quick: bool = False

    def of(self, full: int) -> int:
        """Return *full*, or a tenth of it, at least 1."""
        return max(full // 10, 1) if self.quick else full


@dataclass(frozen=True, slots=True)
class Measured:
    """
    What one yardstick gave.

    Attributes:
        text: For people, in the yardstick's own order and units.
        met, moonshot_met: Whether the goal and the moonshot are reached.
        numbers: All of it, for machines.
    """

    text: str
    met: bool
    moonshot_met: bool
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Yardstick:
    """One row of the scoreboard and how it is measured."""

    number: int
    what: str
    goal: str
    moonshot: str
    measure: Callable[[Effort], Measured]


@dataclass(frozen=True, slots=True)
class Row:
    """One measured row."""

    number: int
    what: str
    measured: str
    goal: str
    moonshot: str
    met: bool
    moonshot_met: bool
    seconds: float
    numbers: Mapping[str, Any]

    @property
    def verdict(self) -> str:
        """Return `moonshot`, `met`, `missed` or `absent`."""
        if "absent" in self.numbers:
            return "absent"
        return "moonshot" if self.moonshot_met else "met" if self.met else "missed"

    def to_json(self) -> dict[str, Any]:
        """Return the row as a JSON object."""
        return {**asdict(self), "verdict": self.verdict}


HEADER = ("#", "yardstick", "measured", "goal", "moonshot", "")


def table(rows: Sequence[Row]) -> str:
    """Return *rows* as an aligned text table."""
    cells = [HEADER, *((str(r.number), r.what, r.measured, r.goal, r.moonshot, r.verdict) for r in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEADER))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )
