"""
The frozen result of compiling a config: what every stage is told, without YAML, pydantic or units.

This file is pure, so that pure stages of the data plane (`proxy/route.py`) may read it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from sidecar.config.tls_policies import SYSTEM_AUTHORITIES, TlsPolicy, UpstreamTlsPolicy
from sidecar.decide.policies import ListenPolicy, RespondPolicy
from sidecar.detect.policies import DetectPolicy
from sidecar.facts import Mode
from sidecar.guard.policies import GuardPolicy


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP host and port, or a Unix socket's path (then `host` is empty and `port` 0)."""

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class StaticConfig:
    """What holds from start (or SIGHUP) on: a live apply that changes one of these is refused with 422."""

    listen: Address = Address("0.0.0.0", 8080)
    observe: Address = Address("0.0.0.0", 9902)
    admin: Address = Address("127.0.0.1", 9901)
    workers: int = 1
    state: str = "var/"
    access_log: str = "stdout"


@dataclass(frozen=True, slots=True)
class Token:
    """One bearer token of the admin API, known by its SHA-256 in hex only."""

    name: str
    role: str
    sha256: str


@dataclass(frozen=True, slots=True)
class AdminPolicy:
    """
    Who may do what on the admin API; comes from the file only, never from an applied version.

    Attributes:
        hosts: Names that browsers may call it by, beside loopback names and addresses.
    """

    tokens: tuple[Token, ...] = ()
    insecure: bool = False
    tls: TlsPolicy | None = None
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """
    One address of the API behind: a host and a port, or a Unix socket's path (then `host` is empty and `port` 0).

    Attributes:
        weight: Its part of the requests, against the others' weights.
        tls: It speaks TLS (`https://`).
    """

    host: str
    port: int
    path: str = ""
    weight: int = 1
    tls: bool = False

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def place(self) -> tuple[str, int, str, bool]:
        """Return what tells it from others: where it is and what it speaks, not how much it gets."""
        return self.host, self.port, self.path, self.tls


@dataclass(frozen=True, slots=True)
class EjectionPolicy:
    """
    When one of several endpoints must rest for what its requests came to; see `proxy/standing.py`.

    Attributes:
        consecutive: Failures in a row; 0 switches the rule off.
        error_ratio, min_requests, window_s: Or this ratio of failures, of at least so many requests in the window.
        base_s, max_s: The n-th ejection takes n times `base_s`, at most `max_s`.
        max_ratio: Of all endpoints at most this part is ejected at a time; one may always be, the last one never.
    """

    mode: Mode = Mode.ENFORCE
    consecutive: int = 5
    error_ratio: float = 0.5
    min_requests: int = 20
    window_s: float = 10.0
    base_s: float = 30.0
    max_s: float = 300.0
    max_ratio: float = 0.5


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """
    How the controller asks each endpoint whether it is well; see `controller/probing.py`.

    Attributes:
        path: What is asked for; a status below 400 is well.
        unhealthy, healthy: Answers in a row that change its state.
    """

    path: str
    interval_s: float = 5.0
    timeout_s: float = 1.0
    unhealthy: int = 3
    healthy: int = 2


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """
    Which requests are sent again, beyond the one whose pooled connection had ended; see `proxy/retry.py`.

    Attributes:
        attempts: Further attempts of one request; 0 for none.
        budget_ratio: Retries of all requests at most, and 3 a second beside.
        on_status: Answers that are no answers while an attempt is left.
    """

    attempts: int = 0
    budget_ratio: float = 0.2
    on_status: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class UpstreamPolicy:
    """
    How to reach the API behind.

    Attributes:
        connect_timeout_s: Until a connection stands.
        response_timeout_s: Last request byte sent → first response byte.
        idle_timeout_s: Without any body byte in either direction.
        pool: Idle connections kept for each endpoint and worker.
        retries: Which requests are sent again.
        ejection: When one of several endpoints must rest.
        health: How endpoints are asked whether they are well; None for not at all.
        slow_start_s: How long an endpoint that came back takes less than its weight.
        resolve_s: A name's addresses are looked up again after this.
        tls: How `https://` endpoints are spoken to.
    """

    endpoints: tuple[Endpoint, ...]
    connect_timeout_s: float = 1.0
    response_timeout_s: float = 30.0
    idle_timeout_s: float = 60.0
    pool: int = 256
    retries: RetryPolicy = RetryPolicy()
    ejection: EjectionPolicy = EjectionPolicy()
    health: HealthPolicy | None = None
    slow_start_s: float = 10.0
    resolve_s: float = 30.0
    tls: UpstreamTlsPolicy = SYSTEM_AUTHORITIES


