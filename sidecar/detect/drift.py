"""
The drift detector: what changes over minutes and hours, too slowly or too quietly for the tests of every second.

Theory
    Once a minute four numbers of the route go through the slow path (`slow.py`), each through its own: arrivals a second,
    the failure ratio, the median and the 95th percentile of latency. Each answers with a rarity, −log₁₀ of how
    often its own past was like this. The claim is the rarest of the four.

    A false alarm a month is the budget of the whole detector, so the level is the rarity that 4 streams reach once in
    43,200 minutes by chance: log₁₀(4 · 43,200) = 5.2 at `sensitivity: normal`. (Over a series of unknown rhythm, `sidecar
    simulate --series`, there is no month to share; its level is 2.5, see `slow.py`.)

Tables
    stream        a value a minute of                    left out when
    rate          arrivals, refused ones included        the minute was not watched whole
    errors        failed / judged                        fewer than 20 were judged since the last value: they wait, 10 min at most
    p50, p95      the minute's latencies                 the same

    the claim     begins when a stream raises; fades once the rarity fell below half of the level; ends after ten such
                  minutes, or 100 minutes after it began: then the new state has had its say

    Advisory: it raises and never isolates. A minute in which errors, latency or a trip claim something, or in which the
    route is frozen (a drill, an override), is neither judged nor learnt: it is somebody else's.

    Between two minutes the streams sleep, packed into one record of the route (`SlowDetector.pack`).

What can go wrong
    It says nothing on the first day and knows little of the day's rhythm for some more. The time of day is that of
    a clock which stands still while the controller is down: after a pause of an hour the profile is an hour off, for
    some days.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from math import log, log10
from typing import Any, ClassVar, Final

from sidecar.detect.alarm import State
from sidecar.detect.cusum import FALSE_ALARMS
from sidecar.detect.keep import Document, Names, keep, revive
from sidecar.detect.policies import DetectPolicy
from sidecar.detect.slow import RECORD_BYTES, SlowDetector, SlowPolicy
from sidecar.detect.window import Window
from sidecar.facts import Detector, RouteSecond, Scope, Signal

MINUTE_S: Final = 60.0
STREAMS: Final = ("rate", "errors", "p50", "p95")
UNITS: Final = ("per_s", "ratio", "s", "s")
MONTH_MINUTES: Final = 43_200
LEAST_REQUESTS: Final = 20
WARMUP: Final = 1440  # minutes: a day must have been seen before anything in it is unusual
LONGEST_WAIT: Final = 10  # minutes
CLEAR_RATIO: Final = 0.5
CLEAR_MINUTES: Final = 10
EPISODE_MINUTES: Final = 100
_READING: Final = 4  # of a stream: rarity, recent and expected value, values so far


def level(policy: DetectPolicy) -> float:
    """Return the rarity that raises, as sensitivity and verdicts want it."""
    offset = policy.offsets.get(Detector.DRIFT, 0.0) / log(10.0)
    return log10(len(STREAMS) * MONTH_MINUTES / FALSE_ALARMS[policy.sensitivity]) + offset


class DriftDetector:
    """
    The slow path of one route, or of the pool of quiet routes.

    Attributes:
        threshold: The rarity that raises.
        minutes: How many were taken.
        since_at: When the claim that stands began; None without one.
    """

    __slots__ = (
        "_asleep", "_calm", "_counts", "_lead", "_lived", "_offset_s", "_readings", "_sums", "_waited", "minutes",
        "since_at", "threshold",
    )  # fmt: skip
    KEPT: ClassVar[Names] = ("_calm", "_lead", "_lived", "_waited", "minutes")
    TIMES: ClassVar[Names] = ("since_at",)

    def __init__(self, policy: DetectPolicy) -> None:
        self.threshold = level(policy)
        self._asleep = bytearray(len(STREAMS) * RECORD_BYTES)
        for i in range(len(STREAMS)):
            self._lay_down(i, self._stream())
        self._readings = array("d", [0.0]) * (len(STREAMS) * _READING)
        self._sums = array("d", [0.0]) * 4  # seconds and arrivals of the minute; judged and failed since the last value
        self._counts = Window("H")
        self._offset_s = 0.0
        self._waited = self._calm = self._lead = self._lived = 0
        self.minutes = 0
        self.since_at: float | None = None

    def __repr__(self) -> str:
        return f"<DriftDetector {self.state} {self.rarity:.1f}/{self.threshold:.1f} after {self.minutes} min>"

    @property
    def rarity(self) -> float:
        """Return the rarity of the last minute, the greatest of the four streams."""
        return max(self._readings[::_READING])

    @property
    def state(self) -> State:
        """Return where it stands."""
        if self.since_at is not None:
            return State.RECOVERING if self._calm else State.ALARM
        return State.LEARNING if self.cold else State.NORMAL

    @property
    def cold(self) -> str:
        """Say what the warm-up still lacks; empty once it is over."""
        return "" if self.minutes >= WARMUP else f"slow path cold, {self.minutes} of {WARMUP} min"

    def observe(self, second: RouteSecond, elapsed_s: float, *, held: bool) -> None:
        """
        Take one second; every sixtieth ends a minute.

        Args:
            second: What happened.
            elapsed_s: Seconds since the one before, as far as they were observed.
            held: Something else is known to be wrong, or on purpose: the minute is left out.
        """
        if held:
            self._drop()
            return
        sums = self._sums
        sums[0] += elapsed_s
        sums[1] += second.arrivals
        sums[2] += second.judged
        sums[3] += second.failures
        for i, count in second.latency.items():
            self._counts.add(i, count)
        if sums[0] >= MINUTE_S:
            self._end_minute(second.at)

    def _drop(self) -> None:
        if any(self._sums):
            self._sums = array("d", [0.0]) * 4
            self._counts.clear("H")
            self._waited = 0

    def _end_minute(self, at: float) -> None:
        seconds, arrivals, judged, failed = self._sums
        self.minutes += 1
        self._sums[0] = self._sums[1] = 0.0
        values: list[float | None] = [arrivals / seconds, None, None, None]
        self._waited += 1
        if judged >= LEAST_REQUESTS or (judged and self._waited >= LONGEST_WAIT):
            values[1:] = failed / judged, self._counts.quantile_s(0.5), self._counts.quantile_s(0.95)
            self._sums[2] = self._sums[3] = 0.0
            self._counts.clear("H")
            self._waited = 0
        self._judge(values, at)

    def _judge(self, values: list[float | None], at: float) -> None:
        raised: list[int] = []
        for i, value in enumerate(values):
            if value is None:
                continue
            stream = self._stream(i)
            reading = stream.observe(at + self._offset_s, value)
            self._lay_down(i, stream)
            self._show(i, (reading.rarity, reading.recent, reading.expected, stream.seen))
            if reading.alarm:
                raised.append(i)
        if raised and self.since_at is None and not self.cold:
            self.since_at, self._calm, self._lived = at - MINUTE_S, 0, 0
            self._lead = max(raised, key=self._rarity_of)
        elif self.since_at is not None:
            self._live()

    def _stream(self, stream: int | None = None) -> SlowDetector:
        """Wake a stream up; without a number a new one."""
        policy = SlowPolicy(threshold=self.threshold, episode=EPISODE_MINUTES)
        if stream is None:
            return SlowDetector(policy)
        return SlowDetector.unpacked(policy, bytes(self._asleep[RECORD_BYTES * stream : RECORD_BYTES * (stream + 1)]))

    def _lay_down(self, stream: int, awake: SlowDetector) -> None:
        self._asleep[RECORD_BYTES * stream : RECORD_BYTES * (stream + 1)] = awake.pack()

    def _show(self, stream: int, reading: tuple[float, float, float, float]) -> None:
        self._readings[_READING * stream : _READING * (stream + 1)] = array("d", reading)

    def _rarity_of(self, stream: int) -> float:
        return self._readings[_READING * stream]

    def _live(self) -> None:
        self._lived += 1
        loud = self._rarity_of(self._lead) >= CLEAR_RATIO * self.threshold
        self._calm = 0 if loud else self._calm + 1
        if self._calm >= CLEAR_MINUTES or self._lived >= EPISODE_MINUTES:
            self.accept()

    def accept(self) -> None:
        """End the claim: a person said `benign`, or it has had its say."""
        self.since_at, self._calm, self._lived = None, 0, 0

    def apply(self, policy: DetectPolicy) -> None:
        """Judge by *policy* from now on; what was learnt stays."""
        self.threshold = level(policy)

    def signal(self, scope: Scope) -> Signal | None:
        """Return the claim while it stands."""
        if self.since_at is None:
            return None
        rarity, recent, expected, seen = self._readings[_READING * self._lead : _READING * (self._lead + 1)]
        return Signal(
            Detector.DRIFT,
            scope,
            value=recent,
            baseline=expected,
            sample=round(seen),
            score=rarity,
            threshold=self.threshold,
            since_at=self.since_at,
            unit=UNITS[self._lead],
            fading=self._calm > 0,
        )

    def snapshot(self) -> Document:
        """Return the memory as a JSON object."""
        return {
            **keep(self),
            "offset_s": self._offset_s,
            "sums": list(self._sums),
            "counts": [[i, count] for i, count in enumerate(self._counts.cells, self._counts.low) if count],
            "streams": [self._stream(i).snapshot() for i in range(len(STREAMS))],
            "shown": list(self._readings),
        }

    def restore(self, row: Mapping[str, Any], shift_s: float) -> None:
        """Put a snapshot back, its times moved by *shift_s*."""
        for i, document in zip(range(len(STREAMS)), row["streams"], strict=True):
            stream = self._stream()
            stream.restore(document)
            self._lay_down(i, stream)
        revive(self, row, shift_s)
        self._offset_s = row["offset_s"] - shift_s  # the day goes on where it stopped
        if "shown" in row:
            self._readings = array("d", row["shown"])
        for i, one in enumerate(row.get("readings", ())):  # of an older release: rarity, score, alarm, recent, expected
            if one is not None:
                self._show(i, (one[0], one[3], one[4], row["streams"][i]["seen"]))
        self._sums = array("d", row["sums"])
        self._counts.clear("H")
        for i, count in row["counts"]:
            self._counts.add(i, int(count))
