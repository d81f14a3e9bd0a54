"""
Who had no part in it keeps its requests: incidents with a known culprit, counted request by request behind the real guard.

The cases of `tests/unit/detect/test_attribution_cases.py` ask whether the culprit is named; these ask what the others pay.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache

import pytest

from sidecar.controller.commands import Confirm, Done
from sidecar.controller.respond import NARROWS_S
from sidecar.decide.policy import Case
from sidecar.facts import Moment, Scope
from sidecar.guard.policies import BreakerPolicy
from tests.support.culprits import KINDS, WARM_S, Shop
from tests.support.innocents import Loop

BROKEN_S = 60
CLIENTS = range(0, 200, 2 * len(KINDS))
OTHERS = [seed for seed in range(60) if KINDS[seed % len(KINDS)] not in ("client", "endpoint")][::4]


def gateways(count: int, *, weight: float = 1.0) -> list[Shop]:
    """Shops whose gateway, with 60 % of all requests or more, is the client that fails."""
    clients = (Shop(seed) for seed in itertools.count(0, len(KINDS)))
    found = list(itertools.islice((shop for shop in clients if "gateway" in shop.clients), count))
    for shop in found:
        shop.name = "gateway"
        shop.clients["gateway"] *= weight
    return found


@cache
def all_played() -> tuple[Loop, ...]:
    """Return the cases, played once: small clients, gateways, and other culprits; with breakers."""
    shops = [*map(Shop, CLIENTS), *gateways(12), *map(Shop, OTHERS)]
    return tuple(
        Loop(shop, breaker=BreakerPolicy()).run(WARM_S, broken=False).run(BROKEN_S, broken=True) for shop in shops
    )


def test_innocent_clients_keep_their_requests() -> None:
    """
    The other clients of the culprit's route, and all clients of the other routes, keep at least 99 % in every case.
    """
    for loop in all_played():
        assert loop.share() >= 0.99, loop
        if loop.shop.kind == "client":
            assert loop.share(loop.shop.route, but=loop.shop.name) >= 0.99, loop


def test_the_culprits_are_held_back() -> None:
    """
    So the innocent are not spared because nothing is done: clients that fail are throttled, and nobody else is.
    """
    guilty = [loop for loop in all_played() if loop.shop.kind == "client"]
    held = [loop for loop in guilty if loop.acted]

    assert len(held) >= 0.5 * len(guilty)
    assert all(loop.acted == [Scope.client(loop.shop.route, loop.shop.name)] for loop in held), held
    assert all(loop.kept_of(loop.shop.route, loop.shop.name) < 0.9 for loop in held), held


@pytest.fixture
def too_wide() -> Loop:
    """A gateway with nearly all requests fails: at first nobody can tell that the others do not."""
    shop = gateways(3, weight=4.0)[-1]
    loop = Loop(shop).run(WARM_S, broken=False)
    loop.until(lambda: loop.acted, 30)
    assert loop.acted == [Scope.route(shop.route)]
    return loop


def test_what_was_isolated_too_widely_is_narrowed(too_wide: Loop) -> None:
    """
    When the trials show that only one client fails, it alone stays isolated, and the others are served again.
    """
    loop, shop = too_wide, too_wide.shop
    culprit = Scope.client(shop.route, shop.name)
    begun_s = loop.now.at
    loop.until(lambda: culprit in loop.acted, 120)

    assert loop.now.at - begun_s >= NARROWS_S
    wide, narrow = loop.isolations.values()
    assert (wide["state"], wide["ended_why"]) == ("superseded", f"only {culprit} fails")
    assert (narrow["scope"], narrow["incident"]) == (str(culprit), wide["incident"])
    loop.forget()
    loop.run(30, broken=True)
    assert loop.share(shop.route, but=shop.name) >= 0.99
    assert loop.kept_of(shop.route, shop.name) < 0.75


def test_the_trials_add_up_until_they_show_who_it_is() -> None:
    """
    Twelve gateways with 86 % of their route's requests: each one is isolated alone, within two minutes at most.
    """
    for shop in gateways(12, weight=4.0):
        loop = Loop(shop).run(WARM_S, broken=False)
        loop.until(lambda loop=loop, shop=shop: Scope.client(shop.route, shop.name) in loop.acted, 120)  # type: ignore[misc]


def test_what_is_claimed_of_the_whole_is_not_narrowed(too_wide: Loop) -> None:
    """
    Seconds that name somebody else, or the route as well, begin the five seconds anew.
    """
    responder, now = too_wide.engine._responder, too_wide.now
    (wide,) = too_wide.engine._book.live()
    signal = next(signal for signal in too_wide.engine.claims if signal.scope == wide.scope)

    def narrows(at: float, name: str, *, also: Scope | None = None) -> bool:
        scopes = [Scope.client(wide.scope.name, name), *([also] if also else [])]
        cases = [Case(scope, (replace(signal, scope=scope),), True, True, 100) for scope in scopes]
        return responder._narrows(wide, cases[0], cases, Moment(now.at + at, now.unix + at))

    assert [narrows(at, "a") for at in (0.0, 4.0, 5.0)] == [False, False, True]
    assert [narrows(at, "b") for at in (6.0, 10.0, 11.0)] == [False, False, True]
    assert not narrows(12.0, "b", also=wide.scope)
    assert [narrows(at, "b") for at in (13.0, 17.0, 18.0)] == [False, False, True]


def test_what_a_person_confirmed_stays_as_it_is(too_wide: Loop) -> None:
    """
    A person stands behind the wide one: automation does not make it narrower.
    """
    loop = too_wide
    answer, effects = loop.engine.command(Confirm(1, "ops"), loop.now)
    assert isinstance(answer, Done)
    loop.take(effects)
    loop.run(60, broken=True)
    assert loop.acted == [Scope.route(loop.shop.route)]
