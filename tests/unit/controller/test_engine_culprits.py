"""Culprits that leave: what they did is nobody else's."""

from __future__ import annotations

import pytest

from sidecar.controller.commands import Confirm
from sidecar.detect.policies import DetectPolicy
from tests.support.plays import warm
from tests.support.world import Flow, World, compiled


@pytest.mark.parametrize("confirmed", [False, True])
def test_a_client_that_failed_and_left_leaves_no_incident_of_its_route(*, confirmed: bool) -> None:
    """
    The route's alarm stands for a while on what the client did; the incident stays the client's, and no other one opens.
    """
    patient = DetectPolicy(warmup_s=10.0, clear_after_s=60.0)
    world: World = warm(*(Flow("checkout", name, 10.0) for name in ("a", "b", "bad")), config=compiled(detect=patient))
    world.flows[2] = Flow("checkout", "bad", 80.0, fail=1.0)
    world.until(lambda: world.engine.incidents(None, world.now), 20)
    assert world.incident()["scope"] == "client:checkout:bad"
    world.run(20)
    if confirmed:
        world.command(Confirm(1, "ops"))
    del world.flows[2]
    world.run(90)
    (found,) = world.engine.incidents(None, world.now)
    assert (found["scope"], "bad" in found["title"]) == ("client:checkout:bad", True)
