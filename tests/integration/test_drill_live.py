"""A drill on a running sidecar, from the command line: real requests meet it, and the loop is graded."""

from __future__ import annotations

from tests.support.load import Shot
from tests.support.sidecar import Shop, sidecar, until

METRIC = 'sidecar_requests_total{outcome="ignored",reason="drill",route="default"}'


def test_an_errors_drill_passes_and_leaves_no_trace_in_the_counts() -> None:
    """
    Every stage meets its target and the exit code is 0; the requests that met it are neither failures nor successes.
    """
    with Shop() as shop, sidecar(shop.url) as running, running.load(60.0, (Shot(),)) as load:
        until(lambda: len(load.results) > 600, "the detectors have learnt")
        admin = "http://{}:{}".format(*running.address("admin"))
        done = running.cli("--admin", admin, "drill", "errors", "--route", "default", "--for", "10s")
        assert done.returncode == 0, (done.stdout, done.stderr)
        (drill,) = running.get("/drills")["items"]
        assert drill["state"] == "passed"
        assert all(row["met"] for row in drill["stages"])
        metrics = running.observe("/metrics").text
        assert 'outcome="failure"' not in metrics
        assert 'reason="drill"' in metrics
        incident = running.get("/incidents")["items"][0]
        assert incident["drill"]
        assert running.get("/proposals")["items"] == []
