"""
Every key of one route and its guards: kind, default, meaning, and what must hold between the keys of one section.

The defaults are the policies' own, so each stands in one place. A description is one sentence for the JSON Schema and
the reference page.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from math import ceil
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sidecar.config.addresses import Host
from sidecar.config.fields import (
    BucketModeWord,
    ClientKey,
    ControlMode,
    Duration,
    Fraction,
    LimitModeWord,
    Method,
    Name,
    PriorityWord,
    Protocol,
    Ramp,
    Rate,
    RatioAboveZero,
    RoutePath,
    SensitivityWord,
    Size,
    Statuses,
    Switch,
)
from sidecar.config.kinds import Fault, count, number, refuse
from sidecar.config.policies import Match, RouteRule
from sidecar.facts import OVERFLOW, Detector, Mode
from sidecar.guard.policies import BreakerPolicy, LimitMode, LimitPolicy, Priority

_BREAKER: Final = BreakerPolicy()
_FAILURES: Final = RouteRule("", Match()).failure_statuses
_LIMIT: Final = LimitPolicy()
_LEAST: Final = 4  # Netflix concurrency-limits begins its limits at 20 and lets them fall to 20; 4 suits a small API
_MOST: Final = 256


class Section(BaseModel):
    """A map of keys; unknown ones are errors, and `faults` says what must hold between the known ones."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    def faults(self) -> Iterator[Fault]:
        """Yield what is wrong between keys that are each valid."""
        return iter(())

    @model_validator(mode="after")
    def _judge(self) -> Self:
        if found := tuple(self.faults()):
            raise refuse(found)
        return self


def twice(key: str, words: list[str]) -> Iterator[Fault]:
    """Yield a fault for each of *words* that stands under *key* a second time."""
    for index, word in enumerate(words):
        if word in words[:index]:
            yield Fault((key, index), f"{word} stands here a second time", "remove it")


Burst = Annotated[int, count(1, 1_000_000_000)]
Cost = Annotated[float, number(1, 1_000_000)]
InFlight = Annotated[int, count(1, 1_000_000)]


class BucketSection(Section):
    """The shared limit of the whole API."""

    rate: Rate = Field(description="Requests that all clients together may send.")
    burst: Burst | None = Field(
        default=None, description="Requests at once from a full bucket; one second of the rate if absent."
    )
    mode: BucketModeWord = Field(
        default=LimitMode.ENFORCE, description="Refuse, only count what would be refused, or nothing."
    )


class PerClientSection(Section):
    """One bucket for each client."""

    rate: Rate = Field(description="Requests that one client may send.")
    burst: Burst | None = Field(
        default=None, description="Requests at once from a full bucket; one second of the rate if absent."
    )
    key: ClientKey | None = Field(default=None, description="Who a client is; the route's client_key if absent.")
    max_keys: Annotated[int, count(16, 10_000_000)] = Field(
        default=_LIMIT.max_keys, description="Clients known at a time; further ones share one bucket."
    )


def too_dear(
    bucket: BucketSection | LimitSection | PerClientSection, cost: float, at: tuple[str | int, ...]
) -> Iterator[Fault]:
    """Yield a fault when a full *bucket* holds less than one request takes."""
    burst = burst_of(bucket)
    if burst is not None and burst < cost:
        hint = f"write `burst: {ceil(cost)}` or more there, or a cost of {burst:g} at most"
        yield Fault(at, f"a cost of {cost:g} never passes a burst of {burst:g}", hint)


def burst_of(bucket: BucketSection | LimitSection | PerClientSection) -> float | None:
    """Return how many tokens a full *bucket* holds: a second of the rate if it does not say; None without a rate."""
    if bucket.rate is None:
        return None
    return max(1.0, bucket.rate) if bucket.burst is None else float(bucket.burst)


