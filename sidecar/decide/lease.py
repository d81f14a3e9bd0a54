"""
An isolation is a lease: a scope, the share that still passes, an owner, a reason, and an end. It is never "just on".

Theory
    A lease ends by itself when nobody renews it; so a dead controller cannot leave a scope cut off. While a controller
    lives, it renews every lease at half its length. A lease then ends in one of three ways only, each with a cause
    behind it: *released* (recovered on evidence; a person or the ladder's `release` rung said so; or nobody asked for the
    scope during a whole lease and no person keeps it), *expired* (no controller lived), *superseded* (a wider isolation,
    a narrower one that is enough, or a newer config took its place).

Tables
    provisional → confirmed    a person stands behind it
    provisional, confirmed → recovering    the ramp's first step;  back when that step is sick
    provisional, confirmed, recovering → released | expired | superseded    final

    bounds of what passes: share = max(base or step, floor): the base is the policy's, the step the ramp's, the floor
    the blast-radius budget's.

What can go wrong
    The clock jumps: the end is a monotonic moment; the wall end is for people and for another boot.
    A restart: within the same boot the stored monotonic end counts, else the stored wall end.
    A confirmed isolation whose client went away: kept, because a person said so; the incident shows it.
    A scope that nobody asks for gives no trials, so its recovery can never be proven: hence the release when idle. Whoever
    comes back sick is isolated again within seconds, as a flap of the same incident.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from sidecar.facts import Action, Directive, Moment, Scope
from sidecar.incident.words import rfc3339

AUTOMATION: Final = "automation"


class IsolationState(StrEnum):
    """Three live states, three final ones."""

    PROVISIONAL = "provisional"
    CONFIRMED = "confirmed"
    RECOVERING = "recovering"
    RELEASED = "released"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"


LIVE: Final = frozenset({IsolationState.PROVISIONAL, IsolationState.CONFIRMED, IsolationState.RECOVERING})


@dataclass(frozen=True, slots=True)
class Isolation:
    """
    One isolation, live or ended.

    Attributes:
        id: `isolation-N`.
        incident: The incident's number.
        scope, action: What it does to what.
        base_ratio: The share that passes while nothing is recovered.
        owner: `automation`, or who applied it.
        reason: In plain words.
        started, end: On both clocks; `end` moves with each renewal.
        state: See the table above.
        confirmed_by: Who confirmed it; empty while provisional.
        step_ratio: The ramp's share; None while nothing is recovered.
        step_at: Monotonic seconds at which the present step (or the base) began.
        floor_ratio: The least that must pass so that the budget is met.
        busy_at: Monotonic seconds of the last arrival in the scope.
        holding: The ladder said `hold`: renewed even without traffic.
        slow_over_s: Its trials also fail when they take longer; None when only failures count.
        normal_ratio, broken_ratio: Failed (or slow) trials before the onset, and when it was isolated.
        refused, judged, spared: Requests that it refused; of them those that trials of the same seconds speak for, and how
            many of these would have succeeded.
        ended: When; None while live.
        ended_by, ended_why: Who ended it and why.
    """

    id: str
    incident: int
    scope: Scope
    action: Action
    base_ratio: float
    owner: str
    reason: str
    started: Moment
    end: Moment
    state: IsolationState = IsolationState.PROVISIONAL
    confirmed_by: str = ""
    step_ratio: float | None = None
    step_at: float = 0.0
    floor_ratio: float = 0.0
    busy_at: float = 0.0
    holding: bool = False
    slow_over_s: float | None = None
    normal_ratio: float = 0.001
    broken_ratio: float = 1.0
    refused: int = 0
    judged: int = 0
    spared: float = 0.0
    ended: Moment | None = None
    ended_by: str = ""
    ended_why: str = ""

    def __repr__(self) -> str:
        return f"<{self.id} {self.scope} {self.state} passes {self.share_ratio:g}>"

    @property
    def live(self) -> bool:
        """Tell whether it is in force."""
        return self.state in LIVE

    @property
    def share_ratio(self) -> float:
        """Return what passes now."""
        return min(1.0, max(self.base_ratio if self.step_ratio is None else self.step_ratio, self.floor_ratio))

    @property
    def held_state(self) -> IsolationState:
        """Return the live state that it has outside of a recovery."""
        return IsolationState.CONFIRMED if self.confirmed_by else IsolationState.PROVISIONAL

    @property
    def directive(self) -> Directive:
        """Return what the workers need of it."""
        return Directive(
            self.id,
            self.scope,
            self.action,
            self.end.at,
            share_ratio=self.share_ratio,
            confirmed=bool(self.confirmed_by),
            bypass_breaker=True,
            incident=str(self.incident),
        )


def later(now: Moment, seconds: float) -> Moment:
    """Return the moment *seconds* after *now*, on both clocks."""
    return Moment(now.at + seconds, now.unix + seconds)


def confirm(isolation: Isolation, author: str) -> Isolation:
    """Put a person behind it; a recovery that runs goes on."""
    state = isolation.state if isolation.step_ratio is not None else IsolationState.CONFIRMED
    return replace(isolation, state=state, confirmed_by=author)


def renewal_due(isolation: Isolation, lease_s: float, now: Moment) -> bool:
    """Tell whether half of the lease is over."""
    return isolation.end.at - now.at <= lease_s / 2


def idle(isolation: Isolation, lease_s: float, now: Moment) -> bool:
    """Tell whether nobody has asked for the scope during a whole lease, and neither a person nor `hold` keeps it."""
    return now.at - isolation.busy_at >= lease_s and not isolation.confirmed_by and not isolation.holding


def renew(isolation: Isolation, lease_s: float, now: Moment) -> Isolation:
    """Move the end to a whole lease from now; never to an earlier moment."""
    end = later(now, lease_s)
    return replace(isolation, end=end) if end.at > isolation.end.at else isolation


def step(isolation: Isolation, ratio: float | None, now: Moment) -> Isolation:
    """Let *ratio* pass from now on; None goes back to the base share and out of the recovery."""
    state = isolation.held_state if ratio is None else IsolationState.RECOVERING
    return replace(isolation, step_ratio=ratio, step_at=now.at, state=state)


def end(isolation: Isolation, state: IsolationState, by: str, why: str, now: Moment) -> Isolation:
    """End it: `released`, `expired` or `superseded`, by whom and why."""
    return replace(isolation, state=state, ended=now, ended_by=by, ended_why=why)


def document(isolation: Isolation, *, durable: bool) -> dict[str, Any]:
    """Return its public shape."""
    ended = isolation.ended
    return {
        "id": isolation.id,
        "incident": isolation.incident,
        "scope": str(isolation.scope),
        "action": isolation.action.value,
        "share": isolation.share_ratio,
        "share_floor": isolation.floor_ratio or None,
        "state": isolation.state.value,
        "owner": isolation.confirmed_by or isolation.owner,
        "reason": isolation.reason,
        "start_time": rfc3339(isolation.started.unix),
        "end_time": rfc3339((ended or isolation.end).unix),
        "durable": durable,
        "refused": isolation.refused,
        "would_have_succeeded_ratio": isolation.spared / isolation.judged if isolation.judged else None,
        "ended_by": isolation.ended_by or None,
        "ended_why": isolation.ended_why or None,
    }


def to_store(isolation: Isolation, boot: str, trials: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """
    Return the document that the store keeps: the public shape and, under `kept`, what a restart needs.

    Args:
        isolation: Which one.
        boot: The id of this boot.
        trials: What its present step has shown, as its owner writes it.
    """
    kept = {
        "trials": trials,
        "boot": boot,
        "end_at": isolation.end.at,
        "end_unix": isolation.end.unix,
        "started_at": isolation.started.at,
        "started_unix": isolation.started.unix,
        "base": isolation.base_ratio,
        "owner": isolation.owner,
        "confirmed_by": isolation.confirmed_by,
        "step": isolation.step_ratio,
        "step_at": isolation.step_at,
        "floor": isolation.floor_ratio,
        "busy_at": isolation.busy_at,
        "holding": isolation.holding,
        "slow_over_s": isolation.slow_over_s,
        "normal": isolation.normal_ratio,
        "broken": isolation.broken_ratio,
        "cost": [isolation.refused, isolation.judged, isolation.spared],
        "ended_unix": isolation.ended.unix if isolation.ended else None,
    }
    return {**document(isolation, durable=True), "kept": kept}


def shift_s(row: Mapping[str, Any], boot: str, now: Moment) -> float:
    """Return what to add to the monotonic moments of a stored document: 0 within the same boot."""
    kept = row["kept"]
    same = bool(boot) and kept["boot"] == boot
    return 0.0 if same else float((now.at - now.unix) - (kept["end_at"] - kept["end_unix"]))


def from_store(row: Mapping[str, Any], boot: str, now: Moment) -> Isolation:
    """
    Read what `to_store` wrote.

    Within the same boot monotonic moments count; from another boot they are re-made from the wall clock.
    """
    kept, shift = row["kept"], shift_s(row, boot, now)
    over = kept["ended_unix"]
    refused, judged, spared = kept.get("cost", (0, 0, 0.0))
    return Isolation(
        id=row["id"],
        incident=row["incident"],
        scope=Scope.parse(row["scope"]),
        action=Action(row["action"]),
        base_ratio=kept["base"],
        owner=kept["owner"],
        reason=row["reason"],
        started=Moment(kept["started_at"] + shift, kept["started_unix"]),
        end=Moment(kept["end_at"] + shift, kept["end_unix"]),
        state=IsolationState(row["state"]),
        confirmed_by=kept["confirmed_by"],
        step_ratio=kept["step"],
        step_at=kept["step_at"] + shift,
        floor_ratio=kept["floor"],
        busy_at=kept["busy_at"] + shift,
        holding=kept["holding"],
        slow_over_s=kept["slow_over_s"],
        normal_ratio=kept["normal"],
        broken_ratio=kept["broken"],
        refused=refused,
        judged=judged,
        spared=spared,
        ended=None if over is None else Moment(now.at - (now.unix - over), over),
        ended_by=row["ended_by"] or "",
        ended_why=row["ended_why"] or "",
    )
