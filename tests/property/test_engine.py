"""
The engine under every interleaving of seconds, faults, people, configs, trips and restarts.

Two worlds get the same inputs: their effects must be the same, byte for byte. What must hold after each step stands in
the invariants.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sidecar.controller import effects as fx
from sidecar.controller.commands import (
    Acknowledge,
    ClearOverride,
    Close,
    Command,
    Confirm,
    Note,
    Release,
    ReleaseVerdict,
    SetOverride,
)
from sidecar.decide import budget
from sidecar.decide.policies import LadderStep, RollbackMode, Rung
from sidecar.facts import Action, Scope
from tests.support.world import QUICK, Flow, World, compiled

ROUTES = ("checkout", "search")
SCOPES = ("route:checkout", "route:search", "client:checkout:c0", "client:search:c1", "service")
INCIDENT_STATES = {"open", "acknowledged", "mitigated", "resolved", "closed"}
VERDICTS = {"pending", "confirmed", "false_positive", "benign"}
RESOLUTIONS = {None, "recovered", "released", "superseded", "expired"}
LIVE = {"provisional", "confirmed", "recovering"}
LADDER = (Rung(7.0, LadderStep.ESCALATE), Rung(12.0, LadderStep.PROBE), Rung(40.0, LadderStep.RELEASE))
MAX_REFUSED = 0.6

numbers = st.integers(1, 3)
commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(Acknowledge, numbers, st.just("ops")),
    st.builds(Confirm, numbers, st.just("ops")),
    st.builds(Release, numbers, st.just("ops"), st.sampled_from(ReleaseVerdict)),
    st.builds(Note, numbers, st.just("ops"), st.sampled_from(["", "seen"])),
    st.builds(Close, numbers, st.just("ops")),
    st.builds(
        SetOverride,
        st.sampled_from(SCOPES).map(Scope.parse),
        st.sampled_from([Action.ISOLATE, Action.ALLOW, Action.OBSERVE]),
        st.sampled_from([3.0, 30.0]),
        st.just("why"),
        st.just("ops"),
    ),
    st.builds(ClearOverride, st.sampled_from(SCOPES).map(Scope.parse), st.just("ops")),
)


def world() -> World:
    """Two routes with three clients each; automation may refuse 60 %; the ladder is short."""
    respond = replace(
        QUICK, lease_s=20.0, ladder=LADDER, max_refused_ratio=MAX_REFUSED, rollback=RollbackMode.AUTO, clear_after_s=3.0
    )
    flows = [Flow(route, f"c{i}", 8.0) for route in ROUTES for i in range(3)]
    return World(*flows, config=compiled(ROUTES, respond=respond))


class Engines(RuleBasedStateMachine):
    """Two engines in lockstep."""

    def __init__(self) -> None:
        super().__init__()
        self.worlds = (world(), world())
        self.version = 1

    @initialize()
    def warm(self) -> None:
        """Let the detectors learn."""
        for each in self.worlds:
            each.run(40)

    @rule(seconds=st.integers(1, 12))
    def wait(self, seconds: int) -> None:
        """Play some seconds; after each the budget holds."""
        for _ in range(seconds):
            for each in self.worlds:
                each.second()
            self.within_budget()

    @rule(flow=st.integers(0, 5), fail=st.sampled_from([0.0, 0.3, 1.0]))
    def break_client(self, flow: int, fail: float) -> None:
        """One client fails, or is well again."""
        for each in self.worlds:
            each.flows[flow].fail = fail

    @rule(route=st.sampled_from(ROUTES), fail=st.sampled_from([0.0, 0.2, 1.0]))
    def break_route(self, route: str, fail: float) -> None:
        """One route fails, or is well again."""
        for each in self.worlds:
            for flow in each.flows:
                if flow.route == route:
                    flow.fail = fail

    @rule(per_s=st.sampled_from([0.0, 8.0, 40.0]), flow=st.integers(0, 5))
    def load(self, per_s: float, flow: int) -> None:
        """One client goes, returns, or floods."""
        for each in self.worlds:
            each.flows[flow].per_s = per_s

    @rule(command=commands)
    def say(self, command: Command) -> None:
        """A person says something."""
        answers = [each.command(command) for each in self.worlds]
        assert answers[0] == answers[1]

    @rule(touched=st.sets(st.sampled_from(SCOPES[:2])), source=st.sampled_from(["api", "rollback"]))
    def apply(self, touched: set[str], source: str) -> None:
        """A config version becomes active."""
        self.version += 1
        for each in self.worlds:
            each.apply(self.version, touched=sorted(touched), source=source)

    @rule(route=st.sampled_from(ROUTES))
    def trip(self, route: str) -> None:
        """A breaker opens."""
        for each in self.worlds:
            each.trip(route)

    @rule(boot=st.sampled_from([None, "another boot"]), away_s=st.sampled_from([0.0, 2.0, 30.0]))
    def restart(self, boot: str | None, away_s: float) -> None:
        """The controller dies at any moment; what is in force and not over goes on."""
        boot = boot and f"{boot} {self.version} {self.worlds[0].now.unix}"
        for each in self.worlds:
            before = in_force(each, away_s)
            each.restart(boot=boot, away_s=away_s)
            assert before == in_force(each, 0.0)

    # --- what always holds

    def within_budget(self) -> None:
        """Automation refuses no more than its budget of the last ten seconds' arrivals."""
        each = self.worlds[0]
        shares = {Scope.parse(row["scope"]): row["share"] for row in each.live()}
        load = each.engine._history.load(each.now.at - budget.WINDOW_S, each.engine._book.live())
        assert budget.refused(shares, load) <= MAX_REFUSED * load.total + 1e-6

    @invariant()
    def same_inputs_same_effects(self) -> None:
        """Two engines never differ."""
        assert self.worlds[0].effects == self.worlds[1].effects

    @invariant()
    def one_live_isolation_per_scope(self) -> None:
        """Controllers do not fight."""
        scopes = [row["scope"] for row in self.worlds[0].live()]
        assert len(scopes) == len(set(scopes))

    @invariant()
    def directives_are_what_is_in_force(self) -> None:
        """Whatever ended is not in the directives, whatever is in force is."""
        each = self.worlds[0]
        told = {directive.id for directive in each.engine._book.directives()}
        sent = [effect for effect in each.effects if isinstance(effect, fx.SetDirectives)]
        assert told == ({directive.id for directive in sent[-1].items} if sent else set())
        live = {row["id"] for row in each.live()} | {f"override-{r['scope']}" for r in each.engine.overrides(each.now)}
        assert live == told

    @invariant()
    def documents_speak_the_contract(self) -> None:
        """Every document is JSON, and every state a word of the contract; only running incidents isolate."""
        each = self.worlds[0]
        json.dumps(each.engine.status(each.now))
        for incident in each.engine.incidents(None, each.now):
            json.dumps(incident)
            assert incident["state"] in INCIDENT_STATES
            assert incident["verdict"] in VERDICTS
            assert incident["resolution"] in RESOLUTIONS
            assert (incident["resolution"] is None) == (incident["state"] in ("open", "acknowledged", "mitigated"))
            if any(row["state"] in LIVE for row in incident["isolations"]):
                assert incident["resolution"] is None
        for isolation in each.live():
            assert isolation["state"] in LIVE
            assert each.engine.incident(isolation["incident"], each.now) is not None

    @invariant()
    def once_is_once(self) -> None:
        """Evidence is frozen once, and automation rolls back at most once, per incident."""
        for kind in (fx.PutEvidence, fx.Rollback):
            numbers_of = [effect.incident for effect in self.worlds[0].of(kind)]
            assert len(numbers_of) == len(set(numbers_of))


def in_force(each: World, away_s: float) -> list[Any]:
    """Return what still is in force *away_s* from now: isolations with their share, overrides, running incidents."""
    until = each.now.unix + away_s
    book = each.engine._book
    isolations = [(i.id, i.share_ratio, i.state) for i in book.live() if i.end.unix > until]
    overrides = [(o.id, o.action) for o in book.overrides.values() if o.end.unix > until]
    incidents = [(i.id, i.scope, i.state, i.verdict, i.flaps) for i in book.running()]
    return [sorted(isolations), sorted(overrides), incidents]


Engines.TestCase.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestEngines = Engines.TestCase