@dataclass(frozen=True, slots=True)
class Match:
    """
    Which requests a route takes. Routes are tried in the config's order; the first match wins.

    Attributes:
        path: A pattern of segments: `*` is one segment, `**` (last only) any rest, also none.
        methods: Upper case; empty means all.
        hosts: Lower case, without port; empty means all.
    """

    path: str = "/**"
    methods: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SloPolicy:
    """
    What a route promises; declared here, read by the budget path.

    Attributes:
        availability_ratio: Good requests of all judged ones.
        latency_quantile, latency_s: This quantile of the upstream latency stays under `latency_s`; None for no promise.
    """

    availability_ratio: float | None = None
    latency_quantile: float | None = None
    latency_s: float | None = None


@dataclass(frozen=True, slots=True)
class RouteRule:
    """
    One route as the data plane needs it; its guards are `GuardPolicy.routes[name]`.

    Attributes:
        client_key: `address` or `header:NAME` (lower case): who a client is on this route.
        response_timeout_s: Overrides the upstream's; None keeps it.
        max_body_bytes: Larger request bodies get 413; None for no cap.
        failure_statuses: Upstream statuses that count as failure.
        slo: What the route promises; None when nothing.
        upgrades: Protocols (lower case) that a client may switch to.
    """

    name: str
    match: Match
    client_key: str = "address"
    response_timeout_s: float | None = None
    max_body_bytes: int | None = None
    failure_statuses: frozenset[int] = frozenset({500, *range(502, 600)})
    slo: SloPolicy | None = None
    upgrades: tuple[str, ...] = ("websocket",)


@dataclass(frozen=True, slots=True)
class DownstreamPolicy:
    """Limits on what clients send. Precedents stand beside each number in `proxy/framing.py`."""

    head_timeout_s: float = 10.0
    idle_timeout_s: float = 60.0
    body_timeout_s: float = 30.0
    max_connections: int = 10_000
    tunnel_timeout_s: float = 600.0


class Explain:
    """How much a refused client learns."""

    FULL = "full"
    REASON = "reason"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class ProxyPolicy:
    """
    The data plane's part.

    Attributes:
        trusted: CIDR texts of peers whose X-Forwarded-For and Forwarded count.
        explain: `full`, `reason` or `none`.
        ratelimit_headers: Send `RateLimit` and `RateLimit-Policy`.
        tracing: Pass and make `traceparent`.
        tls: Of the listener; None for plain HTTP.
        end_tunnels: An isolation ends the tunnels that it covers.
    """

    routes: tuple[RouteRule, ...]
    upstream: UpstreamPolicy
    downstream: DownstreamPolicy = field(default_factory=DownstreamPolicy)
    trusted: tuple[str, ...] = ()
    explain: str = Explain.REASON
    ratelimit_headers: bool = True
    tracing: bool = True
    end_tunnels: bool = False
    tls: TlsPolicy | None = None


class LogFormat(StrEnum):
    """How a request looks in the access log."""

    JSON = "json"
    COMMON = "common"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class AccessLogPolicy:
    """
    Which requests the access log has: all that failed or were refused, and a part of the others.

    Attributes:
        format: How a line looks; `off` writes none.
        sample_ratio: Of the successes, spread evenly: 1 % is every 100th.
    """

    format: LogFormat = LogFormat.JSON
    sample_ratio: float = 0.01


@dataclass(frozen=True, slots=True)
class ReceiverPolicy:
    """
    Where alerts go.

    Attributes:
        name: Unique among receivers.
        type: `webhook` or `log`.
        url: Of a webhook.
        secret_file: Holds the HMAC key; empty for unsigned.
    """

    name: str
    type: str
    url: str = ""
    secret_file: str = ""


@dataclass(frozen=True, slots=True)
class DrainPolicy:
    """How a process leaves: stop accepting after `delay_s`, end what is in flight within `grace_s`."""

    delay_s: float = 0.0
    grace_s: float = 30.0


@dataclass(frozen=True, slots=True)
class StorePolicy:
    """Events, rollups and ended incidents older than `retention_s` leave the store (events into a signed checkpoint)."""

    retention_s: float = 90 * 86400.0


@dataclass(frozen=True, slots=True)
class Compiled:
    """One config, ready to run; two equal ones behave alike."""

    static: StaticConfig
    admin: AdminPolicy
    mode: Mode
    proxy: ProxyPolicy
    guard: GuardPolicy
    detect: DetectPolicy
    respond: RespondPolicy
    drain: DrainPolicy
    receivers: tuple[ReceiverPolicy, ...] = ()
    store: StorePolicy = field(default_factory=StorePolicy)
    access_log: AccessLogPolicy = AccessLogPolicy()
    listen: ListenPolicy = field(default_factory=ListenPolicy)
