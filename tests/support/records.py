"""What the store has of an incident that was played."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sidecar.controller import effects as fx
from sidecar.controller.commands import Acknowledge, Confirm, Note
from sidecar.incident.postmortem.draft import Record
from tests.support.plays import break_route, broken
from tests.support.world import World


def record(world: World, number: int = 1, **given: Any) -> Record:
    """Return what the store has of an incident, with what is *given* instead."""
    events = [
        {"sequence": i, "unix": e.unix, "kind": e.kind, "author": e.author, "scope": e.scope, "body": e.body}
        for i, e in enumerate(world.of(fx.AppendEvent), start=1)
        if e.incident == number
    ]
    kept = Record(world.incident(number), events, world.engine.evidence(number), world.engine.account(number))
    return replace(kept, **given)


def ended() -> World:
    """An outage of 30 s that was acknowledged, confirmed and recovered."""
    world = broken()
    world.run(5)
    world.command(Acknowledge(1, "lea"))
    world.command(Note(1, "lea", "the | database `was`\nfailed over"))
    world.run(5)
    world.command(Confirm(1, "lea"))
    world.run(20)
    break_route(world, fail=0.0)
    world.until(lambda: world.incident()["state"] == "resolved", 60)
    return world