class LimitSection(Section):
    """The limits of one route."""

    rate: Rate | None = Field(default=None, description="Requests that all clients together may send.")
    burst: Burst | None = Field(
        default=None, description="Requests at once from a full bucket; one second of the rate if absent."
    )
    per_client: PerClientSection | None = Field(default=None, description="A limit for each client on its own.")
    cost: Cost = Field(
        default=_LIMIT.cost,
        description="Tokens that one request takes of this limit, of its client's and of the service's.",
    )
    mode: LimitModeWord = Field(
        default=LimitMode.ENFORCE,
        description="Refuse, wait for a token (shape), only count what would be refused, or nothing.",
    )
    max_wait: Duration = Field(default=_LIMIT.max_wait_s, description="Of shape: who would wait longer is refused.")
    max_queue: Annotated[int, count(1, 100_000)] = Field(
        default=_LIMIT.max_queue, description="Of shape: requests that may wait, in each worker; clients take turns."
    )

    def faults(self) -> Iterator[Fault]:
        """Refuse a limit that limits nothing, a request that no bucket can hold, and words about a wait that never is."""
        for key in ("max_wait", "max_queue"):
            if key in self.model_fields_set and self.mode is not LimitMode.SHAPE:
                yield Fault((key,), f"{key} does nothing where nobody waits", "add `mode: shape`, or remove it")
        if self.rate is None and self.burst is not None:
            yield Fault(("burst",), "burst without rate limits nothing", "add `rate: 100/s`")
        elif self.rate is None and self.per_client is None and "cost" not in self.model_fields_set:
            yield Fault((), "limits nothing", "add `rate: 100/s` or `per_client: {rate: 10/s}`")
        buckets = (self, self.per_client) if self.per_client is not None else (self,)
        yield from islice((fault for each in buckets for fault in too_dear(each, self.cost, ("cost",))), 1)


class ConcurrencySection(Section):
    """How many requests may be in flight."""

    max: InFlight | None = Field(
        default=None, description=f"Requests in flight at most, over all workers; {_MOST} if adaptive and absent."
    )
    adaptive: Switch = Field(default=False, description="Learn the limit from latency, from min to max.")
    min: InFlight | None = Field(
        default=None, description=f"The lowest that may be learned; {_LEAST} if adaptive and absent."
    )
    mode: ControlMode = Field(default=Mode.ENFORCE, description="Refuse, only count what would be refused, or nothing.")

    @property
    def bounds(self) -> tuple[int | None, int]:
        """Return the lowest limit that may be learned (None when it is fixed) and the highest."""
        if not self.adaptive:
            return None, self.max or _MOST
        most = self.max or max(_MOST, self.min or 0)
        return self.min or min(_LEAST, most), most

    def faults(self) -> Iterator[Fault]:
        """Refuse a limit that is neither fixed nor learned, and a floor above the ceiling."""
        if not self.adaptive and self.min is not None:
            yield Fault(("min",), "min does nothing without adaptive", "add `adaptive: true`, or remove it")
        elif not self.adaptive and self.max is None:
            yield Fault((), "max is missing", "add `max: 64`, or `adaptive: true`")
        elif self.min is not None and self.max is not None and self.min > self.max:
            yield Fault(("min",), f"min is above max, which is {self.max}", f"write {self.max} or less")


class BreakerRampSection(Section):
    """How traffic returns after the breaker closed."""

    steps: Ramp = Field(default=_BREAKER.ramp, description="Shares that pass, in order.")
    hold: Duration = Field(
        default=_BREAKER.ramp_step_s, description="Shortest time on a step, which also needs successes."
    )


