"""`/metrics`: names, types, labels and values."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from sidecar.controller.collect import EndpointTotals, RouteTotals, Timing, Totals, WorkerTotals
from sidecar.facts import BreakerState
from sidecar.measure import histogram
from sidecar.telemetry.catalogue import CATALOGUE, Kind
from sidecar.telemetry.metrics import MetricViews, render
from sidecar.telemetry.reference import METRICS_PAGE, page

ROOT = Path(__file__).parents[3]
SHOP = RouteTotals(
    arrivals=9,
    again=6,
    outcomes={"success": 5, "failure": 2, "ignored": 0, "cancelled": 2},
    refused={"rate_limited": 2},
    would_refuse={"isolated": 1},
    ended={"upstream_reset": 1, "client_disconnected": 2},
    endings={"cancelled rate_limited": 2, "failure upstream_reset": 1, "success client_disconnected": 2},
    durations={
        "GET 200": Timing(1.25, {histogram.index(0.02): 3, histogram.index(30.0): 1}),
        "_other 500": Timing(0.1, {60: 1}),
    },
    latency=Timing(0.5, {histogram.index(0.2): 2}),
    in_flight=3,
    breaker=BreakerState.HALF_OPEN,
    limits={"route": 2.5, "service": 100.0},
    concurrency_limit=64,
)
TOTALS = Totals(
    routes={"shop": SHOP, "idle": RouteTotals()},
    overhead=Timing(0.002, {1: 4}),
    dropped=7,
    untold=8,
    log_dropped=9,
    handshakes_failed=10,
    endpoints={
        "10.0.0.1:80": EndpointTotals({"up": 2}, 5, 1),
        "10.0.0.2:80": EndpointTotals({"up": 1, "ejected": 1}, 0, 3),
    },
    retries=11,
    retries_denied=12,
    tunnels=3,
    tunnels_opened=4,
    tunnel_bytes={"up": 500, "down": 600},
    workers={0: WorkerTotals(0.2, 0.05, 12, 3, draining=False)},
)
VIEWS = MetricViews(
    scores={("shop", "errors"): 0.5},
    signals={("shop", "errors"): 2},
    incidents_current={"open": 1},
    incidents_by_verdict={"confirmed": 4},
    isolations={("client", "provisional"): 1},
    overrides_active=1,
    silences_active=2,
    drills={("shop", "errors"): 1},
    config_version=7,
    config_apply_ok=False,
    worker_restarts=3,
    links={0: True, 1: False},
    lag_s={"controller": 0.01},
    store_ok=False,
    notifications_lost={"pager": 5},
    version="0.1.0",
)
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(totals: Totals = TOTALS, views: MetricViews = VIEWS) -> Samples:
    families = text_string_to_metric_families(render(totals, views).decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(name: str, found: Samples | None = None, **labels: str) -> float:
    return (found or samples())[name, frozenset(labels.items())]


@pytest.mark.parametrize("totals", [TOTALS, Totals()], ids=["full", "empty"])
def test_promtool_accepts_it(totals: Totals) -> None:
    """Prometheus' own linter has nothing to say, with and without traffic."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (Debian package prometheus) is not installed")
    done = subprocess.run([promtool, "check", "metrics"], input=render(totals, VIEWS), capture_output=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_names_types_and_labels_are_the_golden_ones() -> None:
    """Users' dashboards rest on these: a change here is a breaking change and is written into the golden file by hand."""
    golden = (ROOT / "tests/golden/metrics.txt").read_text(encoding="utf-8")
    shown = "".join(f"{m.name} {m.kind} {','.join(m.labels)}".rstrip() + "\n" for m in CATALOGUE)

    assert shown == golden


def test_every_metric_of_the_catalogue_is_shown_with_its_labels() -> None:
    """Each row has a sample under exactly its labels, and names and explains itself even without one."""
    text = render(Totals(), MetricViews()).decode()
    found = samples()

    for metric in CATALOGUE:
        assert f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n" in text
        name = f"{metric.name}_count" if metric.kind is Kind.HISTOGRAM else metric.name
        labelled = {frozenset(dict(labels)) for shown, labels in found if shown == name}
        assert labelled == {frozenset(metric.labels)}


def test_reference_page_is_up_to_date() -> None:
    """The committed page is the one that the catalogue makes (`make docs` writes it)."""
    assert (ROOT / METRICS_PAGE).read_text(encoding="utf-8") == page()


def test_outcomes_are_split_by_reason_and_add_up() -> None:
    """What had a reason stands under it, the rest under the empty one; together they are all requests that ended."""
    found = {labels: n for (name, labels), n in samples().items() if name == "sidecar_requests_total"}
    rows = {(dict(labels)["outcome"], dict(labels)["reason"]): n for labels, n in found.items()}

    assert rows == {
        ("cancelled", "rate_limited"): 2,
        ("failure", "upstream_reset"): 1,
        ("failure", ""): 1,
        ("success", "client_disconnected"): 2,
        ("success", ""): 3,
    }
    assert sum(rows.values()) == sum(SHOP.outcomes.values())


def test_breaker_state_is_one_hot() -> None:
    """Exactly one state of a route is 1."""
    found = samples()

    states = {
        state.value: value("sidecar_breaker_state", found, route="shop", state=state.value) for state in BreakerState
    }
    assert states == {"closed": 0, "open": 0, "half_open": 1}


def test_values_of_gauges_and_counters() -> None:
    """Each figure arrives under its name."""
    found = samples()

    assert value("sidecar_refused_total", found, route="shop", reason="rate_limited") == 2
    assert value("sidecar_rearrivals_total", found, route="shop") == 6
    assert value("sidecar_would_refuse_total", found, route="shop", reason="isolated") == 1
    assert value("sidecar_in_flight", found, route="shop") == 3
    assert value("sidecar_limit_remaining", found, route="shop", level="route") == 2.5
    assert value("sidecar_concurrency_limit", found, route="shop") == 64
    assert ("sidecar_concurrency_limit", frozenset({("route", "idle")})) not in found
    assert value("sidecar_anomaly_score", found, route="shop", detector="errors") == 0.5
    assert value("sidecar_signals_total", found, route="shop", detector="errors") == 2
    assert value("sidecar_incidents_current", found, state="open") == 1
    assert value("sidecar_incidents_current", found, state="resolved") == 0
    assert value("sidecar_incidents_total", found, verdict="confirmed") == 4
    assert value("sidecar_isolations", found, scope_kind="client", state="provisional") == 1
    assert value("sidecar_overrides_active", found) == 1
    assert value("sidecar_silences_active", found) == 2
    assert value("sidecar_drills_current", found, route="shop", kind="errors") == 1
    assert value("sidecar_config_version", found) == 7
    assert value("sidecar_config_last_apply_successful", found) == 0
    assert value("sidecar_worker_restarts_total", found) == 3
    assert value("sidecar_link_up", found, worker="1") == 0
    assert value("sidecar_link_dropped_total", found) == 7
    assert value("sidecar_decisions_untold_total", found) == 8
    assert value("sidecar_access_log_dropped_total", found) == 9
    assert value("sidecar_tls_handshakes_failed_total", found) == 10
    assert [value("sidecar_endpoint_up", found, endpoint=f"10.0.0.{n}:80") for n in (1, 2)] == [1, 0]
    assert value("sidecar_endpoint_in_flight", found, endpoint="10.0.0.1:80") == 5
    assert value("sidecar_endpoint_ejections_total", found, endpoint="10.0.0.2:80") == 3
    assert [value("sidecar_retries_total", found, result=result) for result in ("sent", "denied")] == [11, 12]
    assert (value("sidecar_tunnels", found), value("sidecar_tunnels_total", found)) == (3, 4)
    assert value("sidecar_tunnel_bytes_total", found, direction="down") == 600
    assert value("sidecar_event_loop_lag_seconds", found, process="worker-0") == 0.05
    assert value("sidecar_event_loop_lag_seconds", found, process="controller") == 0.01
    assert value("sidecar_store_up", found) == 0
    assert value("sidecar_notifications_lost_total", found, receiver="pager") == 5
    assert value("sidecar_build_info", found, version="0.1.0") == 1


def test_request_durations_have_opentelemetrys_buckets() -> None:
    """The histogram is cumulative over OpenTelemetry's bounds, and what is beyond the last is in +Inf and in the count."""
    found = samples()
    labels = {"http_route": "shop", "http_request_method": "GET", "http_response_status_code": "200"}
    name = "http_server_request_duration_seconds"
    bounds = [dict(found_labels)["le"] for (shown, found_labels), _ in found.items() if shown == f"{name}_bucket"]

    assert sorted({float(bound) for bound in bounds}) == [*histogram.OTEL_BOUNDS_S, float("inf")]
    assert value(f"{name}_bucket", found, le="0.01", **labels) == 0
    assert value(f"{name}_bucket", found, le="0.025", **labels) == 3
    assert value(f"{name}_bucket", found, le="10.0", **labels) == 3
    assert value(f"{name}_bucket", found, le="+Inf", **labels) == 4
    assert value(f"{name}_count", found, **labels) == 4
    assert value(f"{name}_sum", found, **labels) == 1.25
    other = labels | {"http_request_method": "_other", "http_response_status_code": "500"}
    assert value(f"{name}_count", found, **other) == 1


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.integers(0, histogram.LAST), st.integers(1, 1000), max_size=20))
def test_buckets_agree_with_the_histograms_own(buckets: dict[int, int]) -> None:
    """The exposition counts exactly what `measure/histogram.py` counts at or below each bound."""
    found = samples(Totals({"r": RouteTotals(latency=Timing(1.0, buckets))}))

    shown = [
        value("sidecar_upstream_duration_seconds_bucket", found, route="r", le=repr(b)) for b in histogram.OTEL_BOUNDS_S
    ]
    assert shown == histogram.cumulative(buckets)
    assert value("sidecar_upstream_duration_seconds_count", found, route="r") == sum(buckets.values())


def test_label_values_are_escaped() -> None:
    """A name with quotes, backslashes or line ends cannot break the exposition."""
    name = 'a"b\\c\nd'
    found = samples(Totals({name: RouteTotals(in_flight=1)}))

    assert value("sidecar_in_flight", found, route=name) == 1
