"""
The slow path: what drifts, jumps, bursts or falls flat over minutes and hours, in any stream of numbers.

Theory
    One value in, one `Reading` out; pure, causal, constant memory. No knob is set by a stream's unit or rhythm.

    Three lenses look at a value v. `size` is the long-run mean of |v|.

        lens      sees                            against
        linear    v                               its mean over about 1,000 values
        bent      asinh(v / size)                 the same
        daily     asinh(v / (0.05 · size))        its profile of the day (`season.py`)

    Linear sees a spike among spikes; asinh is linear below its bend and logarithmic above, so the other two also see
    what is small against a spiky past, and the last one what is unusual for the hour alone. Each lens's deviation is
    averaged over 1, 6, 24 and 96 values; each of these twelve absolute means has a rarity of its own (`tails.py`). Over
    the four scales of a lens the rarities are combined by their power mean (of order 1.5): what lasts counts more than what is
    merely high. The greatest of the three lenses is the reading's rarity.

    An alarm is raised **once per episode**: when the rarity reaches the threshold, it is no custom of the hour
    (`Custom`), and none was raised for the last 100 values.

Tables
    threshold      2.5 in rarity: about the rarest 3 ‰ of the past, on all scales of a lens at once
    score          rarity / (rarity + threshold): 0.5 and above is an alarm
    between alarms the score says what would have been raised at 0.8 of the threshold (0.44 to 0.5), once per episode
                   too; every other value scores below 0.44

What can go wrong
    The first 144 values are learnt and never judged. A lasting shift raises once, and again only when the day's profile and
    the mean have taken it in and something else happens. A missing value is not a value: leave it out (a stream that stops is
    for the silence test of `traffic.py`). Not a number, or infinite: left out and counted nowhere.

Source: the parts are classic; their combination was chosen on the Numenta Anomaly Benchmark, see docs/detection.md, where
also stands what was tried and did not help.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import asinh, isfinite, sinh
from math import pow as power
from struct import Struct
from typing import Any, Final

from sidecar.detect.keep import Document
from sidecar.detect.season import Custom, Profile
from sidecar.detect.tails import Tails

SCALES: Final = (1, 6, 24, 96)
BEND_RATIO: Final = 1.0
DAILY_BEND_RATIO: Final = 0.05
SIZE_MEMORY: Final = 2000
BASE_SPAN: Final = 2000  # values; of an exponential mean, as NAB's and pandas' `span`: its mean age is half of it
ORDER: Final = 1.5
THRESHOLD: Final = 2.5
EPISODE: Final = 100  # values
WATCH_RATIO: Final = 0.8
_TINY: Final = 1e-12
_OWN: Final = Struct("<Idd")  # seen, size, recent
_EPISODES: Final = Struct("<qq")
_WARNED: Final = WATCH_RATIO / (WATCH_RATIO + 1.0)  # the score of what is just watched


@dataclass(frozen=True, slots=True)
class SlowPolicy:
    """
    What the slow path can be told; the defaults are for everything.

    Attributes:
        threshold: The rarity that raises.
        episode: For how many values one alarm speaks.
        base_span: Of the slow mean, in values.
        bend_ratio, daily_bend_ratio: Where the lenses bend, as a part of the stream's size.
        order: Of the power mean over the scales.
        prior_peaks: Of the tails.
    """

    threshold: float = THRESHOLD
    episode: int = EPISODE
    base_span: int = BASE_SPAN
    bend_ratio: float = BEND_RATIO
    daily_bend_ratio: float = DAILY_BEND_RATIO
    order: float = ORDER
    prior_peaks: float = 40.0


@dataclass(frozen=True, slots=True)
class Reading:
    """
    What the slow path says of one value.

    Attributes:
        rarity: −log₁₀ of how often the past was like this; 0 when it is nothing special.
        score: In [0, 1]; 0.5 and above is an alarm, once per episode.
        alarm: Raise now.
        recent: Mean of the last six values or so.
        expected: What the hour's profile expected.
    """

    rarity: float
    score: float
    alarm: bool
    recent: float
    expected: float


class Episodes:
    """
    Which rarities become alarms: once per episode, and only news.

    Attributes:
        since_alarm, since_watch: Values since the last alarm, and since the last that was at least watched.
    """

    __slots__ = ("_custom", "_policy", "since_alarm", "since_watch")

    def __init__(self, policy: SlowPolicy) -> None:
        self._policy = policy
        self._custom = Custom()
        self.since_alarm = self.since_watch = policy.episode + 1

    def __repr__(self) -> str:
        return f"<Episodes, last alarm {self.since_alarm} values ago>"

    def apply(self, policy: SlowPolicy) -> None:
        """Raise where *policy* says from now on."""
        self._policy = policy

    def judge(self, at_s: float, rarity: float) -> tuple[float, bool]:
        """Return the score of *rarity*, and whether it raises."""
        self.since_alarm += 1
        self.since_watch += 1
        news = self._custom.observe(at_s, rarity)
        threshold, episode = self._policy.threshold, self._policy.episode
        score = rarity / (rarity + threshold)
        if news and rarity >= threshold and self.since_alarm > episode:
            self.since_alarm = self.since_watch = 0
            return score, True
        if news and rarity >= WATCH_RATIO * threshold and self.since_watch > episode:
            self.since_watch = 0
            return min(score, 0.4999), False
        return min(score, _WARNED - 0.0001) * 0.999, False

    def pack(self) -> bytes:
        """Return the memory as one record, always of the same length."""
        return _EPISODES.pack(self.since_alarm, self.since_watch) + self._custom.pack()

    def unpack(self, record: bytes) -> None:
        """Put back what `pack` returned."""
        self.since_alarm, self.since_watch = _EPISODES.unpack_from(record)
        self._custom.unpack(record[_EPISODES.size :])

    def snapshot(self) -> Document:
        """Return the memory as a JSON object."""
        return {"since_alarm": self.since_alarm, "since_watch": self.since_watch, "custom": self._custom.snapshot()}

    def restore(self, document: Mapping[str, Any]) -> None:
        """Put back what `snapshot` returned."""
        self.since_alarm, self.since_watch = int(document["since_alarm"]), int(document["since_watch"])
        self._custom.restore(document["custom"])


class SlowDetector:
    """
    The slow path of one stream.

    Attributes:
        seen: Values so far.
    """

    __slots__ = ("_bases", "_episodes", "_means", "_policy", "_profile", "_recent", "_size", "_tails", "seen")

    def __init__(self, policy: SlowPolicy | None = None) -> None:
        self._policy = policy or SlowPolicy()
        self._means = array("d", bytes(8 * 3 * len(SCALES)))
        self._bases = array("d", bytes(8 * 2))  # of the linear and the bent lens
        self._size = self._recent = 0.0
        self._profile = Profile()
        self._tails = Tails(3 * len(SCALES), prior_peaks=self._policy.prior_peaks)
        self._episodes = Episodes(self._policy)
        self.seen = 0

    def __repr__(self) -> str:
        return f"<SlowDetector after {self.seen}, size {self._size:.4g}>"

    def apply(self, policy: SlowPolicy) -> None:
        """Judge by *policy* from now on."""
        self._policy = policy
        self._episodes.apply(policy)

    def observe(self, at_s: float, value: float) -> Reading:
        """
        Take the next value and say how unusual it is.

        Args:
            at_s: Seconds of any clock that goes on evenly (its day gives the profile's phase).
            value: What was measured; one that is not finite is left out.
        """
        if not isfinite(value):
            return Reading(0.0, 0.0, False, self._recent, self._expected(at_s))
        rarity, expected = self.rarity(at_s, value)
        score, alarm = self._episodes.judge(at_s, rarity)
        return Reading(rarity, score, alarm, self._recent, expected)

    def rarity(self, at_s: float, value: float) -> tuple[float, float]:
        """Take the next finite value; return how rare the stream has become with it, and what was expected."""
        policy, expected = self._policy, self._expected(at_s)
        self.seen += 1
        self._size += (abs(value) - self._size) / min(self.seen, SIZE_MEMORY)
        self._recent += max(2.0 / 7.0, 1.0 / self.seen) * (value - self._recent)
        bent = asinh(value / (policy.bend_ratio * self._size + _TINY))
        daily = asinh(value / (policy.daily_bend_ratio * self._size + _TINY))
        rarities = self._tails.observe(self._deviations(value, bent, self._profile.observe(at_s, daily)))
        if not any(rarities):
            return 0.0, expected
        return max(self._combined(rarities[k : k + len(SCALES)]) for k in range(0, 12, len(SCALES))), expected

    def _deviations(self, linear: float, bent: float, daily: float) -> list[float]:
        """Return each lens's mean deviation on each scale."""
        means, bases, seen = self._means, self._bases, self.seen
        if seen == 1:
            bases[0], bases[1] = linear, bent
        found = []
        for lens, seen_value, base in ((0, linear, bases[0]), (1, bent, bases[1]), (2, daily, 0.0)):
            for k, gain in enumerate(_GAINS, lens * len(SCALES)):
                mean = means[k]
                means[k] = mean = mean + (gain if gain * seen > 1.0 else 1.0 / seen) * (seen_value - mean)
                found.append(abs(mean - base))
        gain = max(2.0 / (self._policy.base_span + 1), 1.0 / seen)
        bases[0] += gain * (linear - bases[0])
        bases[1] += gain * (bent - bases[1])
        return found

    def _combined(self, rarities: list[float]) -> float:
        """Return the power mean of one lens's rarities over the scales."""
        order = self._policy.order
        return power(sum(power(rarity, order) for rarity in rarities) / len(rarities), 1.0 / order)

    def _expected(self, at_s: float) -> float:
        bend = self._policy.daily_bend_ratio * self._size + _TINY
        return bend * sinh(min(max(self._profile.expected(at_s), -300.0), 300.0))

    def pack(self) -> bytes:
        """
        Return the memory as one record of `RECORD_BYTES`.

        A stream that gets a value a minute sleeps so: the parts that work with it are many small objects, each
        of which would cost more than what it holds.
        """
        own = _OWN.pack(self.seen, self._size, self._recent) + self._means.tobytes() + self._bases.tobytes()
        return own + self._profile.pack() + self._episodes.pack() + self._tails.pack()

    @classmethod
    def unpacked(cls, policy: SlowPolicy, record: bytes) -> SlowDetector:
        """Return the detector that `pack` returned *record* of."""
        detector = cls(policy)
        own, profile, episodes = (record[start:end] for start, end in pairwise(_PARTS))
        detector.seen, detector._size, detector._recent = _OWN.unpack_from(own)
        detector._means, detector._bases = array("d", own[_OWN.size : -16]), array("d", own[-16:])
        detector._profile.unpack(profile)
        detector._episodes.unpack(episodes)
        detector._tails.unpack(record[_PARTS[-1] :])
        return detector

    def snapshot(self) -> Document:
        """Return the memory as a JSON object."""
        return {
            "seen": self.seen, "size": self._size, "recent": self._recent, "means": list(self._means),
            "bases": list(self._bases), "profile": self._profile.snapshot(), "tails": self._tails.snapshot(),
            "episodes": self._episodes.snapshot(),
        }  # fmt: skip

    def restore(self, document: Mapping[str, Any]) -> None:
        """Put back what `snapshot` returned; a document of another shape is a KeyError, TypeError or ValueError."""
        means, bases = array("d", document["means"]), array("d", document["bases"])
        if len(means) != len(self._means) or len(bases) != len(self._bases):
            raise ValueError(f"{len(means)} means instead of {len(self._means)}")
        self._profile.restore(document["profile"])
        self._tails.restore(document["tails"])
        self._episodes.restore(document["episodes"])
        self._means, self._bases = means, bases
        self.seen, self._size, self._recent = int(document["seen"]), float(document["size"]), float(document["recent"])


_GAINS: Final = tuple(2.0 / (scale + 1) for scale in SCALES)
_OWN_BYTES: Final = _OWN.size + 8 * 3 * len(SCALES) + 8 * 2
_PARTS: Final = tuple(accumulate((0, _OWN_BYTES, len(Profile().pack()), len(Episodes(SlowPolicy()).pack()))))
RECORD_BYTES: Final = len(SlowDetector().pack())
