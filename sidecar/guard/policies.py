"""
What the guards are told: frozen, validated values without YAML, units or defaults from elsewhere.

`config/compile.py` makes them; the guards own them. The defaults here are the product's defaults: the schema reads
them from here, so a default stands in one place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from sidecar.facts import Mode


class LimitMode(StrEnum):
    """
    What happens beyond a limit. `shape` waits for a token, bounded, where `enforce` refuses.

    A pure guard cannot wait: it decides `shape` like `enforce`, and the caller waits (`proxy/shaper.py`).
    """

    OFF = "off"
    OBSERVE = "observe"
    ENFORCE = "enforce"
    SHAPE = "shape"


@dataclass(frozen=True, slots=True)
class BucketPolicy:
    """
    One token bucket.

    Attributes:
        rate_per_s: Tokens that return each second; > 0.
        burst: Tokens that a full bucket holds; ≥ 1.
    """

    rate_per_s: float
    burst: float


@dataclass(frozen=True, slots=True)
class LimitPolicy:
    """
    The limits of one route, or of the service (which has no `per_client`).

    Attributes:
        bucket: Shared by all clients; None when there is none.
        per_client: One bucket a client key; None when there is none.
        max_keys: Client buckets kept; beyond it unknown keys share the overflow bucket.
        mode: What happens beyond the limit.
        cost: Tokens that one request takes at every level, the service's too; ≥ 1.
        max_wait_s, max_queue: Of mode `shape`: the longest wait of one request, and how many wait, in each worker.
    """

    bucket: BucketPolicy | None = None
    per_client: BucketPolicy | None = None
    max_keys: int = 100_000
    mode: LimitMode = LimitMode.ENFORCE
    cost: float = 1.0
    max_wait_s: float = 1.0
    max_queue: int = 100


@dataclass(frozen=True, slots=True)
class ConcurrencyPolicy:
    """
    At most so many requests between admission and end.

    Attributes:
        max_in_flight: The limit, or the highest that may be learned.
        min_in_flight: The lowest that may be learned (`guard/gradient.py`); None for a fixed limit.
    """

    max_in_flight: int
    mode: Mode = Mode.ENFORCE
    min_in_flight: int | None = None


class Priority(StrEnum):
    """Who is refused first when the service is at its limit of concurrency; see `guard/concurrency.py`."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    PROBE = "probe"


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """
    When the reflex opens and how it closes; each rule of `behaviour.md` has its number here.

    Attributes:
        window_s: Length of the ring of ten buckets.
        min_requests: Judged requests below which no ratio trips.
        error_ratio: Trips at or above it.
        consecutive: Failures in a row that trip; 0 switches the rule off.
        slow_s: A first byte later than this is slow; None switches the rule off.
        slow_ratio: Trips at or above it.
        open_s, max_open_s: First and longest time open; doubles on each re-trip.
        probes: Requests in flight at most while half open.
        probe_timeout_s: After this a probe's slot returns, whatever became of it.
        close_successes, close_window: n of m probes that close.
        reopen_failures: Failed probes that open again.
        ramp: Shares that pass after closing, in order; the last is 1.
        ramp_step_s: Shortest time on a step; a step also needs successes.
    """

    window_s: float = 10.0
    min_requests: int = 20
    error_ratio: float = 0.5
    consecutive: int = 7
    slow_s: float | None = None
    slow_ratio: float = 0.8
    open_s: float = 5.0
    max_open_s: float = 300.0
    probes: int = 5
    probe_timeout_s: float = 30.0
    close_successes: int = 8
    close_window: int = 10
    reopen_failures: int = 3
    ramp: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    ramp_step_s: float = 2.0
    mode: Mode = Mode.ENFORCE


@dataclass(frozen=True, slots=True)
class RoutePolicy:
    """
    The guards of one route; None where the route has no such guard.

    Attributes:
        priority: `probe` passes every guard but an override that isolates.
    """

    name: str
    limit: LimitPolicy | None = None
    concurrency: ConcurrencyPolicy | None = None
    breaker: BreakerPolicy | None = None
    priority: Priority = Priority.NORMAL


@dataclass(frozen=True, slots=True)
class GuardPolicy:
    """
    All guards of one worker.

    Attributes:
        routes: By name, in the config's order.
        limit, concurrency: The service's, across all routes.
        mode: `observe` turns every enforcing guard into a counting one.
        seed: Makes jitter and sampling differ between installs and yet repeatable.
        workers: How many workers share the limits; each takes its share of a rate (rate/N at first) and ceil(max/N).
        rearrivals: What happens to those who ask again too soon while a retry storm rages (`guard/spare.py`).
    """

    routes: Mapping[str, RoutePolicy] = field(default_factory=dict)
    limit: LimitPolicy | None = None
    concurrency: ConcurrencyPolicy | None = None
    mode: Mode = Mode.ENFORCE
    seed: str = ""
    workers: int = 1
    rearrivals: Mode = Mode.ENFORCE
