"""What was normal on a route before an incident, and how far the incident went: measured on the stored history."""

from __future__ import annotations

from collections import Counter
from math import ceil
from typing import Final

from sidecar.incident.learn import Normal
from sidecar.measure import histogram
from sidecar.replay.material import Material

QUANTILE: Final = 0.99
MAX_CLIENTS: Final = 256


class _Rates:
    """How often each number of requests a second was seen."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()
        self.most = 0

    def add(self, per_s: float, seconds: int) -> None:
        self.counts[ceil(per_s)] += seconds
        self.most = max(self.most, ceil(per_s))

    def quantile(self) -> float:
        rank = QUANTILE * self.counts.total()
        for value in sorted(self.counts):
            rank -= self.counts[value]
            if rank <= 0:
                return float(value)
        return 0.0


def measure(material: Material, route: str, onset: float, until: float) -> Normal:
    """
    Return what was normal on *route* before *onset*, and the most that came between it and *until*.

    Args:
        material: The stored history.
        route: Its name.
        onset, until: Unix seconds.
    """
    whole, during = _Rates(), _Rates()
    clients: dict[str, _Rates] = {}
    peaks: dict[str, float] = {}
    latency: dict[int, int] = {}
    seconds = 0
    for second in material.seconds():
        line, step = second.lines.get(route), round(second.step_s)
        if second.t > until:
            break
        requests = line.requests / step if line is not None else 0.0
        if second.t >= onset:
            during.add(requests, step)
            for key, (count, _) in (line.clients or {}).items() if line is not None else ():
                peaks[key] = max(peaks.get(key, 0.0), count / step)
            continue
        seconds += step
        whole.add(requests, step)
        if line is None:
            continue
        for i, count in line.latency.items():
            latency[i] = latency.get(i, 0) + count
        for key, (count, _) in (line.clients or {}).items():
            if key in clients or len(clients) < MAX_CLIENTS:
                clients.setdefault(key, _Rates()).add(count / step, step)
    return Normal(
        seconds,
        whole.quantile(),
        float(during.most),
        {key: rates.quantile() for key, rates in clients.items()},
        peaks,
        histogram.quantile(latency, QUANTILE) if latency else 0.0,
    )
