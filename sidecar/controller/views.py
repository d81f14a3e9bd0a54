"""What `/metrics` shows beside the workers' counters. Pure, so that the engine can make its part of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class MetricViews:
    """
    The controller's own figures; counts are cumulative since this controller began.

    The engine fills the first group, the process around it the second (`dataclasses.replace`).

    Attributes:
        scores: (route, detector) → the statistic as a part of its threshold: 1 is where it fires.
        signals: (route, detector) → signals raised.
        incidents_current: State → incidents in it now.
        incidents_by_verdict: Verdict → incidents that got it.
        isolations: (scope kind, state) → isolations in force.
        overrides_active: Overrides in force.
        silences_active: Silences in force.
        drills: (route, kind) → drills that run.

        config_version: The active one.
        config_apply_ok: The last apply succeeded.
        worker_restarts: Workers that the supervisor started again after they died.
        links: Worker → its link stands.
        lag_s: Process → longest delay of its event loop; the workers' own comes with their ticks.
        store_ok: The store takes what it is given.
        notifications_lost: Receiver → alerts given up.
        version: The release.
    """

    scores: Mapping[tuple[str, str], float] = field(default_factory=dict)
    signals: Mapping[tuple[str, str], int] = field(default_factory=dict)
    incidents_current: Mapping[str, int] = field(default_factory=dict)
    incidents_by_verdict: Mapping[str, int] = field(default_factory=dict)
    isolations: Mapping[tuple[str, str], int] = field(default_factory=dict)
    overrides_active: int = 0
    silences_active: int = 0
    drills: Mapping[tuple[str, str], int] = field(default_factory=dict)

    config_version: int = 0
    config_apply_ok: bool = True
    worker_restarts: int = 0
    links: Mapping[int, bool] = field(default_factory=dict)
    lag_s: Mapping[str, float] = field(default_factory=dict)
    store_ok: bool = True
    notifications_lost: Mapping[str, int] = field(default_factory=dict)
    version: str = ""
