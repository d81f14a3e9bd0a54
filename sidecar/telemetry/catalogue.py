"""
Every metric, in the order of the page: the exposition and `docs/reference/metrics.md` are both made from this table.

Names and buckets of `http_server_request_duration_seconds` are OpenTelemetry's (semantic conventions for HTTP, stable
since 1.23), all others are ours, after Prometheus' rules: base units, `_total` for counters.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sidecar.measure.histogram import OTEL_BOUNDS_S


class Kind(StrEnum):
    """Prometheus' types, as far as they are used."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One row; `labels` in the order of their values, `bounds_s` of a histogram without +Inf."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    bounds_s: tuple[float, ...] = ()


# What the sidecar adds is far below what it measures: from 25 µs on, as one exchange costs about that.
OVERHEAD_BOUNDS_S: Final = (0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)
_C, _G, _H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM

# fmt: off
CATALOGUE: Final[tuple[Metric, ...]] = (
    Metric("http_server_request_duration_seconds", _H,
        ("http_route", "http_request_method", "http_response_status_code"),
        "Whole exchanges with clients, own refusals included.", OTEL_BOUNDS_S),
    Metric("sidecar_requests_total", _C, ("route", "outcome", "reason"),
        "Requests that ended; reason is empty when the upstream's own answer ended them."),
    Metric("sidecar_upstream_duration_seconds", _H, ("route",),
        "Last request byte sent to first response byte, or the age at a timeout or reset.", OTEL_BOUNDS_S),
    Metric("sidecar_overhead_seconds", _H, (),
        "Time that the sidecar itself added to an exchange.", OVERHEAD_BOUNDS_S),
    Metric("sidecar_in_flight", _G, ("route",),
        "Requests between admission and end."),
    Metric("sidecar_refused_total", _C, ("route", "reason"),
        "Requests that a guard refused."),
    Metric("sidecar_rearrivals_total", _C, ("route",),
        "Requests of the same client, method and path within the back-off that were refused or failed again."),
    Metric("sidecar_would_refuse_total", _C, ("route", "reason"),
        "Requests that a guard in observe mode would have refused."),
    Metric("sidecar_breaker_state", _G, ("route", "state"),
        "1 for the state that the route's breaker is in, the worst of all workers."),
    Metric("sidecar_limit_remaining", _G, ("route", "level"),
        "Tokens left in the bucket that all clients share, summed over the workers."),
    Metric("sidecar_concurrency_limit", _G, ("route",),
        "Requests that may be in flight, summed over the workers."),
    Metric("sidecar_endpoint_up", _G, ("endpoint",),
        "1 while every worker has the endpoint in service."),
    Metric("sidecar_endpoint_in_flight", _G, ("endpoint",),
        "Requests that the endpoint works on, and those that wait for a connection to it."),
    Metric("sidecar_endpoint_ejections_total", _C, ("endpoint",),
        "How often a worker ejected the endpoint for its failures, or would have in observe mode."),
    Metric("sidecar_retries_total", _C, ("result",),
        "Requests that were sent again by upstream.retries, or were not because the budget was used up (denied)."),
    Metric("sidecar_tunnels", _G, (),
        "Connections that have left HTTP (WebSocket) and stand now."),
    Metric("sidecar_tunnels_total", _C, (),
        "Connections that have left HTTP."),
    Metric("sidecar_tunnel_bytes_total", _C, ("direction",),
        "Bytes that they carried, up to the API and down to the client."),
    Metric("sidecar_anomaly_score", _G, ("route", "detector"),
        "A detector's statistic as a part of its threshold: it fires at 1."),
    Metric("sidecar_signals_total", _C, ("route", "detector"),
        "Signals that a detector raised."),
    Metric("sidecar_incidents_current", _G, ("state",),
        "Incidents by state."),
    Metric("sidecar_incidents_total", _C, ("verdict",),
        "Incidents by the verdict that a person gave, counted when it was given."),
    Metric("sidecar_isolations", _G, ("scope_kind", "state"),
        "Isolations in force."),
    Metric("sidecar_overrides_active", _G, (),
        "Overrides in force."),
    Metric("sidecar_silences_active", _G, (),
        "Silences in force: people are not told about their scopes."),
    Metric("sidecar_drills_current", _G, ("route", "kind"),
        "Drills that run: 1 from the fault's beginning until everything is given back."),
    Metric("sidecar_config_version", _G, (),
        "Active config version."),
    Metric("sidecar_config_last_apply_successful", _G, (),
        "1 when the last config change was applied, 0 when it failed."),
    Metric("sidecar_worker_restarts_total", _C, (),
        "Workers that were started again after they died or hung."),
    Metric("sidecar_link_up", _G, ("worker",),
        "1 while the worker's link to the controller stands."),
    Metric("sidecar_link_dropped_total", _C, (),
        "Frames that workers could not send because no controller was there or it did not read; the counts in ticks are not lost."),
    Metric("sidecar_decisions_untold_total", _C, (),
        "Refusals that `sidecar explain` does not know: a worker tells at most 50 decisions a second."),
    Metric("sidecar_access_log_dropped_total", _C, (),
        "Lines of the access log that were not written: the target is too slow, full, or cannot be opened."),
    Metric("sidecar_tls_handshakes_failed_total", _C, (),
        "TLS handshakes of clients that came to nothing: broken off, out of time, or refused; the log has the last reason once a minute."),
    Metric("sidecar_event_loop_lag_seconds", _G, ("process",),
        "Longest delay of a process's event loop within the last second."),
    Metric("sidecar_store_up", _G, (),
        "1 while the store takes what it is given; without it decisions are in force but not durable."),
    Metric("sidecar_notifications_lost_total", _C, ("receiver",),
        "Alerts that could not be delivered and were given up."),
    Metric("sidecar_build_info", _G, ("version",),
        "Always 1; the label is the release."),
)
# fmt: on
