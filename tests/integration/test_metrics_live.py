"""`/metrics` of a running sidecar: judged by promtool, scraped by a real Prometheus, true to the traffic; memory."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.load import Shot
from tests.support.sidecar import Shop, Sidecar, call, gone, kill, sidecar, until

MOST_BYTES = 120 * 1000 * 1000
ROUTES = [
    {
        "name": "checkout", "match": {"path": "/api/checkout"},
        "limit": {"rate": "500/s", "burst": 500, "per_client": {"rate": "100/s", "burst": 100, "key": "header:x-api-key"}},
        "concurrency": {"max": 64},
        "breaker": {"window": "10s", "min_requests": 20, "error_ratio": "50%", "consecutive": 7, "open": "1s"},
    },
    {"name": "tiny", "match": {"path": "/api/search"}, "limit": {"rate": "1/m", "burst": 1}},
    {"name": "default", "match": {"path": "/**"}},
]  # fmt: skip


@pytest.fixture(scope="module")
def running() -> Iterator[Sidecar]:
    """A sidecar with every guard, in front of the sample API."""
    with Shop() as shop, sidecar(shop.url, routes=ROUTES) as shared:
        yield shared


def samples(text: str, name: str) -> dict[frozenset[tuple[str, str]], float]:
    """Return the samples of one metric by their labels."""
    found = {}
    for line in text.splitlines():
        matched = re.match(rf"{name}(?:{{(.*)}})? (\S+)$", line)
        if matched:
            labels = frozenset(re.findall(r'(\w+)="([^"]*)"', matched[1] or ""))
            found[labels] = float(matched[2])
    return found


def total(running: Sidecar, name: str, **labels: str) -> float:
    """Return the sum of the samples of *name* that carry *labels*."""
    rows = samples(running.observe("/metrics").text, name)
    return sum(value for key, value in rows.items() if set(labels.items()) <= key)


def test_counts_are_those_of_the_clients(running: Sidecar) -> None:
    """
    What the clients sent and got is what the counters say, request for request.
    """
    with running.load(100, (Shot(share=3), Shot("/api/search"))) as load:
        load.wait(150)
    said = [row.status for row in load.results]
    assert said.count(429) > 20

    def counted() -> tuple[float, float, float, float]:
        return (
            total(running, "sidecar_requests_total"),
            total(running, "sidecar_requests_total", outcome="success"),
            total(running, "sidecar_refused_total", route="tiny", reason="rate_limited"),
            total(running, "http_server_request_duration_seconds_count", http_response_status_code="200"),
        )

    wanted = (len(said), said.count(200), said.count(429), said.count(200))
    until(lambda: counted() == wanted, f"the counters say {wanted}, not {counted()}")


def test_promtool_finds_nothing_wrong(running: Sidecar) -> None:
    """
    `promtool check metrics` accepts the whole exposition, after traffic, refusals and an override.
    """
    assert shutil.which("promtool"), "install prometheus (Debian), or run tests/install-peers.sh as root"
    override = {"action": "observe", "ttl": "5m", "reason": "a test"}
    assert running.api("PUT", "/overrides/route:default", override).status == 200
    with running.load(80, (Shot(), Shot("/api/search"), Shot("/nowhere"))) as load:
        load.wait(150)
    until(lambda: total(running, "sidecar_refused_total", route="tiny"), "refusals are counted")
    text = running.observe("/metrics").text
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    assert running.api("DELETE", "/overrides/route:default").status == 200


def test_state_metrics_tell_what_is_so(running: Sidecar) -> None:
    """
    Version, links, breakers one-hot, overrides and the build are there, with the values that the API tells.
    """
    text = running.observe("/metrics").text
    assert samples(text, "sidecar_config_version") == {frozenset(): running.get("/config")["version"]}
    assert samples(text, "sidecar_config_last_apply_successful") == {frozenset(): 1.0}
    assert samples(text, "sidecar_link_up") == {frozenset({("worker", "0")}): 1.0}
    assert samples(text, "sidecar_overrides_active") == {frozenset(): 0.0}
    states = {
        dict(key)["state"]: v
        for key, v in samples(text, "sidecar_breaker_state").items()
        if ("route", "checkout") in key
    }
    assert states == {"closed": 1.0, "open": 0.0, "half_open": 0.0}
    assert sum(samples(text, "sidecar_build_info").values()) == 1.0
    before = total(running, "sidecar_worker_restarts_total")
    victim = running.workers()[0]
    kill(victim)
    until(lambda: gone(victim) and running.serving(), "a new worker serves")
    until(lambda: total(running, "sidecar_worker_restarts_total") == before + 1, "the restart is counted")


def test_a_real_prometheus_scrapes_it(running: Sidecar) -> None:
    """
    Prometheus finds the target up, and has samples of the requests by route.
    """
    program = shutil.which("prometheus")
    assert program, "install prometheus (Debian), or run tests/install-peers.sh as root"
    host, port = running.address("observe")
    with tempfile.TemporaryDirectory(prefix="prom-") as folder:
        config = Path(folder) / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
            f"scrape_configs: [{{job_name: sidecar, static_configs: [{{targets: ['{host}:{port}']}}]}}]\n"
        )
        log = Path(folder) / "log"
        with log.open("wb") as errors:
            prometheus = subprocess.Popen(
                [program, f"--config.file={config}", f"--storage.tsdb.path={folder}/data", "--web.listen-address=127.0.0.1:0"],
                stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
            )  # fmt: skip
        try:
            where = until(lambda: _listening(prometheus.pid, log), "Prometheus listens")
            with running.load(30) as load:
                load.wait(60)
                up = until(lambda: _query(where, "up == 1"), f"the target is up: {log.read_text()[-2000:]}")
                assert up[0]["metric"]["job"] == "sidecar"
                query = 'sidecar_requests_total{route="default",outcome="success"} > 0'
                assert until(lambda: _query(where, query), "it has samples")
                rate = "sum(rate(http_server_request_duration_seconds_count[10s])) > 0"
                assert until(lambda: _query(where, rate), "it has rates")
        finally:
            prometheus.kill()
            prometheus.wait()


def _listening(pid: int, log: Path) -> str | None:
    """Find the port that the kernel chose for Prometheus."""
    assert not gone(pid), log.read_text()
    found = re.search(r"address=\"?(127\.0\.0\.1:[1-9]\d*)", log.read_text())
    return found[1] if found else None


def _query(where: str, query: str) -> list[Any]:
    try:
        answer = call(where, "GET", f"/api/v1/query?{urllib.parse.urlencode({'query': query})}")
    except OSError:
        return []
    return list(json.loads(answer.text)["data"]["result"]) if answer.status == 200 else []


def test_the_whole_sidecar_is_small(running: Sidecar, record_property: Callable[[str, object], None]) -> None:
    """
    After some load all processes together hold at most 120 MB (proportional set size).
    """
    with running.load(200, (Shot(), Shot("/api/checkout", "POST", body=b'{"items": []}'))) as load:
        load.wait(600)
    until(running.serving, "it serves")
    memory = running.memory_bytes()
    record_property("memory_bytes", memory)
    assert sum(memory.values()) <= MOST_BYTES, memory
