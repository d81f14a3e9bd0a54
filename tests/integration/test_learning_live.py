"""An outage on a running sidecar teaches something, and a person applies it."""

from __future__ import annotations

from typing import Any

from tests.support.load import Shot
from tests.support.sidecar import Shop, Sidecar, sidecar, until


def ended(running: Sidecar) -> dict[str, Any] | None:
    """Return the first incident when it has been resolved."""
    rows = running.get("/incidents")["items"]
    return next((row for row in rows if row["state"] in ("resolved", "closed")), None)


def test_what_an_outage_teaches_is_applied_by_a_person() -> None:
    """
    A route without a breaker fails: afterwards a breaker is proposed with its measured effect; applied, it is a version
    of the source `proposal` that waits for its confirmation.
    """
    with Shop() as shop, sidecar(shop.url) as running, running.load(60.0, (Shot(),)):
        until(lambda: running.api("GET", "/tape", past="5m").text.count("\n") >= 12, "12 seconds are recorded")
        shop.breaks(errors=1.0)
        until(lambda: running.get("/incidents")["items"], "an incident")
        shop.breaks()
        until(lambda: ended(running), "it is resolved")
        made = until(lambda: running.get("/proposals", state="open")["items"], "a proposal")
        wanted = next(row for row in made if row["kind"] == "breaker")
        assert wanted["effect"]["requests"] > 0
        admin = "http://{}:{}".format(*running.address("admin"))
        shown = running.cli("--admin", admin, "proposal", "show", str(wanted["id"]))
        assert (shown.returncode, "breaker" in shown.stdout) == (0, True), shown
        applied = running.cli("--admin", admin, "proposal", "apply", str(wanted["id"]), "--confirm-within", "5m")
        assert applied.returncode == 0, applied.stderr
        version = running.get("/config/versions")["items"][0]
        assert (version["source"], version["state"]) == ("proposal", "confirming")
        assert running.cli("--admin", admin, "config", "confirm").returncode == 0
        refused = running.cli("--admin", admin, "proposal", "dismiss", str(wanted["id"]))
        assert (refused.returncode, "is applied" in refused.stderr) == (1, True)
