"""
What this time of the day is like: a profile of the day, and what its hours have already shown.

Theory
    `Profile` holds a mean for each half hour of the day. Each value moves its slot's mean by 1/20 of the distance (by 1/n
    while the slot is young), so a slot remembers about 20 values: some days of five-minute values, some weeks of hourly
    ones. A slot without two values is expected to be as the long-run mean is.

    `Custom` is the memory of what is usual although it is rare. It holds, for the quarters of an hour of the last five
    days, the greatest rarity of each visit. What was as rare at this time of day (give or take two quarters) in
    three of the last five visits is the custom of the hour and no news: the nightly backup, the hourly cron job.
    Rare is rare: of the 480 visits of five days only the 40 rarest are kept, the others count as nothing special. On
    NAB that changes 8 scores of 365,558 and no alarm.

What can go wrong
    The slots count from the epoch of the clock that is passed in, so the profile is right up to a phase, whatever clock it
    is; it must go on evenly. A stream without any daily rhythm pays with a noisier expectation. A custom takes three days
    to form and is forgotten in three. A quarter of an hour without a value was a visit that showed nothing.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from struct import Struct
from typing import Any, Final

from sidecar.detect.keep import Document

DAY_S: Final = 86_400.0
PROFILE_SLOTS: Final = 48
SLOT_GAIN: Final = 0.05
LEAST_VALUES: Final = 2
LONG_RUN: Final = 2000

QUARTER_S: Final = 900.0
QUARTERS: Final = 96
VISITS: Final = 5
CYCLE: Final = QUARTERS * VISITS
NEED_VISITS: Final = 3
REACH: Final = 2
KEPT_VISITS: Final = 40
ALIKE_RATIO: Final = 0.95
_STEP: Final = 0.05  # rarities are kept in one byte: 0 to 12.75
_PROFILE: Final = Struct("<Id")  # seen, long run
_CUSTOM: Final = Struct("<qd")  # quarter, its greatest rarity
_NO_QUARTER: Final = -1


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

    def pack(self) -> bytes:
        """Return the memory as one record, always of the same length."""
        return _PROFILE.pack(self.seen, self._long_run) + self._means.tobytes() + self._counts.tobytes()

    def unpack(self, record: bytes) -> None:
        """Put back what `pack` returned."""
        self.seen, self._long_run = _PROFILE.unpack_from(record)
        middle = len(record) - PROFILE_SLOTS
        self._means, self._counts = array("f", record[_PROFILE.size : middle]), array("B", record[middle:])

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

    # Visits by their quarter's place in a cycle of five days, so a place says how long ago it was.
    __slots__ = ("_greatest", "_quarter", "_visits")

    def __init__(self) -> None:
        self._visits: dict[int, int] = {}
        self._quarter = _NO_QUARTER
        self._greatest = 0.0

    def __repr__(self) -> str:
        return f"<Custom {len(self._visits)} rare visits>"

    def observe(self, at_s: float, rarity: float) -> bool:
        """Tell whether a *rarity* at this time of day is news, then remember it."""
        quarter = int(at_s // QUARTER_S)
        if quarter != self._quarter:
            self._close_visit(quarter)
        news = rarity > 0 and self.usual() < ALIKE_RATIO * rarity
        self._greatest = max(self._greatest, rarity)
        return news

    def usual(self) -> float:
        """Return the rarity that at least three of the last five visits to about this quarter reached."""
        shown, now = [0] * VISITS, self._quarter % CYCLE
        for place, rarity in self._visits.items():
            back = (now - place) % CYCLE or CYCLE
            if (back + REACH) % QUARTERS <= 2 * REACH:
                visit = (back - 1) // QUARTERS
                shown[visit] = max(shown[visit], rarity)
        return sorted(shown, reverse=True)[NEED_VISITS - 1] * _STEP

    def _close_visit(self, quarter: int) -> None:
        """Remember the visit that is over, and forget what is five days old when *quarter* begins."""
        visits, was = self._visits, self._quarter
        if was != _NO_QUARTER:
            visits.pop(was % CYCLE, None)
            shown = min(int(self._greatest / _STEP), 255)
            if shown:
                visits[was % CYCLE] = shown
            for passed in range(was + 1, min(quarter, was + 1 + CYCLE)) if visits else ():
                visits.pop(passed % CYCLE, None)
            if len(visits) > KEPT_VISITS:
                del visits[min(visits, key=lambda place: (visits[place], (place - quarter) % CYCLE))]
        self._quarter, self._greatest = quarter, 0.0

    def pack(self) -> bytes:
        """Return the memory as one record, always of the same length."""
        places, shown = array("H", bytes(2 * KEPT_VISITS)), bytearray(KEPT_VISITS)
        for i, (place, rarity) in enumerate(self._visits.items()):
            places[i], shown[i] = place, rarity
        return _CUSTOM.pack(self._quarter, self._greatest) + places.tobytes() + shown

    def unpack(self, record: bytes) -> None:
        """Put back what `pack` returned."""
        self._quarter, self._greatest = _CUSTOM.unpack_from(record)
        middle = len(record) - KEPT_VISITS
        rows = zip(array("H", record[_CUSTOM.size : middle]), record[middle:], strict=True)
        self._visits = {place: rarity for place, rarity in rows if rarity}

    def snapshot(self) -> Document:
        """Return the memory as a JSON object."""
        visits = [[place, rarity] for place, rarity in self._visits.items()]
        return {"quarter": self._quarter, "greatest": self._greatest, "visits": visits}

    def restore(self, document: Mapping[str, Any]) -> None:
        """
        Put back what `snapshot` returned; a document of another shape is a ValueError.

        One of an older release knew no days: it has nothing to say here, and customs form anew.
        """
        if "visits" not in document:
            return
        visits = {int(place): int(rarity) for place, rarity in document["visits"]}
        if len(visits) > KEPT_VISITS or any(
            not (0 <= place < CYCLE and 0 < rarity < 256) for place, rarity in visits.items()
        ):
            raise ValueError(f"{len(visits)} visits, or one outside of five days")
        self._visits = visits
        self._quarter, self._greatest = int(document["quarter"]), float(document["greatest"])
