"""
Rules: a config value that caused an incident is not set so low again.

Tables
    the suspected change                  the incident is                 its rule: never below
    … limit.rate, limit.per_client.rate   refusals                        what normal traffic asks (99 % of the seconds)
    … limit.burst, per_client.burst       refusals                        the same, of one second
    … concurrency.max                     refusals                        the most that was in flight, at the ends of seconds
    … response_timeout                    errors, latency or a trip       twice the normal p99 of the answers

What can go wrong
    The value was raised, or taken away: it is not what a lower bound could forbid. Too little was seen before the onset:
    there is no rule. A rule reads the value as the config writes it; one that it cannot read it lets pass, since the
    config's own checks say what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Final

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
        rate_per_s, peak_per_s: 99th percentile of arrivals a second before; the most after.
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
        return f"{self.at_least:g}{self.unit}"

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {"path": self.path, "at_least": self.at_least, "unit": self.unit}


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
        cost: Tokens that a request takes of a limit.
    """
    path = str(change.get("path", ""))
    kind = next((kind for name, kind in _KINDS.items() if path.endswith(f".{name}")), None)
    if kind is None or change.get("new") is None or not kind.causes & detectors or normal.seconds < LEAST_S:
        return None
    needed = kind.needed(normal) * (cost if ".limit." in path else 1.0)
    at_least = ceil(10 * needed) / 10 if kind.unit == SECONDS else float(ceil(needed))
    return Rule(path, at_least, kind.unit) if at_least else None
