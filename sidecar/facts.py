"""
The shared vocabulary: what every stage says to the next one.

Pure and small on purpose. A word that only one stage needs lives in that stage.
Units: `*_s` are seconds, `*_ratio` and shares lie in 0..1, `*_at` are monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class Mode(StrEnum):
    """How much a control may do."""

    OFF = "off"
    OBSERVE = "observe"
    ENFORCE = "enforce"


class Outcome(StrEnum):
    """
    What one request meant for the health of the upstream; decided in `measure/classify.py` alone.

    `IGNORED` is neutral: it neither feeds nor resets any counter. `CANCELLED` never reached the upstream.
    """

    SUCCESS = "success"
    FAILURE = "failure"
    IGNORED = "ignored"
    CANCELLED = "cancelled"


class ScopeKind(StrEnum):
    """From the narrowest to the widest; `endpoint` stands beside `route`."""

    CLIENT = "client"
    ROUTE = "route"
    ENDPOINT = "endpoint"
    SERVICE = "service"


class ScopeError(ValueError):
    """A scope text that names no scope; the message says what to type instead."""


@dataclass(frozen=True, slots=True)
class Scope:
    """
    The part of the traffic that a decision is about.

    Its text is `service`, `route:NAME`, `client:ROUTE:KEY` or `endpoint:HOST:PORT`; KEY is everything after the
    second colon, so an IPv6 address needs no quoting.

    Attributes:
        kind: Which of the four.
        name: The route's name, or `HOST:PORT` of an endpoint; empty for the service.
        key: The client key; empty unless `kind` is `client`.
    """

    kind: ScopeKind
    name: str = ""
    key: str = ""

    def __str__(self) -> str:
        match self.kind:
            case ScopeKind.SERVICE:
                return "service"
            case ScopeKind.CLIENT:
                return f"client:{self.name}:{self.key}"
            case ScopeKind.ROUTE | ScopeKind.ENDPOINT:
                return f"{self.kind}:{self.name}"

    @classmethod
    def service(cls) -> Scope:
        """Name the whole API."""
        return cls(ScopeKind.SERVICE)

    @classmethod
    def route(cls, name: str) -> Scope:
        """Name one route."""
        return cls(ScopeKind.ROUTE, name)

    @classmethod
    def client(cls, route: str, key: str) -> Scope:
        """Name one client on one route."""
        return cls(ScopeKind.CLIENT, route, key)

    @classmethod
    def parse(cls, text: str) -> Scope:
        """
        Read a scope's text.

        Raises:
            ScopeError: when *text* is none of the four forms.
        """
        kind, _, rest = text.partition(":")
        if text == ScopeKind.SERVICE:
            return cls.service()
        if kind == ScopeKind.ROUTE and rest and ":" not in rest:
            return cls.route(rest)
        if kind == ScopeKind.CLIENT:
            route, _, key = rest.partition(":")
            if route and key:
                return cls.client(route, key)
        if kind == ScopeKind.ENDPOINT and rest.rpartition(":")[0]:
            return cls(ScopeKind.ENDPOINT, rest)
        raise ScopeError(f"'{text}' is not a scope: use service, route:NAME, client:ROUTE:KEY or endpoint:HOST:PORT")

    def contains(self, other: Scope) -> bool:
        """Tell whether every request of *other* is also one of this scope (a scope contains itself)."""
        if self == other or self.kind is ScopeKind.SERVICE:
            return True
        return self.kind is ScopeKind.ROUTE and other.kind is ScopeKind.CLIENT and self.name == other.name


class Action(StrEnum):
    """What a decision does to the requests of its scope."""

    ISOLATE = "isolate"
    THROTTLE = "throttle"
    ALLOW = "allow"
    OBSERVE = "observe"


@dataclass(frozen=True, slots=True)
class Directive:
    """
    One isolation or override in force, as the data plane needs it: no reason, no author, no history.

    Exactly one of `rate_per_s` and `share_ratio` is set for `throttle`; `isolate` passes `share_ratio` (its sample,
    0 for an override that refuses all).

    Attributes:
        id: Its name in decisions and logs, as `isolation-12` or `override-route:checkout`.
        scope: What it is about.
        action: What it does.
        end_at: Monotonic seconds of this boot (shared by all processes of one machine) at which it ends by itself.
        share_ratio: The part of the requests that still passes, every k-th; None when a rate rules.
        rate_per_s: What still passes in requests per second; None when a share rules.
        confirmed: A person stands behind it: it outranks a provisional one on the same scope.
        bypass_breaker: Its passing requests are the scope's probes (isolations, never overrides).
        incident: The incident it belongs to, for the answer that a refused client gets.
    """

    id: str
    scope: Scope
    action: Action
    end_at: float
    share_ratio: float | None = None
    rate_per_s: float | None = None
    confirmed: bool = False
    bypass_breaker: bool = False
    incident: str | None = None


@dataclass(frozen=True, slots=True)
class ClientSecond:
    """One client's part of one second on one route: of `requests` that reached the upstream; `refused` come on top."""

    requests: int
    failures: int = 0
    slow: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class RouteSecond:
    """
    What happened on one route in one second, over all workers: the only thing detectors ever see.

    Counts are of requests that *ended* in this second, except `arrivals`. Drills are not in it.

    Attributes:
        route: The route's name.
        at: Monotonic seconds at the end of the second.
        arrivals: Requests that came in, refused ones included.
        successes, failures, ignored, cancelled: By outcome; `cancelled` are our own refusals.
        refused: Own refusals by reason.
        latency: Upstream latency (last request byte sent → first response byte): bucket index → count, see
            `measure/histogram.py`. Timeouts and resets before the first byte are in it with their age.
        waiting: Requests still without a first response byte at `at`: bucket index of their age → count.
        in_flight: Requests between admission and end.
        clients: The heaviest clients only; a missing client is not a silent one.
        methods, statuses, endpoints: (requests, failures) by method, by status text (`503`, or `reset`, `timeout`,
            `refused` when there was none), by `HOST:PORT`.
        paths: (requests, failures) by path template, the heaviest only.
        trips: Breaker trips in this second.
        passed_trials: (successes, failures) of requests that an isolation let pass as its sample, by directive id.
        held: Requests that a directive refused, by its id.
        again: Requests that came again within their back-off, and were refused or failed again.
        drilled, drilled_latency: What a drill made of requests that are `ignored` above: by outcome, and its latency.
    """

    route: str
    at: float
    arrivals: int = 0
    successes: int = 0
    failures: int = 0
    ignored: int = 0
    cancelled: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    latency: Mapping[int, int] = field(default_factory=dict)
    waiting: Mapping[int, int] = field(default_factory=dict)
    in_flight: int = 0
    clients: Mapping[str, ClientSecond] = field(default_factory=dict)
    methods: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    statuses: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    endpoints: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    paths: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    trips: int = 0
    passed_trials: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    held: Mapping[str, int] = field(default_factory=dict)
    drilled: Mapping[str, int] = field(default_factory=dict)
    drilled_latency: Mapping[int, int] = field(default_factory=dict)
    again: int = 0

    @property
    def judged(self) -> int:
        """Count the requests that say something about the upstream."""
        return self.successes + self.failures


