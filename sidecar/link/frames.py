"""
What crosses between a worker and the controller: a frame is a frozen dataclass; `wire.py` writes it down.

Counters are cumulative since the worker's epoch, so a lost link or a skipped tick loses no count; a restarted worker is
a new epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sidecar.facts import Directive, RequestFacts

# --- up: worker → controller -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """
    The first frame of a link; the controller answers with its active config and directives.

    Attributes:
        since_at: Monotonic seconds of the worker's birth: of two workers with one index the younger one counts.
        workers: How many the limits are meant for, as it was told; one alone shares nothing.
        share: The part of every limit that it began with.
    """

    worker: int
    epoch: str
    pid: int
    config_version: int
    since_at: float = 0.0
    workers: int = 1
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class RouteTick:
    """
    One route's cumulative counters in one worker; gauges are of the tick's moment.

    Attributes:
        arrivals, outcomes: `outcomes` by `Outcome` value. again: Arrivals within a back-off; see `proxy/storm.py`.
        refused, would_refuse: By reason.
        ended: By reason other than refusals (`upstream_reset`, `client_disconnected`, …).
        endings: `OUTCOME REASON` → what `refused` and `ended` hold together, with what it meant.
        durations: `METHOD STATUS` → [sum in s, [[bucket index, count], …]] of the whole exchange.
        latency: [sum in s, [[bucket index, count], …]] of upstream latency.
        waiting: [[bucket index of the age, count], …] of requests without a first byte; a gauge.
        in_flight: A gauge.
        clients: [key, born, requests, failures, slow, refused] of the heaviest; `born` tells one stay in the table from the
            next, and counts are since it.
        methods, statuses, endpoints, paths: name → [requests, failures].
        trips: Breaker trips. `breaker`: its state now. `generation`: its moves.
        limits: level → tokens left now. `concurrency_limit`: None when unlimited.
        trials: directive id → [successes, failures] of what an isolation let pass.
        passed, held: directive id → requests that it let pass, and that it refused.
        drilled, drilled_latency: What a drill made of requests: by outcome, and [sum in s, [[bucket index, count], …]].
    """

    arrivals: int = 0
    again: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    would_refuse: Mapping[str, int] = field(default_factory=dict)
    ended: Mapping[str, int] = field(default_factory=dict)
    endings: Mapping[str, int] = field(default_factory=dict)
    durations: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    latency: Sequence[Any] = (0.0, ())
    waiting: Sequence[Sequence[int]] = ()
    in_flight: int = 0
    clients: Sequence[Sequence[Any]] = ()
    methods: Mapping[str, Sequence[int]] = field(default_factory=dict)
    statuses: Mapping[str, Sequence[int]] = field(default_factory=dict)
    endpoints: Mapping[str, Sequence[int]] = field(default_factory=dict)
    paths: Mapping[str, Sequence[int]] = field(default_factory=dict)
    trips: int = 0
    breaker: str = "closed"
    generation: int = 0
    limits: Mapping[str, float] = field(default_factory=dict)
    concurrency_limit: int | None = None
    trials: Mapping[str, Sequence[int]] = field(default_factory=dict)
    held: Mapping[str, int] = field(default_factory=dict)
    drilled: Mapping[str, int] = field(default_factory=dict)
    drilled_latency: Sequence[Any] = (0.0, ())


@dataclass(frozen=True, slots=True)
class Tick:
    """
    Once a second: the routes that changed since the last tick that was sent, and the worker's own gauges.

    Attributes:
        overhead: [sum in s, [[bucket index, count], …]] of the time that the sidecar itself added.
        lag_s: Longest delay of the event loop since the last tick.
        dropped: Frames that no controller took, because none was there or it did not read; cumulative.
        untold: Decisions that were not told, because they were too many; cumulative.
        draining: The worker accepts no more.
        since_at: Monotonic seconds at which this epoch's counters were zero; 0 when unknown.
        endpoints: Endpoint → [its standing, requests in flight, ejections so far]; see `proxy/standing.py`.
        retries, retries_denied: Requests sent again, and those that were not for the budget; cumulative.
        tunnels: Connections that have left HTTP and stand now. tunnels_opened: Since the worker began.
        tunnel_bytes: `up` and `down`: what they carried; cumulative.
        log_dropped: Lines of the access log that could not be written, cumulative.
        handshakes_failed: TLS handshakes of clients that came to nothing; cumulative.
        full: Every route that ever counted in this epoch is in it, changed or not: the first tick of each link, so
            that a new controller knows where the counters stood when it began.
    """

    worker: int
    epoch: str
    sequence: int
    at: float
    routes: Mapping[str, RouteTick]
    overhead: Sequence[Any] = (0.0, ())
    lag_s: float = 0.0
    connections: int = 0
    config_version: int = 0
    dropped: int = 0
    untold: int = 0
    draining: bool = False
    since_at: float = 0.0
    full: bool = False
    endpoints: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    retries: int = 0
    retries_denied: int = 0
    tunnels: int = 0
    tunnels_opened: int = 0
    tunnel_bytes: Mapping[str, int] = field(default_factory=dict)
    log_dropped: int = 0
    handshakes_failed: int = 0


@dataclass(frozen=True, slots=True)
class Trip:
    """A breaker moved to open: sent at once, not with the tick."""

    worker: int
    route: str
    at: float
    generation: int
    rule: str
    detail: str
    open_s: float


@dataclass(frozen=True, slots=True)
class Demand:
    """
    What was asked of the limits that several workers share: four times a second, and at once as the answer to `Shares`.

    Attributes:
        sequence: Of the last `Shares` that this worker runs with; 0 when none came on this link.
        span_s: The time that `asked` speaks of; 0 when the frame only answers.
        asked: Bucket → what was asked of it, where 1 is what all workers together may pass. See `guard/leased.py`.
        leaving: The worker drains: when its link ends, its shares are free.
    """

    worker: int
    epoch: str
    sequence: int
    span_s: float = 0.0
    asked: Mapping[str, float] = field(default_factory=dict)
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """One redacted exchange for the evidence: never a query, a body or a header's value."""

    route: str
    at: float
    client: str
    method: str
    path: str
    status: int
    reason: str
    latency_s: float
    fields: Sequence[str]
    trace: str = ""


