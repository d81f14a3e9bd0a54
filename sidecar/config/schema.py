"""
Every key of a config: its kind, its default, what it means, and what must hold between the keys of one section.

The routes and their guards stand in `sections.py`, the API behind in `upstreams.py`; what must hold between sections stands in `checks.py`. The defaults are the policies' own, so each stands in one place.
A description is one sentence for the JSON Schema and the reference page.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Annotated, Final

from pydantic import Field

from sidecar.config.addresses import Host, ListenAddress, Network, WebhookUrl
from sidecar.config.fields import (
    ControlMode,
    Duration,
    DurationOrZero,
    ExplainLevel,
    ExplainWord,
    FilePath,
    GlobalMode,
    LadderWord,
    LogFormatWord,
    Name,
    Ramp,
    Ratio,
    ReceiverType,
    ReceiverWord,
    ResponseWord,
    RoleWord,
    RollbackWord,
    SensitivityWord,
    Sha256,
    Switch,
    TokenName,
    Workers,
)
from sidecar.config.kinds import Fault, count
from sidecar.config.policies import (
    AccessLogPolicy,
    Address,
    DownstreamPolicy,
    DrainPolicy,
    StaticConfig,
    StorePolicy,
)
from sidecar.config.sections import BucketSection, ConcurrencySection, DetectorsSection, RouteSection, Section
from sidecar.config.tls import TlsSection
from sidecar.config.units import format_duration
from sidecar.config.upstreams import UpstreamSection
from sidecar.decide.policies import RespondPolicy
from sidecar.detect.policies import DetectPolicy
from sidecar.facts import Mode
from sidecar.guard.policies import GuardPolicy

STATIC_KEYS: Final = ("listen", "observe", "admin.listen", "workers", "state", "access_log.path")
"""What holds from start or SIGHUP on; `admin` as a whole comes from the file only."""

_STATIC: Final = StaticConfig()
_DOWNSTREAM: Final = DownstreamPolicy()
_DETECT: Final = DetectPolicy()
_GUARD: Final = GuardPolicy()
_RESPOND: Final = RespondPolicy()
_DRAIN: Final = DrainPolicy()
_ACCESS_LOG: Final = AccessLogPolicy()


def is_loopback(address: Address) -> bool:
    """Tell whether only this machine reaches *address*."""
    return bool(address.path) or address.host in ("localhost", "::1") or address.host.startswith("127.")


class TokenSection(Section):
    """One bearer token, known by its hash only."""

    name: TokenName = Field(description="Who it is in the audit.")
    role: RoleWord = Field(
        description="What it may do: viewer reads, operator also decides, admin also applies config."
    )
    sha256: Sha256 = Field(description="SHA-256 of the token in hex: `printf %s TOKEN | sha256sum`.")


class AdminSection(Section):
    """The admin API; this whole section comes from the file only and is never changed by an applied version."""

    listen: ListenAddress = Field(default=_STATIC.admin, description="Where the admin API listens.")
    tls: TlsSection | None = Field(default=None, description="Speak TLS there; on or off needs a restart.")
    hosts: list[Host] = Field(
        default=[], description="Names that it is called by, beside localhost and addresses; others are refused."
    )
    insecure: Switch = Field(
        default=False, description="Allow a listener beyond loopback although it speaks plain HTTP."
    )
    tokens: list[TokenSection] = Field(
        default=[], description="Who may use it; empty makes `<state>/admin.token` at first start."
    )

    def faults(self) -> Iterator[Fault]:
        """Refuse plain HTTP beyond this machine unless somebody said so."""
        if not self.insecure and self.tls is None and not is_loopback(self.listen):
            problem = f"{self.listen} is beyond loopback, and tokens would travel in plain text"
            yield Fault(
                ("listen",),
                problem,
                "listen on 127.0.0.1, add `tls: {certificate: FILE, key: FILE}`, or write `insecure: true` beside it",
            )


class TrustSection(Section):
    """Whom to believe about client addresses."""

    proxies: list[Network] = Field(
        default=[], description="Peers whose X-Forwarded-For and Forwarded count, hop by hop."
    )


class DownstreamSection(Section):
    """What clients may do to a connection."""

    head_timeout: Duration = Field(
        default=_DOWNSTREAM.head_timeout_s, description="For the whole request head; then 408."
    )
    idle_timeout: Duration = Field(
        default=_DOWNSTREAM.idle_timeout_s, description="A kept-alive connection without request."
    )
    body_timeout: Duration = Field(
        default=_DOWNSTREAM.body_timeout_s, description="Longest silence within a request body."
    )
    tunnel_timeout: Duration = Field(
        default=_DOWNSTREAM.tunnel_timeout_s, description="Longest silence of a connection that left HTTP (WebSocket)."
    )
    max_connections: Annotated[int, count(1, 1_000_000)] = Field(
        default=_DOWNSTREAM.max_connections,
        description="Client connections of each worker, at most 80 % of its file limit; the oldest idle one yields.",
    )


class ServiceSection(Section):
    """Guards of the whole API, across all routes."""

    limit: BucketSection | None = Field(default=None, description="What all clients and routes together may send.")
    concurrency: ConcurrencySection | None = Field(default=None, description="How many requests may be in flight.")
    rearrivals: ControlMode = Field(
        default=_GUARD.rearrivals,
        description="In a retry storm, what asks again within its back-off gets only what first tries leave.",
    )


class DetectSection(Section):
    """How abnormal traffic is found."""

    mode: ControlMode = Field(
        default=_DETECT.mode, description="observe: signals and incidents, but no isolation. off: nothing."
    )
    sensitivity: SensitivityWord = Field(
        default=_DETECT.sensitivity, description="Expected false alarms a route and month: 0.2, 1 or 5."
    )
    min_requests: Annotated[int, count(1, 1_000_000)] = Field(
        default=_DETECT.min_requests, description="Smaller samples never isolate; a breaker's trip always may."
    )
    warmup: Duration = Field(
        default=_DETECT.warmup_s, description="Shortest time of learning before a baseline counts."
    )
    clear_after: Duration = Field(default=_DETECT.clear_after_s, description="Quiet time after which an alarm ends.")
    detectors: DetectorsSection = Field(
        default=DetectorsSection(), description="Modes of single detectors on all routes; absent: enforce."
    )


class RampSection(Section):
    """How traffic of an isolated scope returns."""

    steps: Ramp = Field(default=_RESPOND.ramp, description="Shares that pass, in order.")
    hold: Duration = Field(
        default=_RESPOND.ramp_hold_s, description="Shortest time on a step, which also needs successes."
    )


class RungSection(Section):
    """One rung of the ladder that runs while nobody answers."""

    after: Duration = Field(description="Since the isolation began.")
    do: LadderWord = Field(description="escalate: tell again. probe: try recovery. hold: keep it. release: end it.")


_LADDER: Final = [
    RungSection.model_validate({"after": format_duration(rung.after_s), "do": rung.do.value})
    for rung in _RESPOND.ladder
]


class RespondSection(Section):
    """How far automation may go."""

    mode: ControlMode = Field(default=_RESPOND.mode, description="observe: say what it would do, and do nothing.")
    action: ResponseWord = Field(default=_RESPOND.action, description="What an isolation does to the abnormal scope.")
    share: Ratio = Field(default=_RESPOND.share_ratio, description="What still passes of a throttled scope.")
    max_refused: Ratio = Field(
        default=_RESPOND.max_refused_ratio, description="Automation never refuses more than this part of all traffic."
    )
    lease: Duration = Field(default=_RESPOND.lease_s, description="An isolation ends after this unless it is renewed.")
    ramp: RampSection = Field(default=RampSection(), description="How traffic returns on recovery.")
    if_unanswered: list[RungSection] = Field(default=_LADDER, description="What happens while nobody answers.")
    end_tunnels: Switch = Field(default=False, description="An isolation ends the open WebSockets that it covers, too.")
    rollback: RollbackWord = Field(
        default=_RESPOND.rollback, description="What happens to a config version under suspicion."
    )

    def faults(self) -> Iterator[Fault]:
        """Refuse a ladder that does not ascend, and a lease that ends within one step of its ramp."""
        for index, (before, rung) in enumerate(itertools.pairwise(self.if_unanswered), start=1):
            if rung.after <= before.after:
                yield Fault(("if_unanswered", index, "after"), "is not later than the rung before", "let them ascend")
        if self.lease <= self.ramp.hold:
            yield Fault(
                ("lease",), "is not longer than ramp.hold, so no recovery could finish a step", "make it longer"
            )


class ConfigSection(Section):
    """What a config change is answerable for."""

    suspect_window: Duration = Field(
        default=_RESPOND.suspect_window_s,
        description="A version applied at most this long before an onset is a suspect.",
    )


class DrainSection(Section):
    """How a process leaves."""

    delay: DurationOrZero = Field(
        default=_DRAIN.delay_s, description="Not ready, but still accepting, before it drains."
    )
    grace: DurationOrZero = Field(default=_DRAIN.grace_s, description="Then requests in flight have this long to end.")


class AccessLogSection(Section):
    """A line for each request that failed or was refused, and for some of the others."""

    format: LogFormatWord = Field(default=_ACCESS_LOG.format, description="json, common (NCSA), or off.")
    sample: Ratio = Field(
        default=_ACCESS_LOG.sample_ratio, description="Part of the successes, every k-th; the rest is always there."
    )
    path: FilePath = Field(default=_STATIC.access_log, description="stdout, stderr or a file; opened again on SIGHUP.")


class StoreSection(Section):
    """How long history is kept."""

    retention: Duration = Field(
        default=StorePolicy().retention_s, description="Older events and ended incidents leave."
    )


class NotifySection(Section):
    """One receiver of alerts."""

    type: ReceiverWord = Field(description="webhook: signed POST of JSON. log: a structured line on stderr.")
    name: Name | None = Field(default=None, description="Unique; the type if absent.")
    url: WebhookUrl | None = Field(
        default=None, description="Where a webhook goes; shown in answers, so put no secret in it."
    )
    secret_file: FilePath | None = Field(
        default=None, description="File that holds the HMAC key of a webhook's signature."
    )

    def faults(self) -> Iterator[Fault]:
        """Refuse a webhook without address, and a log line with one."""
        if self.type is ReceiverType.WEBHOOK and self.url is None:
            yield Fault((), "a webhook needs its url", "add `url: https://HOST/PATH`")
        if self.type is ReceiverType.LOG:
            for key in ("url", "secret_file"):
                if getattr(self, key) is not None:
                    yield Fault((key,), f"{key} means nothing to a log receiver", "remove it, or write `type: webhook`")


class Config(Section):
    """The whole config."""

    listen: ListenAddress = Field(default=_STATIC.listen, description="Where clients of the API connect.")
    observe: ListenAddress = Field(
        default=_STATIC.observe, description="Where /metrics, /livez and /readyz are; no token."
    )
    admin: AdminSection = Field(
        default=AdminSection(), description="The admin API; this section comes from the file only."
    )
    tls: TlsSection | None = Field(default=None, description="Speak TLS on `listen`; absent: plain HTTP.")
    workers: Workers = Field(default=_STATIC.workers, description="Processes that serve.")
    mode: GlobalMode = Field(
        default=Mode.ENFORCE, description="observe: no control refuses anything, whatever its own mode says."
    )
    state: FilePath = Field(default=_STATIC.state, description="Folder of the database and the first admin token.")
    trust: TrustSection = Field(default=TrustSection(), description="Whom to believe about client addresses.")
    explain: ExplainWord = Field(default=ExplainLevel.REASON, description="How much a refused client learns.")
    ratelimit_headers: Switch = Field(default=True, description="Send RateLimit and RateLimit-Policy (IETF draft).")
    traceparent: Switch = Field(
        default=True, description="Pass on traceparent (W3C), and make one where it is missing."
    )
    upstream: UpstreamSection = Field(default=UpstreamSection(), description="The API behind.")
    downstream: DownstreamSection = Field(
        default=DownstreamSection(), description="What clients may do to a connection."
    )
    service: ServiceSection = Field(default=ServiceSection(), description="Guards of the whole API.")
    routes: list[RouteSection] = Field(
        default=[], description="Tried in this order; without any, one `default` takes all."
    )
    detect: DetectSection = Field(default=DetectSection(), description="How abnormal traffic is found.")
    respond: RespondSection = Field(default=RespondSection(), description="How far automation may go.")
    config: ConfigSection = Field(default=ConfigSection(), description="What a config change is answerable for.")
    drain: DrainSection = Field(default=DrainSection(), description="How a process leaves.")
    notify: list[NotifySection] = Field(default=[], description="Who is told.")
    access_log: AccessLogSection = Field(default=AccessLogSection(), description="What is written of single requests.")
    store: StoreSection = Field(default=StoreSection(), description="How long history is kept.")
