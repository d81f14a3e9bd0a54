"""
`/metrics`: the collector's totals and the controller's views as Prometheus' text exposition.

Every metric stands in `catalogue.py`; a sample under another name or with other labels is a KeyError in the tests.
Labels are bounded before they come here: routes and receivers by the config, reasons, outcomes, states and detectors
by their enumerations, methods and statuses by the workers and `controller/counts.py` (overflow `_other`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from sidecar.controller.collect import UP, RouteTotals, Timing, Totals
from sidecar.controller.views import MetricViews
from sidecar.facts import BreakerState
from sidecar.measure.histogram import MIDDLE_S
from sidecar.telemetry.catalogue import CATALOGUE, Kind, Metric

__all__ = ["MetricViews", "render"]

_ROWS: Final = {metric.name: metric for metric in CATALOGUE}
# Always shown, so that a rate over the first one is right: states and verdicts as in the contract.
_INCIDENT_STATES: Final = ("open", "acknowledged", "mitigated", "resolved", "closed")
_VERDICTS: Final = ("confirmed", "false_positive", "benign")
_Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


def render(totals: Totals, views: MetricViews) -> bytes:
    """Return the text exposition (format 0.0.4)."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(totals, views))
    return generate_latest(registry)


class _Snapshot(Collector):
    """One scrape."""

    def __init__(self, totals: Totals, views: MetricViews) -> None:
        self._families = {name: _family(metric) for name, metric in _ROWS.items()}
        for route, row in totals.routes.items():
            self._traffic(route, row)
            self._guards(route, row)
        self._time("sidecar_overhead_seconds", (), totals.overhead)
        self._upstream(totals)
        self._loop(views)
        self._processes(totals, views)

    def collect(self) -> Iterator[_Family]:
        """Yield every family, in the catalogue's order; one without a sample still names and explains itself."""
        yield from self._families.values()

    def _traffic(self, route: str, row: RouteTotals) -> None:
        for pair, timing in row.durations.items():
            method, _, status = pair.rpartition(" ")
            self._time("http_server_request_duration_seconds", (route, method, status), timing)
        for (outcome, reason), count in _by_outcome_and_reason(row).items():
            self._put("sidecar_requests_total", (route, outcome, reason), count)
        self._time("sidecar_upstream_duration_seconds", (route,), row.latency)
        self._put("sidecar_in_flight", (route,), row.in_flight)

    def _guards(self, route: str, row: RouteTotals) -> None:
        for reason, count in row.refused.items():
            self._put("sidecar_refused_total", (route, reason), count)
        self._put("sidecar_rearrivals_total", (route,), row.again)
        for reason, count in row.would_refuse.items():
            self._put("sidecar_would_refuse_total", (route, reason), count)
        for state in BreakerState:
            self._put("sidecar_breaker_state", (route, state.value), row.breaker is state)
        for level, tokens in row.limits.items():
            self._put("sidecar_limit_remaining", (route, level), tokens)
        if row.concurrency_limit is not None:
            self._put("sidecar_concurrency_limit", (route,), row.concurrency_limit)

    def _upstream(self, totals: Totals) -> None:
        for endpoint, row in totals.endpoints.items():
            self._put("sidecar_endpoint_up", (endpoint,), set(row.standings) == {UP})
            self._put("sidecar_endpoint_in_flight", (endpoint,), row.in_flight)
            self._put("sidecar_endpoint_ejections_total", (endpoint,), row.ejections)
        self._put("sidecar_retries_total", ("sent",), totals.retries)
        self._put("sidecar_retries_total", ("denied",), totals.retries_denied)
        self._put("sidecar_tunnels", (), totals.tunnels)
        self._put("sidecar_tunnels_total", (), totals.tunnels_opened)
        for way in ("up", "down"):
            self._put("sidecar_tunnel_bytes_total", (way,), totals.tunnel_bytes.get(way, 0))

    def _loop(self, views: MetricViews) -> None:
        for labels, score in views.scores.items():
            self._put("sidecar_anomaly_score", labels, score)
        for labels, count in views.signals.items():
            self._put("sidecar_signals_total", labels, count)
        for state in _INCIDENT_STATES:
            self._put("sidecar_incidents_current", (state,), views.incidents_current.get(state, 0))
        for verdict in _VERDICTS:
            self._put("sidecar_incidents_total", (verdict,), views.incidents_by_verdict.get(verdict, 0))
        for labels, count in views.isolations.items():
            self._put("sidecar_isolations", labels, count)
        self._put("sidecar_overrides_active", (), views.overrides_active)
        self._put("sidecar_silences_active", (), views.silences_active)
        for labels, count in views.drills.items():
            self._put("sidecar_drills_current", labels, count)

    def _processes(self, totals: Totals, views: MetricViews) -> None:
        self._put("sidecar_config_version", (), views.config_version)
        self._put("sidecar_config_last_apply_successful", (), views.config_apply_ok)
        self._put("sidecar_worker_restarts_total", (), views.worker_restarts)
        for worker, up in views.links.items():
            self._put("sidecar_link_up", (str(worker),), up)
        self._put("sidecar_link_dropped_total", (), totals.dropped)
        self._put("sidecar_decisions_untold_total", (), totals.untold)
        self._put("sidecar_access_log_dropped_total", (), totals.log_dropped)
        self._put("sidecar_tls_handshakes_failed_total", (), totals.handshakes_failed)
        lags = dict(views.lag_s) | {f"worker-{worker}": row.lag_s for worker, row in totals.workers.items()}
        for process, lag_s in lags.items():
            self._put("sidecar_event_loop_lag_seconds", (process,), lag_s)
        self._put("sidecar_store_up", (), views.store_ok)
        for receiver, count in views.notifications_lost.items():
            self._put("sidecar_notifications_lost_total", (receiver,), count)
        self._put("sidecar_build_info", (views.version,), 1)

    def _put(self, name: str, labels: tuple[str, ...], value: float) -> None:
        family = self._families[name]
        assert isinstance(family, CounterMetricFamily | GaugeMetricFamily), name
        family.add_metric(labels, float(value))

    def _time(self, name: str, labels: tuple[str, ...], timing: Timing) -> None:
        family = self._families[name]
        assert isinstance(family, HistogramMetricFamily), name
        family.add_metric(labels, buckets=_cumulative(timing, _ROWS[name].bounds_s), sum_value=timing.sum_s)


def _family(metric: Metric) -> _Family:
    match metric.kind:
        case Kind.COUNTER:
            return CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
        case Kind.GAUGE:
            return GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
        case Kind.HISTOGRAM:
            return HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)


def _by_outcome_and_reason(row: RouteTotals) -> Mapping[tuple[str, str], int]:
    """Split the outcomes: those with a reason under it, the rest under the empty one."""
    rows: dict[tuple[str, str], int] = {}
    rest = dict(row.outcomes)
    for ending, count in row.endings.items():
        outcome, _, reason = ending.partition(" ")
        rows[outcome, reason] = count
        rest[outcome] = rest.get(outcome, 0) - count
    return rows | {(outcome, ""): count for outcome, count in rest.items() if count > 0}


def _cumulative(timing: Timing, bounds_s: tuple[float, ...]) -> list[tuple[str, float]]:
    """Return Prometheus' cumulative buckets; each of ours is counted whole on the side where its middle lies."""
    counts = [0] * (len(bounds_s) + 1)
    for index, count in timing.buckets.items():
        counts[bisect_left(bounds_s, MIDDLE_S[index])] += count
    names = (*map(repr, bounds_s), "+Inf")
    return [(name, float(count)) for name, count in zip(names, accumulate(counts), strict=True)]
