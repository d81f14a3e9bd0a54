"""Worlds that the plays about the engine begin with."""

from __future__ import annotations

from typing import Any

from tests.support.world import Flow, World

OUTAGE_S = 3  # a total outage at 10 requests/s or more is acted upon within these seconds


def warm(*flows: Flow, **given: Any) -> World:
    """Return a world whose detectors have learnt what is normal."""
    return World(*(flows or shop()), **given).run(60)


def shop() -> list[Flow]:
    """Two routes with four clients each, 20 requests a second on each route."""
    return [Flow(route, f"c{i}", 5.0) for route in ("checkout", "search") for i in range(4)]


def break_route(world: World, route: str = "checkout", fail: float = 1.0) -> None:
    """Let the API fail on one route."""
    for flow in world.flows:
        if flow.route == route:
            flow.fail = fail


def broken(**given: Any) -> World:
    """Return a world whose checkout has just been isolated."""
    world = warm(**given)
    break_route(world)
    world.until(world.live, OUTAGE_S)
    return world
