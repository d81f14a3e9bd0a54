"""What a replay takes over from the sidecar that it replays; apart from the player, because the controller names it at its start."""

from __future__ import annotations

from dataclasses import dataclass, field

from sidecar.decide.size import Sizes
from sidecar.detect.tuning import Key, Tuning


@dataclass(frozen=True, slots=True)
class Learned:
    """What verdicts have taught the detectors of the sidecar that is replayed: their thresholds, whom nobody hears, what is too small."""

    tuning: Tuning = field(default_factory=Tuning)
    demoted: frozenset[Key] = frozenset()
    sizes: Sizes = field(default_factory=Sizes)
