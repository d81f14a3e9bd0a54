"""
The stages of the story: what is done, what is expected, what was measured.

A stage is a function of the world that returns its checks. Everything is measured at the clients, at the admin API or
at the webhook's receiver, never inside the sidecar.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sidecar import clock
from sidecar.demo.world import World, pause
from sidecar.incident.words import duration, percent

OTHERS = ("web", "mobile", "kiosk")
LEARNING = ("detect.errors", "detect.latency")  # the traffic forecast takes its time; nothing here rests on it


@dataclass(frozen=True, slots=True)
class Check:
    """One expectation and what became of it."""

    expected: str
    measured: str
    ok: bool


def _live(world: World, **wanted: str) -> Mapping[str, Any] | None:
    """Return the newest incident that is not over and whose scope begins as wanted."""
    for row in world.get("/status")["incidents"]:
        if row["scope"].startswith(wanted.get("scope", "")):
            found: Mapping[str, Any] = row
            return found
    return None


def _suspecting(world: World) -> Mapping[str, Any] | None:
    """Return the incident that suspects a config version; others may run beside it."""
    for row in world.get("/status")["incidents"]:
        if row["suspect"]:
            found: Mapping[str, Any] = row
            return found
    return None


def _failing(world: World, route: str) -> Mapping[str, Any] | None:
    """Return the incident of a route whose requests fail."""
    for row in world.get("/status")["incidents"]:
        if route in row["scope"] and any(signal["detector"] in ("errors", "trip") for signal in row["signals"]):
            found: Mapping[str, Any] = row
            return found
    return None


def _is(world: World, incident: Mapping[str, Any], *states: str) -> Mapping[str, Any] | None:
    row: Mapping[str, Any] = world.get(f"/incidents/{incident['id']}")
    return row if row["state"] in states else None


def _isolated(world: World, scope: str) -> Mapping[str, Any] | None:
    row = _live(world, scope=scope)
    return (
        row if row is not None and any(i["state"] in ("provisional", "confirmed") for i in row["isolations"]) else None
    )


def warm_up(world: World) -> Iterator[Check]:
    """Steady traffic of four clients; the detectors learn what is normal."""
    world.traffic.start()

    def cold() -> list[str]:
        rows = world.get("/controls")["items"]
        return [row["name"] for row in rows if row["state"] == "cannot run" and row["name"] in LEARNING]

    _, took = world.until(30, lambda: not cold())
    left = cold()
    yield Check(
        "the detectors have learnt their baselines",
        f"{duration(took)}, {len(left)} cannot run yet {left[:3] or ''}",
        not left,
    )
    since = clock.now()
    pause(3)
    tally = world.traffic.tally(since)
    yield Check("all requests pass", f"{percent(tally.good_ratio)} of {tally}", tally.good_ratio > 0.99)
    raised = [incident["title"] for incident in world.get("/status")["incidents"]]
    yield Check("no incident", "; ".join(raised) or "none", not raised)


def bad_config(world: World) -> Iterator[Check]:
    """Somebody applies a limit of 1/s to the checkout."""
    file = world.folder / "bad.yaml"
    file.write_text(world.config("1/s", 1), encoding="utf-8")
    applied = world.cli("config", "apply", str(file), "--reason", "tidy up the limits")
    yield Check(
        "the version is applied on every worker", _last(applied.stdout + applied.stderr), applied.returncode == 0
    )
    version = world.get("/config")["version"]

    incident, took = world.until(15, lambda: _suspecting(world))
    named = incident["suspect"]["version"] if incident else None
    yield Check(
        f"version {version} is named as first suspect", f"version {named} after {duration(took)}", named == version
    )
    command = incident["commands"][0] if incident else ""
    yield Check("the first command to type is the rollback", command or "none", "config rollback" in command)
    rolled = world.cli(*command.split()[1:]) if command.startswith("sidecar ") else world.cli("config", "rollback")
    yield Check("`sidecar config rollback` is done", _last(rolled.stdout + rolled.stderr), rolled.returncode == 0)
    pause(0.5)
    since = clock.now()
    pause(3)
    tally = world.traffic.tally(since, path="/api/checkout")
    yield Check("the checkout passes at once", f"{percent(tally.good_ratio)} of {tally}", tally.good_ratio > 0.97)
    if incident:
        over, took = world.until(20, lambda: _is(world, incident, "resolved", "closed"))
        yield Check(
            "the incident resolves", f"{over['state'] if over else 'not'} after {duration(took)}", over is not None
        )


def one_client(world: World) -> Iterator[Check]:
    """Every request of the client `partner` begins to fail; the others' do not."""
    since = clock.now()
    world.break_shop(errors=1.0, client="partner")
    incident, took = world.until(15, lambda: _isolated(world, "client:checkout:h-"))
    yield Check(
        "only this client is throttled",
        f"{incident['scope'] if incident else 'nothing'} after {duration(took)}",
        incident is not None,
    )
    pause(4)
    others = world.traffic.tally(since, clients=OTHERS)
    yield Check("the others keep ≥ 99 %", f"{percent(others.good_ratio)} of {others}", others.good_ratio >= 0.99)
    partner = world.traffic.tally(clock.now() - 3, clients=("partner",))
    yield Check("it is answered 429", f"{partner}", partner.statuses[429] > partner.total / 2)
    world.break_shop()
    yield from _recovers(world, incident, "partner")


