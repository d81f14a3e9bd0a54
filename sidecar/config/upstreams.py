"""
Every key of the API behind: its endpoints, and how they are reached and kept.

The defaults are the policies' own, so each stands in one place. A description is one sentence for the JSON Schema and
the reference page.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final

from pydantic import Field

from sidecar.config.fields import Duration, EndpointUrl, Ratio, Statuses
from sidecar.config.kinds import Fault, count
from sidecar.config.policies import RetryPolicy, UpstreamPolicy
from sidecar.config.sections import Section, twice

_UPSTREAM: Final = UpstreamPolicy(())
_RETRIES: Final = RetryPolicy()


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


class UpstreamSection(Section):
    """The API behind."""

    endpoints: list[EndpointUrl] = Field(default=[], description="Its addresses; at least one, here or by --upstream.")
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

    def faults(self) -> Iterator[Fault]:
        """Refuse an endpoint that stands there twice."""
        yield from twice("endpoints", [str(endpoint) for endpoint in self.endpoints])
