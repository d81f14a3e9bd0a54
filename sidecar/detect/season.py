"""
What this time of the day is like: a profile of the day, and what its hours have already shown.

Theory
    `Profile` holds a mean for each half hour of the day. Each value moves its slot's mean by 1/20 of the distance (by 1/n
    while the slot is young), so a slot remembers about 20 values: some days of five-minute values, some weeks of hourly
    ones. A slot without two values is expected to be as the long-run mean is.

    `Custom` is the memory of what is usual although it is rare. It holds, for each quarter of an hour and each of its last
    five visits, the greatest rarity of that visit. What was as rare at this time of day (give or take two quarters) in
    three of the last five visits is the custom of the hour and no news: the nightly backup, the hourly cron job.

What can go wrong
    The slots count from the epoch of the clock that is passed in, so the profile is right up to a phase, whatever clock it
    is; it must go on evenly. A stream without any daily rhythm pays with a noisier expectation. A custom takes three days
    to form and is forgotten in three.
"""

from __future__ import annotations

from array import array
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any, Final

from sidecar.detect.keep import Document

DAY_S: Final = 86_400.0
PROFILE_SLOTS: Final = 48
SLOT_GAIN: Final = 0.05
LEAST_VALUES: Final = 2
LONG_RUN: Final = 2000

CUSTOM_SLOTS: Final = 96
VISITS: Final = 5
NEED_VISITS: Final = 3
REACH: Final = 2
ALIKE_RATIO: Final = 0.95
_STEP: Final = 0.05  # rarities are kept in one byte: 0 to 12.75


class Profile:
    """The mean of a stream by time of the day."""

    __slots__ = ("_counts", "_long_run", "_means", "seen")

    def __init__(self) -> None:
        self._means = array("f", bytes(4 * PROFILE_SLOTS))
        self._counts = array("B", bytes(PROFILE_SLOTS))
        self._long_run = 0.0
        self.seen = 0

    def __repr__(self) -> str:
        return f"<Profile after {self.seen}, mean {self._long_run:.4g}>"

    def expected(self, at_s: float) -> float:
        """Return what the profile expects at *at_s* (seconds of an even clock)."""
        slot = int(at_s % DAY_S / DAY_S * PROFILE_SLOTS)
        return self._means[slot] if self._counts[slot] >= LEAST_VALUES else self._long_run

    def observe(self, at_s: float, value: float) -> float:
        """Return how far *value* lies above what was expected, then learn it."""
        if not self.seen:
            self._long_run = value
        slot = int(at_s % DAY_S / DAY_S * PROFILE_SLOTS)
        count, mean = self._counts[slot], self._means[slot]
        residual = value - (mean if count >= LEAST_VALUES else self._long_run)
        if count < 255:
            self._counts[slot] = count = count + 1
        self._means[slot] = mean + max(SLOT_GAIN, 1.0 / count) * (value - mean)
        self.seen += 1
        self._long_run += (value - self._long_run) / min(self.seen, LONG_RUN)
        return residual

    def snapshot(self) -> Document:
        """Return the memory as a JSON object."""
        return {"seen": self.seen, "long_run": self._long_run, "means": list(self._means), "counts": list(self._counts)}

    def restore(self, document: Mapping[str, Any]) -> None:
        """Put back what `snapshot` returned; a document of another shape is a ValueError."""
        means, counts = array("f", document["means"]), array("B", document["counts"])
        if len(means) != PROFILE_SLOTS or len(counts) != PROFILE_SLOTS:
            raise ValueError(f"{len(means)} slots instead of {PROFILE_SLOTS}")
        self._means, self._counts = means, counts
        self.seen, self._long_run = int(document["seen"]), float(document["long_run"])


class Custom:
    """The rarities that times of the day have shown lately."""

    __slots__ = ("_greatest", "_next", "_shown", "_slot")

    def __init__(self) -> None:
        self._shown = bytearray(CUSTOM_SLOTS * VISITS)
        self._next = bytearray(CUSTOM_SLOTS)  # which visit of each slot is written next
        self._slot = -1
        self._greatest = 0.0

    def __repr__(self) -> str:
        return f"<Custom {sum(map(bool, self._shown))} rare visits>"

    def observe(self, at_s: float, rarity: float) -> bool:
        """Tell whether a *rarity* at this time of day is news, then remember it."""
        slot = int(at_s % DAY_S / DAY_S * CUSTOM_SLOTS)
        if slot != self._slot:
            self._close_visit()
            self._slot = slot
        news = rarity > 0 and self.usual(slot) < ALIKE_RATIO * rarity
        self._greatest = max(self._greatest, rarity)
        return news

    def usual(self, slot: int) -> float:
        """Return the rarity that at least three of the last five visits to about *slot* reached."""
        visits = sorted(
            (max(self._visit(slot + step, back) for step in range(-REACH, REACH + 1)) for back in range(1, VISITS + 1)),
            reverse=True,
        )
        return visits[NEED_VISITS - 1] * _STEP

    def _visit(self, slot: int, back: int) -> int:
        slot %= CUSTOM_SLOTS
        return self._shown[slot * VISITS + (self._next[slot] - back) % VISITS]

    def _close_visit(self) -> None:
        if self._slot >= 0:
            turn = self._next[self._slot]
            self._shown[self._slot * VISITS + turn] = min(int(self._greatest / _STEP), 255)
            self._next[self._slot] = (turn + 1) % VISITS
        self._greatest = 0.0

    def snapshot(self) -> Document:
        """Return the memory as a JSON object."""
        visits = {"shown": b64encode(self._shown).decode(), "next": b64encode(self._next).decode()}
        return {**visits, "slot": self._slot, "greatest": self._greatest}

    def restore(self, document: Mapping[str, Any]) -> None:
        """Put back what `snapshot` returned; a document of another shape is a ValueError."""
        shown = bytearray(b64decode(document["shown"], validate=True))
        turns = bytearray(b64decode(document["next"], validate=True))
        if len(shown) != CUSTOM_SLOTS * VISITS or len(turns) != CUSTOM_SLOTS or max(turns) >= VISITS:
            raise ValueError(f"{len(shown)} visits instead of {CUSTOM_SLOTS * VISITS}")
        self._shown, self._next = shown, turns
        self._slot, self._greatest = int(document["slot"]), float(document["greatest"])