@dataclass(frozen=True, slots=True)
class Fault:
    """
    What a drill does to the requests of one route that passed its guards.

    Attributes:
        drill: The drill's number, for logs.
        kind: `errors`, `latency` or `hang`; the other kinds touch no request.
        end_at: Monotonic seconds at which it ends by itself.
        share_ratio: The part of the requests that meets it, every k-th.
        delay_s: Of `latency`.
    """

    drill: int
    route: str
    kind: str
    end_at: float
    share_ratio: float = 1.0
    delay_s: float = 1.0


class Detector(StrEnum):
    """Who raised a signal. Each has a runbook of this name."""

    ERRORS = "errors"
    LATENCY = "latency"
    SURGE = "surge"
    SILENCE = "silence"
    REFUSALS = "refusals"
    TRIP = "trip"
    BURN = "burn"
    DRIFT = "drift"


@dataclass(frozen=True, slots=True)
class Signal:
    """
    One detector's claim that a scope is abnormal, with the evidence for it.

    Attributes:
        detector: Who claims it.
        scope: What it claims it of.
        value: What was measured, in `unit`.
        baseline: What is normal, in the same unit.
        sample: How many requests `value` rests on.
        score: The test's statistic.
        threshold: The level that `score` passed.
        since_at: Monotonic seconds of the estimated onset.
        unit: `ratio`, `s` or `per_s`.
        material: The effect is large enough for automation to act on.
        severe: Enough to act on without a second signal.
        fading: Its cause is gone as far as is known; it stands only until it has been quiet for long enough.
        excess: Requests beyond normal since the onset: failed, slow, come, not come or refused; 0 where none are counted.
        ongoing: Some that were counted still wait: harm goes on, though *excess* does not grow.
    """

    detector: Detector
    scope: Scope
    value: float
    baseline: float
    sample: int
    score: float
    threshold: float
    since_at: float
    unit: str = "ratio"
    material: bool = False
    severe: bool = False
    fading: bool = False
    excess: float = 0.0
    ongoing: bool = False