class BreakerSection(Section):
    """When the reflex opens and how it closes."""

    window: Duration = Field(default=_BREAKER.window_s, description="Requests of this time are judged, in ten buckets.")
    min_requests: Annotated[int, count(2, 1_000_000)] = Field(
        default=_BREAKER.min_requests, description="Fewer judged requests than this never trip by a ratio."
    )
    error_ratio: RatioAboveZero = Field(
        default=_BREAKER.error_ratio, description="Trips at this ratio of failures or above."
    )
    consecutive: Annotated[int, count(0, 1_000_000)] = Field(
        default=_BREAKER.consecutive, description="Trips at this many failures in a row; 0 switches the rule off."
    )
    slow: Duration | None = Field(default=None, description="A first byte later than this is slow; absent: nothing is.")
    slow_ratio: RatioAboveZero = Field(
        default=_BREAKER.slow_ratio, description="Trips at this ratio of slow ones or above."
    )
    open: Duration = Field(default=_BREAKER.open_s, description="Refuses for this long after the first trip.")
    max_open: Duration = Field(default=_BREAKER.max_open_s, description="Each re-trip doubles the time, up to this.")
    probes: Annotated[int, count(1, 1000)] = Field(
        default=_BREAKER.probes, description="In flight at most while half open."
    )
    probe_timeout: Duration = Field(
        default=_BREAKER.probe_timeout_s, description="After this a probe's place is free again."
    )
    close_successes: Annotated[int, count(1, 1000)] = Field(
        default=_BREAKER.close_successes,
        description="Closes after this many successes of the last close_window probes.",
    )
    close_window: Annotated[int, count(1, 1000)] = Field(
        default=_BREAKER.close_window, description="Probes that are judged."
    )
    reopen_failures: Annotated[int, count(1, 1000)] = Field(
        default=_BREAKER.reopen_failures, description="Opens again at this many failed probes."
    )
    ramp: BreakerRampSection = Field(default=BreakerRampSection(), description="How traffic returns after closing.")
    mode: ControlMode = Field(default=Mode.ENFORCE, description="Refuse, only count what would be refused, or nothing.")

    def faults(self) -> Iterator[Fault]:
        """Refuse times that contradict each other, and probe rules that never come to a verdict."""
        if self.consecutive == 1:
            yield Fault(("consecutive",), "one failure would open it", "write 2 or more, or 0 to switch the rule off")
        if self.max_open < self.open:
            yield Fault(("max_open",), "max_open is shorter than open", "make it at least as long")
        if self.slow is None and "slow_ratio" in self.model_fields_set:
            yield Fault(("slow_ratio",), "slow_ratio does nothing without slow", "add `slow: 1s`")
        if self.close_successes > self.close_window:
            hint = f"write {self.close_window} or less"
            yield Fault(("close_successes",), "is more than close_window, so it would never close", hint)
        elif self.reopen_failures > (most := self.close_window - self.close_successes + 1):
            problem = "leaves probes that neither close nor re-open it"
            yield Fault(("reopen_failures",), problem, f"write {most} or less: close_window - close_successes + 1")


class LatencySloSection(Section):
    """A promise about latency."""

    quantile: Fraction = Field(description="Which quantile.")
    under: Duration = Field(description="Where it stays under.")


class SloSection(Section):
    """What a route promises its clients."""

    availability: Fraction | None = Field(default=None, description="Good requests of all that were judged.")
    latency: LatencySloSection | None = Field(default=None, description="A promise about latency.")

    def faults(self) -> Iterator[Fault]:
        """Refuse an empty promise."""
        if self.availability is None and self.latency is None:
            yield Fault(
                (), "promises nothing", "add `availability: 99.9%` or `latency: {quantile: 0.99, under: 300ms}`"
            )


class MatchSection(Section):
    """Which requests a route takes."""

    path: RoutePath = Field(
        default="/**", description="Path pattern: `*` is one segment, `**` at the end any rest, also none."
    )
    methods: list[Method] = Field(default=[], description="Methods; empty means all.")
    hosts: list[Host] = Field(default=[], description="Hosts without port; empty means all.")

    def faults(self) -> Iterator[Fault]:
        """Refuse words that stand there twice."""
        yield from twice("methods", self.methods)
        yield from twice("hosts", self.hosts)


