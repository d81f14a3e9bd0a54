"""
Simulated traffic as the detectors see it: one `RouteSecond` a second, from a seed.

Arrivals are Poisson, failures binomial, latencies lognormal. With `dispersion` φ > 1 the failure ratio is drawn anew
each minute from a gamma distribution that gives minute counts φ times the variance of independent requests, and the
arrival rate likewise. Requests may hang: they wait, are shown in `waiting` by their age, and end as timeouts.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import exp, log, log1p, log2

from sidecar.detect.bank import Bank
from sidecar.detect.policies import DetectPolicy
from sidecar.facts import ClientSecond, Detector, RouteSecond
from sidecar.measure.histogram import LAST, index

_OCTAVES = 6 / log(2)
_OFFSET = log2(1.0) * 6 + index(1.0)


def poisson(rng: random.Random, mean: float) -> int:
    """Draw a Poisson variable: Knuth's product below 30, its normal limit above."""
    if mean > 30:
        return max(round(rng.gauss(mean, mean**0.5)), 0)
    edge, product, count = exp(-mean), rng.random(), 0
    while product > edge:
        product *= rng.random()
        count += 1
    return count


def binomial(rng: random.Random, size: int, ratio: float) -> int:
    """Draw how many of *size* are bad, by the gaps between them (quick for small ratios)."""
    if ratio <= 0 or not size:
        return 0
    if ratio >= 0.1:
        return sum(rng.random() < ratio for _ in range(size))
    count, at, width = 0, 0.0, log1p(-ratio)
    while True:
        at += log(1 - rng.random()) / width
        if at >= size:
            return count
        count += 1
        at = float(int(at) + 1)


@dataclass
class Traffic:
    """
    One route's traffic; change its fields between two seconds to begin or end a fault.

    Attributes:
        rate_per_s, error_ratio: Normal ones or those of a fault.
        median_s, sigma: Of the lognormal latency.
        slow_factor: All latencies times this.
        hanging: No request gets a first byte; each ends after `timeout_s` as a failure.
        dispersion: φ of a minute's failures and arrivals.
        clients: Share of the traffic by key; each may have its own error ratio in `client_errors`.
    """

    seed: int
    route: str = "checkout"
    rate_per_s: float = 10.0
    error_ratio: float = 0.001
    median_s: float = 0.02
    sigma: float = 0.5
    slow_factor: float = 1.0
    hanging: bool = False
    timeout_s: float = 30.0
    dispersion: float = 1.0
    clients: dict[str, float] = field(default_factory=dict)
    client_errors: dict[str, float] = field(default_factory=dict)
    status: str = "503"
    at: float = 1000.0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self._waiting: list[float] = []
        self._error_factor = self._rate_factor = 1.0
        self._minute = -1.0

    def seconds(self, count: int) -> Iterator[RouteSecond]:
        """Yield the next *count* seconds."""
        for _ in range(count):
            yield self.second()

    def second(self) -> RouteSecond:
        """Return the next second."""
        self.at += 1.0
        self._vary()
        arrivals = poisson(self.rng, self.rate_per_s * self._rate_factor)
        if self.hanging or self._waiting:
            return self._hung(arrivals)
        failures, clients = self._failures(arrivals)
        return self._row(arrivals, arrivals - failures, failures, self._latency(arrivals), clients)

    def _row(
        self, arrivals: int, successes: int, failures: int, latency: dict[int, int], clients: dict[str, ClientSecond]
    ) -> RouteSecond:
        statuses = {"200": (successes, 0), self.status: (failures, failures)} if failures else {"200": (successes, 0)}
        return RouteSecond(
            self.route, self.at, arrivals=arrivals, successes=successes, failures=failures, latency=latency,
            clients=clients, statuses=statuses, methods={"GET": (successes + failures, failures)},
            in_flight=len(self._waiting),
        )  # fmt: skip

    def _vary(self) -> None:
        minute = self.at // 60
        if self.dispersion <= 1 or minute == self._minute:
            return
        self._minute = minute
        requests = self.rate_per_s * 60
        self._error_factor = self._gamma(requests * self.error_ratio)
        self._rate_factor = self._gamma(requests)

    def _gamma(self, expected: float) -> float:
        shape = expected / (self.dispersion - 1)
        return self.rng.gammavariate(shape, 1 / shape)

    def _failures(self, requests: int) -> tuple[int, dict[str, ClientSecond]]:
        if not self.clients:
            return binomial(self.rng, requests, self.error_ratio * self._error_factor), {}
        keys = self.rng.choices(list(self.clients), list(self.clients.values()), k=requests)
        rows: dict[str, list[int]] = {}
        for key in keys:
            row = rows.setdefault(key, [0, 0])
            row[0] += 1
            row[1] += self.rng.random() < self.client_errors.get(key, self.error_ratio * self._error_factor)
        return sum(k for _, k in rows.values()), {key: ClientSecond(n, k) for key, (n, k) in rows.items()}

    def _latency(self, requests: int) -> dict[int, int]:
        counts: dict[int, int] = {}
        middle, gauss = log(self.median_s * self.slow_factor) * _OCTAVES + _OFFSET, self.rng.gauss
        width = self.sigma * _OCTAVES
        for _ in range(requests):
            i = min(max(int(gauss(middle, width)), 0), LAST)
            counts[i] = counts.get(i, 0) + 1
        return counts

    def _hung(self, arrivals: int) -> RouteSecond:
        """Let new requests wait, end the old ones by timeout; a hang that is over answers all that wait."""
        self._waiting += [self.at - self.rng.random() for _ in range(arrivals)]
        late = [began for began in self._waiting if not self.hanging or self.at - began >= self.timeout_s]
        self._waiting = [began for began in self._waiting if self.hanging and self.at - began < self.timeout_s]
        latency: dict[int, int] = {}
        for began in late:
            i = index(min(self.at - began, self.timeout_s))
            latency[i] = latency.get(i, 0) + 1
        failures = len(late) if self.hanging else 0
        row = self._row(arrivals, len(late) - failures, failures, latency, {})
        waiting: dict[int, int] = {}
        for began in self._waiting:
            i = index(self.at - began)
            waiting[i] = waiting.get(i, 0) + 1
        return RouteSecond(
            self.route, self.at, arrivals=arrivals, successes=row.successes, failures=failures, latency=latency,
            waiting=waiting, in_flight=len(self._waiting), statuses={"timeout": (failures, failures)},
        )  # fmt: skip


def first_claims(bank: Bank, traffic: Traffic, count: int) -> dict[Detector, float]:
    """Feed *count* seconds and return, for each detector that claims anything, after how many seconds it began."""
    began_at, first = traffic.at, dict[Detector, float]()
    for second in traffic.seconds(count):
        for signal in bank.observe([second], second.at):
            first.setdefault(signal.detector, second.at - began_at)
    return first


def trained(traffic: Traffic, count: int = 1800, policy: DetectPolicy | None = None) -> Bank:
    """Return a bank that has seen *count* quiet seconds of *traffic* and claims nothing."""
    bank = Bank(policy or DetectPolicy(), [traffic.route], traffic.at)
    claims = first_claims(bank, traffic, count)
    assert not claims, f"seed {traffic.seed}: a claim on quiet traffic: {claims}"
    return bank
