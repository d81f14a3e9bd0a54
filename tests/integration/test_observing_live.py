"""A detector that only observes, and a replay of what happened, on a running sidecar."""

from __future__ import annotations

import json
from typing import Any

from sidecar.incident.words import unix_of
from tests.support.load import Shot
from tests.support.sidecar import Shop, Sidecar, sidecar, until

ROUTE = {"name": "default", "match": {"path": "/**"}, "client_key": "header:x-api-key"}
OTHERS = dict.fromkeys(
    ("latency", "surge", "silence", "refusals", "trip", "burn", "drift"), "off"
)  # a busy machine is slow
CLIENTS = tuple(Shot(client=name) for name in ("web", "mobile", "kiosk"))


def incident(running: Sidecar) -> dict[str, Any] | None:
    """Return the first incident, if there is one."""
    return next(iter(running.get("/incidents")["items"]), None)


def test_a_detector_that_observes_makes_a_would_have_incident_that_nobody_is_told_of() -> None:
    """
    Everything fails: it is listed and can be judged, status and its scorecard say what would have been; nothing is
    isolated and no message leaves. When the config lets it raise, it raises.
    """
    observing = {**ROUTE, "detect": {"detectors": {"errors": "observe", **OTHERS}}}
    with Shop() as shop, sidecar(shop.url, routes=[observing]) as running, running.load(60.0, CLIENTS):
        admin = "http://{}:{}".format(*running.address("admin"))
        until(lambda: running.api("GET", "/tape", past="5m").text.count("\n") >= 8, "8 seconds are recorded")
        shop.breaks(errors=1.0)
        found = until(lambda: incident(running), "a would-have incident")
        assert (found["observed"], found["isolations"]) == (True, [])
        assert running.cli("--admin", admin, "incident", "confirm", str(found["id"])).returncode == 0
        status = running.cli("--admin", admin, "status").stdout
        assert "1 would-have incident of detectors that only observe" in status
        shown = running.cli("--admin", admin, "control", "show", "detect.errors:default")
        assert (shown.returncode, "observes by the config" in shown.stdout) == (0, True), shown
        assert "1 of 1 judged confirmed" in shown.stdout
        refused = running.cli("--admin", admin, "control", "promote", "detect.errors:default")
        assert (refused.returncode, "routes.default.detect.detectors.errors" in refused.stderr) == (1, True), refused
        kinds = [event["kind"] for event in running.get("/audit", limit=200)["items"]]
        assert not {"incident.notified", "isolation.started"} & set(kinds)
        running.config["routes"] = [{**ROUTE, "detect": {"detectors": OTHERS}}]
        assert running.apply(running.text).status == 200
        until(lambda: any(not row["observed"] for row in running.get("/incidents")["items"]), "a real incident")


def test_what_happened_live_happens_in_its_replay() -> None:
    """
    One client fails: the tape of it raises about the same client, at the same second.
    """
    watched = {**ROUTE, "detect": {"detectors": OTHERS}}
    with Shop() as shop, sidecar(shop.url, routes=[watched]) as running, running.load(60.0, CLIENTS):
        until(lambda: running.api("GET", "/tape", past="5m").text.count("\n") >= 10, "10 seconds are recorded")
        shop.breaks(errors=1.0, client="kiosk")
        live = until(lambda: incident(running), "an incident")
        admin = "http://{}:{}".format(*running.address("admin"))
        done = running.cli("--admin", admin, "simulate", "--record", "tape.jsonl", "--for", "1s", "--past", "10m")
        assert done.returncode == 0, done.stderr
        played = running.cli("simulate", "tape.jsonl", "-c", str(running.file), "-o", "json")
        assert played.returncode == 0, played.stderr
        events = [json.loads(line) for line in played.stdout.splitlines()]
        alarm = next(row for row in events if row["event"] == "alarm" and row["detector"] == "errors")
        assert live["scope"].startswith("client:default:h-")
        assert alarm["scope"] == live["scope"]
        assert abs(alarm["t"] - unix_of(live["opened_time"])) <= 2.0
