"""The whole loop on real processes: the API breaks, the sidecar notices, acts, tells, is told, and gives back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.load import Shot
from tests.support.sidecar import Shop, Sidecar, kill, sidecar, until
from tests.support.upstream import Upstream

ORDER = b'{"items": [{"product": 7, "quantity": 1}]}'
PER_CLIENT = {"rate": "500/s", "burst": 1000, "key": "header:x-api-key"}
ROUTES = [
    {"name": "checkout", "match": {"path": "/api/checkout"}, "limit": {"per_client": PER_CLIENT}},
    {"name": "default", "match": {"path": "/**"}, "limit": {"per_client": PER_CLIENT}},
]
CLIENTS = ("web", "mobile", "partner", "kiosk")
SHOTS = (*tuple(Shot("/api/checkout", "POST", client, ORDER) for client in CLIENTS), Shot(client="web", share=2))


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    """The sample API."""
    with Shop() as shop:
        yield shop


def incident_of(running: Sidecar, scope: str, *states: str) -> dict[str, Any] | None:
    """Return the newest incident on *scope* (a prefix), in one of *states* when given."""
    for row in running.get("/incidents")["items"]:
        if row["scope"].startswith(scope) and (not states or row["state"] in states):
            return dict(row)
    return None


def live(incident: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the isolations of *incident* that are in force."""
    return [i for i in incident["isolations"] if i["state"] in ("provisional", "confirmed", "recovering")]


def test_the_api_breaks_and_recovers(shop: Shop) -> None:
    """
    A broken route is isolated under a lease with frozen evidence and an alert; confirmed; a killed controller and a
    restart forget nothing of it; when the API recovers the ramp gives everything back and the incident resolves.
    """
    with Upstream() as pager:
        notify = [{"type": "webhook", "name": "pager", "url": f"{pager.url}/alerts"}]
        with sidecar(shop.url, routes=ROUTES, notify=notify) as running, running.load(60, SHOTS) as load:
            load.wait(60 * 6)
            assert not load.failed, load.said()
            shop.breaks(errors=1.0, path="/api/checkout")
            found = until(lambda: incident_of(running, "route:checkout", "open"), "it is detected")
            number = found["id"]
            assert found["severity"] == "severe"

            def isolated() -> dict[str, Any] | None:
                row = running.get(f"/incidents/{number}")
                return row if live(row) else None

            incident = until(isolated, "it is isolated")
            assert (incident["verdict"], live(incident)[0]["state"]) == ("pending", "provisional")
            assert "errors" in {signal["detector"] for signal in incident["signals"]}
            evidence = running.get(f"/incidents/{number}/evidence")
            assert evidence
            load.wait(10, that=lambda row: row.shot.method == "POST" and row.status == 503)
            load.wait(20, that=lambda row: row.shot.method == "GET" and row.status == 200)
            assert b"/alerts" in pager.next_request().head

            confirmed = running.api("POST", f"/incidents/{number}/confirm", role="operator").body
            assert (confirmed["verdict"], live(confirmed)[0]["state"]) == ("confirmed", "confirmed")
            lease = live(confirmed)[0]

            kill(running.controller())
            until(lambda: "the supervisor lives" in running.observe("/livez").text or running.serving(), "an answer")
            until(running.serving, "a new controller serves")
            after = running.get(f"/incidents/{number}")
            assert [(i["id"], i["state"], i["share"]) for i in live(after)] == [
                (lease["id"], "confirmed", lease["share"])
            ]
            assert (after["verdict"], after["opened_time"]) == ("confirmed", incident["opened_time"])
            assert evidence == running.get(f"/incidents/{number}/evidence")
            load.wait(10, that=lambda row: row.shot.method == "POST" and row.status == 503)

            shop.breaks()
            until(lambda: incident_of(running, "route:checkout", "resolved"), "it resolves")
            ended = running.get(f"/incidents/{number}")
            assert (ended["resolution"], live(ended)) == ("recovered", [])
            load.wait(30, that=lambda row: row.shot.method == "POST" and row.status == 201)
            drafts = [running.api("GET", f"/incidents/{number}/postmortem{kind}").text for kind in ("", ".html")]
            assert "The breaker of `route:checkout` opened" in drafts[0] or "**Detected** by errors" in drafts[0]
            assert "| 1 | " in drafts[0]
            running.environ = {**running.environ, "TZ": "Asia/Kolkata"}
            running.restart()
            again = [running.api("GET", f"/incidents/{number}/postmortem{kind}").text for kind in ("", ".html")]
            assert drafts == again
            assert running.get("/audit/verify")["ok"] is True
            kinds = {row["kind"] for row in running.get("/audit", limit=200)["items"]}
            assert {"incident.opened", "isolation.started", "incident.resolved"} <= kinds, kinds


def test_one_client_alone_is_cut_off(shop: Shop) -> None:
    """
    When only one client's requests fail only that client is isolated; the others keep everything; release gives back.
    """
    with sidecar(shop.url, routes=ROUTES) as running, running.load(60, SHOTS) as load:
        load.wait(60 * 6)
        shop.breaks(errors=1.0, client="partner")
        found = until(lambda: incident_of(running, "client:checkout:h-"), "it is detected on the client")
        until(lambda: live(running.get(f"/incidents/{found['id']}")), "it is isolated")
        load.wait(5, that=lambda row: row.shot.client == "partner" and row.status == 429)
        others = [row for row in load.results if row.shot.client != "partner"]
        assert {row.status for row in others} <= {200, 201}, load.said(others)
        assert b"partner" not in str(running.get("/incidents")).encode()

        shop.breaks()
        verdict = {"verdict": "false_positive", "reason": "a test"}
        released = running.api("POST", f"/incidents/{found['id']}/release", verdict, role="operator").body
        assert (released["verdict"], live(released)) == ("false_positive", [])
        load.wait(20, that=lambda row: row.shot.client == "partner" and row.status == 201)


def test_a_restart_keeps_an_incident_and_its_lease(shop: Shop) -> None:
    """
    A restart in the middle of an incident takes up the incident, its lease and its directive where they were.
    """
    with sidecar(shop.url, routes=ROUTES) as running:
        with running.load(60, SHOTS) as load:
            load.wait(60 * 6)
            shop.breaks(errors=1.0, path="/api/checkout")
            found = until(lambda: incident_of(running, "route:checkout", "open"), "it is detected")
            until(lambda: live(running.get(f"/incidents/{found['id']}")), "it is isolated")
        before = running.get(f"/incidents/{found['id']}")
        running.restart()
        after = running.get(f"/incidents/{found['id']}")
        assert after["opened_time"] == before["opened_time"]
        assert [i["id"] for i in live(after)] == [i["id"] for i in live(before)]
        with running.load(40, SHOTS) as load:
            load.wait(10, that=lambda row: row.shot.method == "POST" and row.status == 503)
        shop.breaks()
