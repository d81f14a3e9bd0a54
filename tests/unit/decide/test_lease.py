"""Leases: who ends them, when they are renewed, and how they survive."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sidecar.decide import lease
from sidecar.decide.lease import Isolation, IsolationState
from sidecar.facts import Action, Moment, Scope

NOW = Moment(1000.0, 1_800_000_000.0)


def isolation(**given: object) -> Isolation:
    """A fresh provisional isolation of checkout, with a lease of 60 s."""
    fresh = Isolation(
        "isolation-7", 3, Scope.route("checkout"), Action.THROTTLE, 0.1, "automation", "it fails", NOW,
        lease.later(NOW, 60.0), busy_at=NOW.at,
    )  # fmt: skip
    return replace(fresh, **given)  # type: ignore[arg-type]


def at(seconds: float) -> Moment:
    """Return the moment so many seconds after the start."""
    return lease.later(NOW, seconds)


@pytest.mark.parametrize(
    ("given", "after_s", "expected"),
    [
        ({"busy_at": 1030.0}, 29.0, False),  # not half over
        ({"busy_at": 1030.0}, 30.0, True),
        ({"busy_at": 999.0}, 59.5, True),
    ],
)
def test_a_lease_is_renewed_at_half_its_length(given: dict[str, object], after_s: float, expected: bool) -> None:
    """
    Whether the scope is asked for or not: an idle one is released, with its reason, it does not run out.
    """
    assert lease.renewal_due(isolation(**given), 60.0, at(after_s)) is expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"busy_at": 1000.0}, True),
        ({"busy_at": 1000.5}, False),  # not yet a whole lease
        ({"busy_at": 900.0, "confirmed_by": "ops"}, False),
        ({"busy_at": 900.0, "holding": True}, False),
    ],
)
def test_a_scope_is_idle_after_a_whole_lease_without_a_request(given: dict[str, object], expected: bool) -> None:
    """
    A person, or the ladder's `hold`, keeps it all the same.
    """
    assert lease.idle(isolation(**given), 60.0, at(60)) is expected


def test_a_renewal_never_shortens() -> None:
    """
    A shorter lease by a live config change leaves the later end.
    """
    assert lease.renew(isolation(), 10.0, at(5)).end == at(60)
    assert lease.renew(isolation(), 60.0, at(30)).end == at(90)


def test_what_passes_is_the_largest_of_base_step_and_floor() -> None:
    """
    The ramp's step replaces the base share; the budget's floor lifts both.
    """
    assert isolation().share_ratio == 0.1
    assert isolation(step_ratio=0.05).share_ratio == 0.05
    assert isolation(floor_ratio=0.2).share_ratio == 0.2
    assert isolation(step_ratio=0.5, floor_ratio=0.2).share_ratio == 0.5


def test_confirming_puts_a_person_behind_it() -> None:
    """
    The state is confirmed, the owner shown is the person, the directive outranks provisional ones.
    """
    confirmed = lease.confirm(isolation(), "ops")

    assert confirmed.state is IsolationState.CONFIRMED
    assert lease.document(confirmed, durable=True)["owner"] == "ops"
    assert confirmed.directive.confirmed


def test_a_recovery_goes_on_when_confirmed_and_returns_to_confirmed() -> None:
    """
    Confirming does not stop a ramp; its last step back is the confirmed state.
    """
    recovering = lease.confirm(lease.step(isolation(), 0.25, at(5)), "ops")

    assert recovering.state is IsolationState.RECOVERING
    assert lease.step(recovering, None, at(6)).state is IsolationState.CONFIRMED
    assert lease.step(isolation(step_ratio=0.25), None, at(6)).state is IsolationState.PROVISIONAL


@pytest.mark.parametrize("state", [IsolationState.RELEASED, IsolationState.EXPIRED, IsolationState.SUPERSEDED])
def test_an_ended_lease_says_who_and_why(state: IsolationState) -> None:
    """
    Its end is the moment at which it really ended.
    """
    ended = lease.end(isolation(), state, "ops", "the API is well", at(20))

    assert not ended.live
    document = lease.document(ended, durable=True)
    assert (state.value, "ops", "the API is well", "2027-01-15T08:00:20.000Z") == tuple(
        document[key] for key in ("state", "ended_by", "ended_why", "end_time")
    )


def test_it_survives_within_the_same_boot_to_the_bit() -> None:
    """
    Through JSON and back: the same isolation, monotonic moments included.
    """
    full = lease.step(lease.confirm(isolation(floor_ratio=0.2, holding=True), "ops"), 0.25, at(5))

    stored = json.loads(json.dumps(lease.to_store(full, "boot-1")))

    assert lease.from_store(stored, "boot-1", at(99)) == full


@pytest.mark.parametrize("boot", ["boot-2", ""])
def test_in_another_boot_the_wall_clock_counts(boot: str) -> None:
    """
    30 s after the start by the wall, 30 s of the lease are left, whatever the monotonic clock says.
    """
    stored = lease.to_store(isolation(), "boot-1" if boot else "")
    now = Moment(5.0, NOW.unix + 30.0)

    taken = lease.from_store(stored, boot, now)

    assert taken.end.at == pytest.approx(35.0)
    assert taken.end.unix == NOW.unix + 60.0


def test_an_ended_one_is_read_back_for_the_timeline() -> None:
    """
    State, who and why are kept.
    """
    ended = lease.end(isolation(), IsolationState.EXPIRED, "automation", "not renewed", at(60))

    taken = lease.from_store(lease.to_store(ended, "b"), "b", at(61))

    assert (taken.state, taken.ended_by, taken.ended_why) == (IsolationState.EXPIRED, "automation", "not renewed")
    assert not taken.live


def test_its_repr_is_for_people() -> None:
    """
    Id, scope, state and share in one line.
    """
    assert repr(isolation()) == "<isolation-7 route:checkout provisional passes 0.1>"