def outage(world: World) -> Iterator[Check]:
    """The shop's checkout breaks for everybody."""
    alerts_before = len(world.traffic.alerts)
    began = clock.now()
    world.break_shop(errors=1.0, path="/api/checkout")
    found, took = world.until(10, lambda: _failing(world, "route:checkout"))
    yield Check(
        "detected within 3 s",
        f"{duration(took)}: {found['title'] if found else 'nothing'}",
        found is not None and took <= 3.5,
    )
    incident, _ = world.until(10, lambda: _isolated(world, "route:checkout"))
    isolation = incident["isolations"][-1] if incident else None
    what = (
        f"{isolation['action']} to {percent(isolation['share'])} until {isolation['end_time'][11:19]}Z"
        if isolation
        else "nothing"
    )
    yield Check(
        "isolated under a lease",
        f"{what}, {duration(clock.now() - began)} after the first failure",
        isolation is not None,
    )
    if incident is None:
        return
    evidence = world.get(f"/incidents/{incident['id']}/evidence")
    yield Check(
        "the evidence is frozen",
        f"{len(str(evidence)):,} characters: {', '.join(list(evidence)[:6])}, …",
        bool(evidence),
    )
    alert, took = world.until(5, lambda: next((a for a in world.traffic.alerts[alerts_before:] if a["urgent"]), None))
    yield Check(
        "a signed alert reaches the webhook",
        f"{alert['kind'] if alert else 'none'}, {world.traffic.forged} forged",
        alert is not None,
    )
    confirmed = world.cli("incident", "confirm", str(incident["id"]))
    yield Check("the operator confirms", _last(confirmed.stdout + confirmed.stderr), confirmed.returncode == 0)
    since = clock.now()
    pause(2)
    others = world.traffic.tally(since, path="/api/products")
    yield Check("other routes are not touched", f"{percent(others.good_ratio)} of {others}", others.good_ratio > 0.99)
    world.break_shop()
    yield from _recovers(world, incident, "")


def false_alarm(world: World) -> Iterator[Check]:
    """A partner's planned test makes a third of the searches fail. A person releases it; it comes again."""
    world.break_shop(errors=0.35, path="/api/search")
    incident, took = world.until(20, lambda: _failing(world, "search"))
    yield Check(
        "an incident is raised",
        f"{incident['title'] if incident else 'nothing'} after {duration(took)}",
        incident is not None,
    )
    if incident is None:
        world.break_shop()
        return
    number = str(incident["id"])
    released = world.cli("incident", "release", number, "--verdict", "false_positive", "--reason", "a planned test")
    yield Check("released as false_positive", _last(released.stdout + released.stderr), released.returncode == 0)
    since = clock.now()
    pause(6)
    tally = world.traffic.tally(since, path="/api/search")
    held = tally.statuses[429] + tally.statuses[503]
    again = [row for row in world.get("/isolations")["items"] if "search" in row["scope"]]
    live = [row for row in world.get("/status")["incidents"] if "search" in row["scope"]]
    yield Check(
        "it is not raised again",
        f"{held} refused, {len(again)} isolations, {len(live)} incidents in 6 s",
        not held and not again and not live,
    )
    world.break_shop()


def learn(world: World) -> Iterator[Check]:
    """What is left: the drafts, and a record that can be trusted."""
    incidents = world.get("/incidents")["items"]
    worst = next((row for row in incidents if row["severity"] == "severe" and row["scope"] == "route:checkout"), None)
    text = world.cli("incident", "postmortem", str(worst["id"])).stdout if worst else ""
    (world.folder / "postmortem.md").write_text(text, encoding="utf-8")
    headings = [line.lstrip("# ") for line in text.splitlines() if line.startswith("## ")]
    yield Check("a post-mortem draft", f"{len(text.splitlines())} lines: {', '.join(headings)}", len(headings) >= 5)
    verified = world.cli("audit", "verify")
    yield Check("`sidecar audit verify`", _last(verified.stdout + verified.stderr), verified.returncode == 0)


def _recovers(world: World, incident: Mapping[str, Any] | None, client: str) -> Iterator[Check]:
    if incident is None:
        return
    shares: list[float] = []

    def over() -> Mapping[str, Any] | None:
        row: Mapping[str, Any] = world.get(f"/incidents/{incident['id']}")
        share = row["isolations"][-1]["share"] if row["isolations"] else None
        if share is not None and (not shares or shares[-1] != share):
            shares.append(share)
        return row if row["state"] in ("resolved", "closed") else None

    done, took = world.until(40, over)
    steps = " → ".join(percent(share) for share in shares)
    yield Check(
        "it recovers step by step on evidence",
        f"{steps}, {done['resolution'] if done else 'not over'} after {duration(took)}",
        done is not None and len(shares) >= 3,
    )
    since = clock.now()
    pause(1.5)
    tally = world.traffic.tally(since, path="/api/checkout", clients=(client,) if client else None)
    yield Check("everything passes again", f"{percent(tally.good_ratio)} of {tally}", tally.good_ratio > 0.97)


def _last(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[-1] if lines else "no output"
