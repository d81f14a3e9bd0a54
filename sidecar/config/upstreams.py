"""
Every key of the API behind: its endpoints, and how they are reached and kept.

The defaults are the policies' own, so each stands in one place. A description is one sentence for the JSON Schema and
the reference page.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final

from pydantic import Field

from sidecar.config.addresses import EndpointUrl
from sidecar.config.fields import (
    ControlMode,
    Duration,
    DurationOrZero,
    Ratio,
    RatioAboveZero,
    Statuses,
    TargetPath,
)
from sidecar.config.kinds import Fault, count
from sidecar.config.policies import EjectionPolicy, HealthPolicy, RetryPolicy, UpstreamPolicy
from sidecar.config.sections import Section, twice
from sidecar.config.tls import UpstreamTlsSection

MOST_ENDPOINTS: Final = 256

_UPSTREAM: Final = UpstreamPolicy(())
_RETRIES: Final = RetryPolicy()
_EJECTION: Final = EjectionPolicy()
_HEALTH: Final = HealthPolicy("/")


class RetriesSection(Section):
    """Which requests are sent again; only such that may be repeated, as long as no byte of an answer came."""

    attempts: Annotated[int, count(0, 10)] = Field(
        default=_RETRIES.attempts,
        description="Further attempts of one idempotent request without body whose connection ended before its answer.",
    )
    budget: Ratio = Field(
        default=_RETRIES.budget_ratio, description="Retries of all requests at most, and 3 a second for each worker."
    )
    on_status: Statuses | None = Field(
        default=None, description="Answers of these statuses are retried too; absent: none is."
    )

    def faults(self) -> Iterator[Fault]:
        """Refuse statuses that are never retried."""
        if self.on_status and not self.attempts:
            yield Fault(("on_status",), "on_status does nothing without attempts", "add `attempts: 1`")


class EjectionSection(Section):
    """When one of several endpoints rests for what its requests came to, while the others do clearly better."""

    mode: ControlMode = Field(
        default=_EJECTION.mode, description="observe: count ejections, and eject nothing. off: watch nothing."
    )
    consecutive: Annotated[int, count(0, 1_000_000)] = Field(
        default=_EJECTION.consecutive, description="Failures in a row that eject it; 0 switches the rule off."
    )
    error_ratio: RatioAboveZero = Field(
        default=_EJECTION.error_ratio, description="Or this ratio of failures in the window."
    )
    min_requests: Annotated[int, count(2, 1_000_000)] = Field(
        default=_EJECTION.min_requests, description="Fewer requests in the window never eject by the ratio."
    )
    window: Duration = Field(default=_EJECTION.window_s, description="Requests of this time are judged.")
    base: Duration = Field(
        default=_EJECTION.base_s,
        description="The n-th ejection takes n times this; one less for each such time in service.",
    )
    max: Duration = Field(default=_EJECTION.max_s, description="Longest ejection.")
    max_ejected: Ratio = Field(
        default=_EJECTION.max_ratio,
        description="Part of the endpoints that may be ejected at a time; one may always be, the last one in service never.",
    )

    def faults(self) -> Iterator[Fault]:
        """Refuse one failure as proof, and times that contradict each other."""
        if self.consecutive == 1:
            yield Fault(("consecutive",), "one failure would eject", "write 2 or more, or 0 to switch the rule off")
        if self.max < self.base:
            yield Fault(("max",), "max is shorter than base", "make it at least as long")


class HealthSection(Section):
    """How each endpoint is asked whether it is well."""

    path: TargetPath = Field(description="What is asked for; a status below 400 is well.")
    interval: Duration = Field(default=_HEALTH.interval_s, description="Between two checks of one endpoint.")
    timeout: Duration = Field(default=_HEALTH.timeout_s, description="For the whole check.")
    unhealthy: Annotated[int, count(1, 100)] = Field(
        default=_HEALTH.unhealthy, description="Failed checks in a row that take it out of service."
    )
    healthy: Annotated[int, count(1, 100)] = Field(
        default=_HEALTH.healthy, description="Good checks in a row that bring it back."
    )


class UpstreamSection(Section):
    """The API behind."""

    endpoints: list[EndpointUrl] = Field(
        default=[],
        description="Its addresses; at least one, here or by --upstream. The less loaded one of two is chosen, by weight.",
    )
    connect_timeout: Duration = Field(
        default=_UPSTREAM.connect_timeout_s, description="Until a connection stands; then 504."
    )
    response_timeout: Duration = Field(
        default=_UPSTREAM.response_timeout_s,
        description="From the last request byte to the first response byte; then 504.",
    )
    idle_timeout: Duration = Field(
        default=_UPSTREAM.idle_timeout_s, description="Longest silence within a body, either way."
    )
    pool: Annotated[int, count(0, 100_000)] = Field(
        default=_UPSTREAM.pool, description="Idle connections kept for each endpoint and worker."
    )
    retries: RetriesSection = Field(default=RetriesSection(), description="Which requests are sent again.")
    ejection: EjectionSection = Field(
        default=EjectionSection(), description="When one of several endpoints rests for its failures."
    )
    health: HealthSection | None = Field(
        default=None, description="How endpoints are asked whether they are well; absent: not at all."
    )
    slow_start: DurationOrZero = Field(
        default=_UPSTREAM.slow_start_s, description="An endpoint that comes back takes a growing part for so long."
    )
    resolve: Duration = Field(
        default=_UPSTREAM.resolve_s,
        description="Names are looked up again after this; the last good addresses stay when that fails.",
    )
    tls: UpstreamTlsSection = Field(default=UpstreamTlsSection(), description="How https:// endpoints are spoken to.")

    def faults(self) -> Iterator[Fault]:
        """Refuse an endpoint that stands there twice, and more of them than turns can be made for."""
        yield from twice("endpoints", [str(endpoint) for endpoint in self.endpoints])
        if len(self.endpoints) > MOST_ENDPOINTS:
            problem = f"{len(self.endpoints)} endpoints are more than {MOST_ENDPOINTS}"
            yield Fault(("endpoints",), problem, "put a load balancer's name in their place")
