"""
Rules: a config value that caused an incident is not set so low again.

Tables
    the suspected change                  the incident is                 its rule: never below
    … limit.rate, limit.per_client.rate   refusals                        what normal traffic asks (99 % of the seconds)
    … limit.burst, per_client.burst       refusals                        the same, of one second
    … concurrency.max                     refusals                        the most that was in flight, at the ends of seconds
    … response_timeout                    errors, latency or a trip       twice the normal p99 of the answers

What can go wrong
    The value was raised, taken away, or is enough: it is not what a lower bound could forbid. The value before was below
    what normal traffic needs, too: no rule forbids going back to it. Too little was seen before the onset: there is no
    rule. A rule reads the value as the config writes it; one that it cannot read it lets pass, since the config's own
    checks say what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Final

from sidecar.config.units import UnitError, parse_duration, parse_rate
from sidecar.facts import Detector

LEAST_S: Final = 60
TIMEOUT_FACTOR: Final = 2.0
REFUSALS: Final = frozenset((Detector.REFUSALS,))
FAILURES: Final = frozenset((Detector.ERRORS, Detector.LATENCY, Detector.TRIP))
PER_S: Final = "/s"
SECONDS: Final = "s"
COUNT: Final = ""


@dataclass(frozen=True, slots=True)
class Normal:
    """
    What was normal on a route, or on the whole service, before the onset, and what was not after it.

    Attributes:
        seconds: How many were seen before.
        rate_per_s, peak_per_s: 99th percentile of arrivals a second before; the most after. Requests of a route; of the
            whole service tokens, since the routes' requests may cost different ones.
        clients, peaks: The same by client.
        p99_s: 99th percentile of the upstream latency before; 0 without any.
        in_flight: The most before, at the ends of seconds.
        longest_s: The longest that a request waited for its answer after the onset.
    """

    seconds: int = 0
    rate_per_s: float = 0.0
    peak_per_s: float = 0.0
    clients: Mapping[str, float] = field(default_factory=dict)
    peaks: Mapping[str, float] = field(default_factory=dict)
    p99_s: float = 0.0
    in_flight: int = 0
    longest_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Rule:
    """A config value that must not be set below *at_least* again; `unit` is `/s`, `s` or nothing."""

    path: str
    at_least: float
    unit: str = PER_S

    def __str__(self) -> str:
        return f"{self.at_least:.15g}{self.unit}"

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Rule:
        """Read what `to_json` wrote; one without a unit is of a release that had rules of rates only."""
        return cls(row["path"], row["at_least"], row.get("unit", PER_S))

    @property
    def words(self) -> str:
        """Return what it says of its setting."""
        return f"never below {self}"

    def forbids(self, path: str, written: object) -> bool:
        """Tell whether the config must not set *path* to this value; one that cannot be read passes."""
        value = value_of(written, self.unit) if path == self.path else None
        return value is not None and value < self.at_least

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {"path": self.path, "at_least": self.at_least, "unit": self.unit}


def value_of(written: object, unit: str) -> float | None:
    """Return a value as the config writes it, in *unit*; None for what is none."""
    try:
        if unit == COUNT:
            return float(str(written))
        return parse_rate(written) if unit == PER_S else parse_duration(written)
    except (UnitError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class _Kind:
    """Which incidents a setting can cause, and what of it normal traffic needs."""

    causes: frozenset[Detector]
    unit: str
    needed: Callable[[Normal], float]


_KINDS: Final[Mapping[str, _Kind]] = {
    "limit.rate": _Kind(REFUSALS, PER_S, lambda normal: normal.rate_per_s),
    "limit.burst": _Kind(REFUSALS, COUNT, lambda normal: normal.rate_per_s),
    "limit.per_client.rate": _Kind(REFUSALS, PER_S, lambda normal: max(normal.clients.values(), default=0.0)),
    "limit.per_client.burst": _Kind(REFUSALS, COUNT, lambda normal: max(normal.clients.values(), default=0.0)),
    "concurrency.max": _Kind(REFUSALS, COUNT, lambda normal: float(normal.in_flight)),
    "response_timeout": _Kind(FAILURES, SECONDS, lambda normal: TIMEOUT_FACTOR * normal.p99_s),
}


def rule_of(change: Mapping[str, Any], detectors: frozenset[Detector], normal: Normal, cost: float) -> Rule | None:
    """
    Return the rule that keeps the changed value from being set so low again; None where none can be given.

    Args:
        change: {path, old, new} of the suspected version.
        detectors: That raised the incident.
        normal: Of the traffic that the setting is about.
        cost: Tokens that each of the arrivals in *normal* takes of a limit.
    """
    path = str(change.get("path", ""))
    kind = next((kind for name, kind in _KINDS.items() if path.endswith(f".{name}")), None)
    if kind is None or not kind.causes & detectors or normal.seconds < LEAST_S:
        return None
    needed = kind.needed(normal) * (cost if ".limit." in path else 1.0)
    at_least = ceil(10 * needed) / 10 if kind.unit == SECONDS else float(ceil(needed))
    old = value_of(change.get("old"), kind.unit)
    rule = Rule(path, at_least if old is None else min(at_least, old), kind.unit)
    return rule if rule.forbids(path, change.get("new")) else None