class BreakerState(StrEnum):
    """Open always means blocking."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class RouteGauges:
    """
    What the guard of one route says of itself at one moment, in one worker; counts are cumulative.

    Attributes:
        in_flight: Requests between admission and end.
        waiting_ages_s: Age of every request that was sent upstream and has no first response byte yet.
        breaker, generation, trips: Its state, its moves, its trips.
        limits: Level (`route`, `service`) → tokens left; the buckets of single clients are not in it.
        concurrency_limit: This worker's part; None when unlimited.
        passed, held: Directive id → requests that it let pass, and that it refused.
    """

    in_flight: int = 0
    waiting_ages_s: tuple[float, ...] = ()
    breaker: BreakerState = BreakerState.CLOSED
    generation: int = 0
    trips: int = 0
    limits: Mapping[str, float] = field(default_factory=dict)
    concurrency_limit: int | None = None
    passed: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True)  # not frozen: it is made while a request ends, and guarding twenty fields costs 4 µs
class RequestFacts:
    """
    One request as the access log and the tap tell it: no query, no body, no field's value, no secret.

    Attributes:
        unix: Its end, as Unix seconds.
        route, client: The route's name and the client's key (a header's value only as its HMAC).
        method, path, minor: As sent: the path without its query, and HTTP/1.x; empty when it was no request.
        template: The path with its ids replaced.
        status: What the client got; 499 when it left before.
        reason, flag: Why it ended without the upstream's own answer, and Envoy's flag for that; empty otherwise.
        guard_s: From the whole head to the moment that a connection had it, or to the refusal: the guards, a wait for a token.
        upstream_s: Last request byte sent to first response byte, or the age at a failure; None when it was not sent.
        total_s: From the whole head to the end.
        bytes_in, bytes_out: Of the bodies, without head and framing.
        decision: What `sidecar explain` takes; empty when nothing refused it.
        trace: The trace id that went up.
        endpoint: Where it was sent last; empty when to nobody.
        retries: How often it was sent again.
        fields: The names of its fields.
    """

    unix: float
    route: str
    client: str
    method: str
    path: str
    minor: int
    template: str
    status: int
    reason: str
    flag: str
    guard_s: float
    upstream_s: float | None
    total_s: float
    bytes_in: int
    bytes_out: int
    decision: str = ""
    trace: str = ""
    endpoint: str = ""
    retries: int = 0
    fields: Sequence[str] = ()


OVERFLOW: Final = "_other"  # the label and key of everything beyond a bounded table


@dataclass(frozen=True, slots=True)
class Moment:
    """
    Now, on both clocks, as it is handed to everything that decides.

    Attributes:
        at: Monotonic seconds; the only one that durations and order are taken from.
        unix: Wall time as Unix seconds; only for what people read and the store keeps.
    """

    at: float
    unix: float
