"""
The reflex: stop sending to a route that fails, and find out carefully whether it works again.

Theory
    Two orthogonal machines. The *state* says who may pass; the *ramp* (only while closed) says how many.

    state      who passes                       leaves by
    --------   ------------------------------   ------------------------------------------------------------------
    closed     the ramp's share (else all)      trip → open: error ratio ≥ 50 % of ≥ 20, or 7 failures in a row, or
                                                slow ratio ≥ 80 % of ≥ 20
    open       nobody (an isolation's trials)   its time → half_open, also without any request
    half_open  ≤ 5 probes in flight             8 successes of the last 10 → closed; third failure of 10 → open

    ramp       25 % → 50 % → 75 % → 100 %: a step needs its time *and* 8 successes with less than half of the error
               ratio; a step that saw worse starts to count anew. After six windows on one step less than the error ratio
               itself is enough: what does not trip for so long is not the ramp's to hold back. However small the share, one request a second passes,
               so a route with little traffic does not crawl back: a ramp guards against a flood.

    Every move, also one by hand or by another worker, raises the **generation**; an outcome that started in an older
    one is dropped. The n-th trip in a row stays open for min(open·2ⁿ⁻¹, max_open), of which jitter takes up to half:
    hash(seed, scope, generation), so that installs do not probe together and the same tape gives the same moves (an
    empty seed means no jitter). A healthy window takes one step back; a trip older than ten times max_open is forgotten.

Outcomes
    success, failure   counted where their generation is still the current one
    ignored            neutral, resets nothing; only in half_open a 4xx is a success, else a route of 404s never closes
    cancelled          never reached the upstream; only returns its probe slot
    slow               a first byte later than `slow`; a request in flight counts as soon as its age passes it, once.
                       In half_open a slow success is a failed probe

What can go wrong
    A probe that never ends: each slot has its own deadline, where no first byte means a failure and a first byte a
    success (a stream). A trip on 1 of 1: no ratio judges under `min_requests`. Two ramps that multiply: the trial
    requests of an isolation that covers the route are not refused here; they are this breaker's probes, and when they
    close it there is no second ramp. A clock that steps back: no bucket ends, no time runs out, nothing is granted.
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass
from typing import Final, Protocol

from sidecar.facts import BreakerState, Mode, Outcome
from sidecar.guard.policies import BreakerPolicy
from sidecar.guard.ring import Ring
from sidecar.reasons import Reason, Refusal

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
_SUCCESS, _FAILURE, _IGNORED = Outcome.SUCCESS, Outcome.FAILURE, Outcome.IGNORED
NOT_COUNTED: Final = -1  # the generation of a ticket that no breaker listens to
_NEVER: Final = float("inf")
_SOON_S: Final = 1.0  # when to ask again while others probe or ramp
_FORGET: Final = 10.0  # × max_open
_PATIENCE: Final = 6.0  # windows


@dataclass(frozen=True, slots=True)
class TripEvent:
    """A breaker moved to open by what it saw itself; `enforced` is false for one that only observes."""

    route: str
    at: float
    generation: int
    rule: str
    detail: str
    open_s: float
    enforced: bool = True


class Asked(Protocol):
    """What the breaker reads and writes of a ticket."""

    generation: int
    first_byte_at: float | None
    slow: bool
    trial: bool


def jittered(open_s: float, seed: str, route: str, generation: int) -> float:
    """Return *open_s* less up to half of it, by a hash instead of a die; an empty *seed* takes nothing."""
    if not seed:
        return open_s
    digest = hashlib.blake2b(f"{seed}|route:{route}|{generation}".encode(), digest_size=8).digest()
    return open_s * (1.0 - int.from_bytes(digest, "big") / 2.0**65)


class Breaker:
    """The breaker of one route in one worker."""

    __slots__ = (
        "_decay_at", "_events", "_last_passed_at", "_level", "_outcomes", "_probes", "_ramp_credit", "_route", "_seed",
        "_step", "_step_at", "_step_failures", "_step_successes", "_tripped_at", "_until_at", "_why", "consecutive", "free",
        "generation", "observed", "policy", "ring", "slow_s", "state", "trips",
    )  # fmt: skip

    def __init__(self, route: str, policy: BreakerPolicy, seed: str, events: list[TripEvent], now: float) -> None:
        self._route, self._seed, self._events = route, seed, events
        self.generation = self.trips = self.consecutive = 0
        self.state: BreakerState = CLOSED
        self._why = ""
        self._level = self._step = self._step_successes = self._step_failures = 0
        self._tripped_at = self._until_at = self._step_at = self._decay_at = now
        self._ramp_credit = 0.0
        self._last_passed_at = -_NEVER
        self.free = True
        self._probes: dict[Asked, float] = {}
        self._outcomes: deque[bool] = deque()
        self.ring = Ring(policy.window_s, now)
        self.observed = False
        self._bind(policy)
        self._start_ramp(len(policy.ramp), now)

    def __repr__(self) -> str:
        step = f" ramp={self.share:.0%}" * (self.state is CLOSED and not self.free)
        return f"<Breaker {self._route} {self.state} g{self.generation}{step} probes={len(self._probes)} {self.ring}>"

    # --- settings ------------------------------------------------------------------------------------------------

    def _bind(self, policy: BreakerPolicy) -> None:
        self.policy = policy
        self.slow_s = _NEVER if policy.slow_s is None else policy.slow_s

    def apply(self, policy: BreakerPolicy, overall: Mode, seed: str, now: float) -> None:
        """Go on under *policy* in the same state; only another window starts to count anew."""
        self._seed = seed
        self.observed = Mode.OBSERVE in (policy.mode, overall)
        if policy == self.policy:
            return
        if policy.window_s != self.policy.window_s:
            self.ring = Ring(policy.window_s, now)
        self._step = len(policy.ramp) if self.free else min(self._step, len(policy.ramp))
        self._bind(policy)
        self._outcomes = deque(self._outcomes, policy.close_window)
        self.free = self.state is CLOSED and self.share >= 1.0

    # --- admission -----------------------------------------------------------------------------------------------

    @property
    def share(self) -> float:
        """Return the share that the ramp passes."""
        return self.policy.ramp[self._step] if self._step < len(self.policy.ramp) else 1.0

    @property
    def probing(self) -> int:
        """Count the probe slots that are taken."""
        return len(self._probes)

    def ask(self, now: float) -> Refusal | None:
        """Refuse one request or let it pass; the caller then gives its ticket to `admit`."""
        if self.state is OPEN and now >= self._until_at:
            self._move(HALF_OPEN, now)
        if self.state is OPEN:
            return self._refusal(self._until_at - now, f"open, {self._why}")
        if self.state is HALF_OPEN:
            self._expire_probes(now)
            if self.state is not HALF_OPEN:
                return self.ask(now)
            if len(self._probes) >= self.policy.probes:
                return self._refusal(_SOON_S, f"half open, {len(self._probes)} probes in flight")
            return None
        return None if self.free else self._ask_ramp(now)

    def admit(self, ticket: Asked, now: float) -> None:
        """Count *ticket*, which `ask` let pass: a probe takes its slot."""
        ticket.generation = self.generation
        if self.state is HALF_OPEN:
            self._probes[ticket] = now + self.policy.probe_timeout_s

    def admit_trial(self, ticket: Asked, now: float) -> None:
        """Count *ticket*, which an isolation of the route let pass: a probe without a slot, never refused here."""
        if self.state is OPEN and now >= self._until_at:
            self._move(HALF_OPEN, now)
        ticket.generation = self.generation
        ticket.trial = True

    def _ask_ramp(self, now: float) -> Refusal | None:
        self._ramp_credit += self.share
        if self._ramp_credit < 1.0 and now - self._last_passed_at < 1.0:
            return self._refusal(_SOON_S, f"closing, {self.share:.0%} pass")
        self._ramp_credit = max(0.0, self._ramp_credit - 1.0)
        self._last_passed_at = now
        return None

    def _refusal(self, retry_after_s: float, detail: str) -> Refusal:
        return Refusal(Reason.BREAKER_OPEN, retry_after_s, "breaker", detail)

    # --- outcomes ------------------------------------------------------------------------------------------------

    def record(
        self,
        ticket: Asked,
        outcome: Outcome,
        now: float,
        latency_s: float | None,
        client_error: bool,  # noqa: FBT001 - hot path: positional
    ) -> None:
        """Take the outcome of *ticket*, which is of the current generation."""
        ring = self.ring
        if now >= ring.end_at:
            ring.rotate(now)
        if self.state is not CLOSED:
            self._record_probe(ticket, outcome, now, latency_s, client_error=client_error)
            return
        if outcome is _SUCCESS:
            ring.judged += 1
            self.consecutive = 0
        elif outcome is _FAILURE:
            ring.judged += 1
            ring.failures += 1
            self.consecutive += 1
        else:
            return
        slow = ticket.slow
        if latency_s is not None and not slow:
            ring.timed += 1
            if latency_s >= self.slow_s:
                ring.slow += 1
                slow = True
        if ring.failures or ring.slow:
            self.judge(now)
        if not self.free:
            self._climb(now, failed=slow or outcome is _FAILURE)

    def overdue(self, ticket: Asked, now: float) -> None:
        """Take note that *ticket* is in flight for longer than `slow` and has no first byte."""
        if ticket.generation != self.generation or self.state is not CLOSED:
            return
        self.ring.rotate(now)
        self.ring.timed += 1
        self.ring.slow += 1

    def judge(self, now: float) -> None:
        """Trip when a rule says so; compared with ≥."""
        if self.state is not CLOSED:
            return
        policy, ring = self.policy, self.ring
        if policy.consecutive and self.consecutive >= policy.consecutive:
            self._trip(now, "consecutive", f"{self.consecutive} failures in a row")
        elif ring.judged >= policy.min_requests and ring.failures >= policy.error_ratio * ring.judged:
            self._trip(now, "error_ratio", f"{ring.failures} of {ring.judged} failed in {policy.window_s:g}s")
        elif ring.timed >= policy.min_requests and ring.slow >= policy.slow_ratio * ring.timed:
            self._trip(now, "slow_ratio", f"{ring.slow} of {ring.timed} slower than {self.slow_s:g}s")

    def _record_probe(
        self, ticket: Asked, outcome: Outcome, now: float, latency_s: float | None, *, client_error: bool
    ) -> None:
        probe = self._probes.pop(ticket, None) is not None
        if self.state is HALF_OPEN and (probe or ticket.trial):
            if outcome is _FAILURE or (outcome is _SUCCESS and (ticket.slow or (latency_s or 0.0) >= self.slow_s)):
                self._probed(now, success=False, trial=ticket.trial)
            elif outcome is _SUCCESS or (outcome is _IGNORED and client_error):
                self._probed(now, success=True, trial=ticket.trial)

    def _probed(self, now: float, *, success: bool, trial: bool) -> None:
        self._outcomes.append(success)
        good = sum(self._outcomes)
        bad = len(self._outcomes) - good
        if bad >= self.policy.reopen_failures:
            self._trip(now, "probes", f"{bad} of {len(self._outcomes)} probes failed")
        elif good >= self.policy.close_successes:
            self._move(CLOSED, now)
            self._start_ramp(len(self.policy.ramp) if trial else 0, now)

    def _expire_probes(self, now: float) -> None:
        for ticket, deadline in list(self._probes.items()):
            if now >= deadline and self._probes.pop(ticket, None) is not None:
                ticket.generation = NOT_COUNTED
                self._probed(now, success=ticket.first_byte_at is not None, trial=False)

    # --- moves ---------------------------------------------------------------------------------------------------

    def _move(self, state: BreakerState, now: float) -> None:
        self.state = state
        self.generation += 1
        self.consecutive = 0
        self.free = False
        self.ring.clear(now)
        self._probes.clear()
        self._outcomes = deque(maxlen=self.policy.close_window)

    def _trip(self, now: float, rule: str, detail: str) -> None:
        self._escalate(now)
        wanted = min(self.policy.open_s * 2.0 ** (self._level - 1), self.policy.max_open_s)
        self._move(OPEN, now)
        open_s = jittered(wanted, self._seed, self._route, self.generation)
        self._until_at = now + open_s
        self._why = detail
        self.trips += 1
        self._events.append(TripEvent(self._route, now, self.generation, rule, detail, open_s, not self.observed))

    def _escalate(self, now: float) -> None:
        if now - self._tripped_at > _FORGET * self.policy.max_open_s:
            self._level = 0
        self._level = min(self._level + 1, 64)
        self._tripped_at = now

    def open_until(self, until_at: float, detail: str, now: float) -> None:
        """Open because another worker's breaker tripped; no trip of our own."""
        if self.state is not OPEN:
            self._escalate(now)
            self._move(OPEN, now)
            self._until_at = until_at
            self._why = f"another worker: {detail}"
        self._until_at = max(self._until_at, until_at)

    def reset(self, now: float) -> None:
        """Close by hand: no ramp, no memory."""
        self._move(CLOSED, now)
        self._level = 0
        self._start_ramp(len(self.policy.ramp), now)

    def _start_ramp(self, step: int, now: float) -> None:
        self._step = step
        self._step_at = now
        self._step_successes = self._step_failures = 0
        self._ramp_credit = 0.0
        self._last_passed_at = -_NEVER
        self.free = self.state is CLOSED and self.share >= 1.0
        self._decay_at = now + self.policy.window_s

    def _climb(self, now: float, *, failed: bool) -> None:
        """Count one more outcome on the ramp's step, where a slow one is a failure; climb on evidence and time."""
        if self.state is not CLOSED:
            return
        self._step_failures += failed
        self._step_successes += not failed
        judged = self._step_successes + self._step_failures
        patient = now - self._step_at < _PATIENCE * self.policy.window_s
        bad = self._step_failures >= self.policy.error_ratio * judged * (0.5 if patient else 1.0)
        if bad and judged >= self.policy.close_window:
            self._step_successes = self._step_failures = 0
        if not bad and self._step_successes >= self.policy.close_successes:
            self._try_step(now)

    def _try_step(self, now: float) -> None:
        if now - self._step_at >= self.policy.ramp_step_s:
            self._start_ramp(self._step + 1, now)

    def tick(self, now: float) -> None:
        """Let time act: an open breaker half-opens, overdue probes end, a healthy window takes back one step."""
        self.ring.rotate(now)
        if self.state is OPEN and now >= self._until_at:
            self._move(HALF_OPEN, now)
        elif self.state is HALF_OPEN:
            self._expire_probes(now)
        elif self.state is CLOSED:
            self.judge(now)
            self._decay(now)

    def _decay(self, now: float) -> None:
        if not self.free or now < self._decay_at:
            return
        self._decay_at = now + self.policy.window_s
        ring = self.ring
        if ring.judged and ring.failures < self.policy.error_ratio / 2.0 * ring.judged:
            self._level = max(0, self._level - 1)