class DetectorsSection(Section):
    """Which detectors are listened to: enforce; observe, would-have incidents that never page; off."""

    errors: ControlMode | None = Field(default=None, description="Requests that fail.")
    latency: ControlMode | None = Field(default=None, description="Answers that take long.")
    surge: ControlMode | None = Field(default=None, description="Far more requests than usual.")
    silence: ControlMode | None = Field(default=None, description="Far fewer requests than usual.")
    refusals: ControlMode | None = Field(default=None, description="What limits refuse since a config version.")
    trip: ControlMode | None = Field(default=None, description="Breakers that open.")
    burn: ControlMode | None = Field(default=None, description="An error budget that is spent too fast.")
    drift: ControlMode | None = Field(default=None, description="What is unusual for hours.")

    def modes(self) -> dict[Detector, Mode]:
        """Return those that are given."""
        given: dict[Detector, Mode | None] = {detector: getattr(self, detector.value) for detector in Detector}
        return {detector: mode for detector, mode in given.items() if mode is not None}


class RouteDetectSection(Section):
    """How one route is watched, where it differs from `detect`."""

    sensitivity: SensitivityWord | None = Field(
        default=None, description="Expected false alarms a month on this route; absent: detect.sensitivity."
    )
    detectors: DetectorsSection = Field(
        default=DetectorsSection(), description="Modes of single detectors here; absent: those of detect.detectors."
    )


class RouteSection(Section):
    """One route; the first whose match fits takes the request."""

    name: Name = Field(description="Unique; appears in metrics, incidents and scopes.")
    match: MatchSection = Field(default=MatchSection(), description="Which requests it takes.")
    client_key: ClientKey = Field(
        default="address",
        description="Who a client is on this route: its address (IPv6 by /64), or the value of a header.",
    )
    limit: LimitSection | None = Field(default=None, description="Its limits.")
    concurrency: ConcurrencySection | None = Field(
        default=None, description="How many of its requests may be in flight."
    )
    breaker: BreakerSection | None = Field(
        default=None, description="Its circuit breaker; absent: none, `{}`: the defaults."
    )
    priority: PriorityWord = Field(
        default=Priority.NORMAL,
        description=(
            "Who is refused last when the service is at its limit of concurrency; "
            "probe, for health checks of an orchestrator, passes every guard but an override that isolates."
        ),
    )
    slo: SloSection | None = Field(default=None, description="What it promises.")
    detect: RouteDetectSection = Field(default=RouteDetectSection(), description="How it is watched.")
    response_timeout: Duration | None = Field(default=None, description="Instead of upstream.response_timeout.")
    max_body: Size | None = Field(default=None, description="Larger request bodies get 413; absent: no cap.")
    upgrade: list[Protocol] = Field(
        default=list(RouteRule("", Match()).upgrades),
        description="Protocols that clients may switch to, by a GET of HTTP/1.1; `[]`: none.",
    )
    failure_statuses: Statuses = Field(default=_FAILURES, description="Upstream statuses that count as failure.")

    def faults(self) -> Iterator[Fault]:
        """Refuse two answers to who a client is, and the name of the metrics' overflow series."""
        if self.name == OVERFLOW:
            yield Fault(("name",), f"{OVERFLOW} is the overflow series of the metrics", "choose another name")
        if self.priority is Priority.PROBE:
            guards = {"limit": self.limit, "concurrency": self.concurrency, "breaker": self.breaker}
            for name in [name for name, guard in guards.items() if guard is not None]:
                yield Fault((name,), f"probes pass every guard, so {name} does nothing", "remove it, or the priority")
        key = self.limit.per_client.key if self.limit and self.limit.per_client else None
        if key is not None and "client_key" in self.model_fields_set and key != self.client_key:
            yield Fault(
                ("limit", "per_client", "key"), f"the route's client_key is {self.client_key}", "keep one of them"
            )