@dataclass(frozen=True, slots=True)
class Decided:
    """Why one request was refused, for `sidecar explain`."""

    id: str
    route: str
    at: float
    client: str
    method: str
    path: str
    reason: str
    rule: str
    detail: str
    config_version: int
    incident: str | None = None
    enforced: bool = True


@dataclass(frozen=True, slots=True)
class Tapped:
    """
    One request that a tap asked for.

    Attributes:
        tap: The tap's id.
        missed: Requests of this worker that it asked for too and that were not sent, because they were too many a second.
        request: Without its path, which may hold what identifies a person.
    """

    tap: str
    missed: int
    request: RequestFacts


@dataclass(frozen=True, slots=True)
class Ack:
    """The answer to `Prepare` or `Commit`; `problem` is empty when it was done."""

    worker: int
    phase: str
    version: int
    problem: str = ""


# --- down: controller → worker ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prepare:
    """Compile this text and keep it ready; nothing changes yet."""

    version: int
    text: str


@dataclass(frozen=True, slots=True)
class Commit:
    """Run the prepared version from now on."""

    version: int


@dataclass(frozen=True, slots=True)
class Directives:
    """All isolations and overrides in force; what is not in it has ended."""

    items: Sequence[Directive]


@dataclass(frozen=True, slots=True)
class Shares:
    """
    The parts of the limits that this worker may use from now on; it answers with `Demand`.

    Attributes:
        rest: Of every bucket that is not in `named`.
        named: Bucket → part, 0..1.
    """

    sequence: int
    rest: float
    named: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unhealthy:
    """
    All endpoints that fail their health checks; who is not in it is well.

    Attributes:
        until_at: Endpoint → monotonic seconds until which this counts, if nothing further comes.
    """

    until_at: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Tap:
    """
    Somebody looks on: send each request that fits as `Tapped`. It is said again while somebody does.

    Attributes:
        ttl_s: It ends by itself after this; 0 ends it now.
        route, client: Only of this route, of this client; empty for all.
        least_status, most_status: Only of these statuses.
        slower_s: Only those that took at least this long.
        refused: Only those that we refused.
    """

    id: str
    ttl_s: float
    route: str = ""
    client: str = ""
    least_status: int = 0
    most_status: int = 999
    slower_s: float = 0.0
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Faults:
    """All faults that drills inject now, each as the fields of `facts.Fault` in their order; none ends all."""

    items: Sequence[Sequence[Any]]


@dataclass(frozen=True, slots=True)
class BreakerOpen:
    """Another worker's breaker tripped: open this one too, until `until_at`."""

    route: str
    until_at: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class BreakerReset:
    """A person closed the breaker by hand."""

    route: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Stop accepting after `delay_s`, end what is in flight within `grace_s`."""

    delay_s: float
    grace_s: float


Frame = (
    Hello | Tick | Trip | Demand | Sample | Decided | Tapped | Ack
    | Prepare | Commit | Directives | Shares | Unhealthy | Tap | Faults | BreakerOpen | BreakerReset | Drain
)  # fmt: skip
