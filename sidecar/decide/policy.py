"""
May automation act on this finding? One function, one reason.

Theory
    Raising is cheap, refusing traffic is not. So a finding is acted upon only when every line of the table holds, all of
    it judged on the attributed scope. A breaker trip has seen the requests that detection would otherwise wait for: it
    is severe and satisfies margin, materiality and sample.

Tables (in this order; the first that fails is the reason that the incident shows)
    cause       errors, latency or a trip is among the signals; the others raise only
    endpoint    it is not one endpoint of several: the upstream pool leaves it out, and refusing requests of all mends nothing
    margin      errors or latency at `MARGIN` above their threshold: raising and acting are two levels
    material    the effect is large enough to matter
    sample      at least `min_requests`
    agreement   a second signal, or severe
    verdict     no person has released the same fingerprint
    override    no `allow` or `observe` covers the scope
    mode        nothing on the way is in observe mode; `respond.action` is not observe
    budget      `max_refused` allows to refuse anything at all

What can go wrong
    Two signals of one detector: agreement counts kinds, not signals.
    Observe: the last lines, so that `would have` means that nothing but the mode stood in the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sidecar.decide.budget import Load
from sidecar.decide.overrides import Override
from sidecar.decide.policies import RespondPolicy, Response
from sidecar.decide.sticky import Mark
from sidecar.facts import Action, Detector, Mode, RouteSecond, Scope, ScopeKind, Signal
from sidecar.incident.lifecycle import Proposal
from sidecar.incident.tally import requests_of

MARGIN: Final = 3.0  # detection.md: isolate at h + 3
SAMPLE_RATIO: Final = 0.01  # behaviour.md: what always passes is the larger of 1 % and min(1/s, 10 %)
SAMPLE_PER_S: Final = 1.0
SAMPLE_CAP_RATIO: Final = 0.1
FRESH_FAILURES: Final = 3  # detection.md: fewer bad requests are a hiccup
FRESH_RATIO: Final = 0.05
FADE_S: Final = 10.0

CAUSES: Final = frozenset({Detector.ERRORS, Detector.LATENCY, Detector.TRIP})


class Why(StrEnum):
    """Why automation does not act; the words that the incident shows."""

    ACT = "every condition is met"
    CAUSE = "this kind of signal raises only"
    ENDPOINT = "one endpoint of several fails: the others can serve, so nothing is refused"
    MARGIN = "not yet far enough above the threshold"
    MATERIAL = "the effect is too small to act on"
    SAMPLE = "too few requests"
    AGREEMENT = "one signal alone, and not severe"
    VERDICT = "a person has released the same before"
    OVERRIDE = "an override keeps automation away"
    MODE = "observe mode"
    BUDGET = "respond.max_refused leaves nothing to refuse"

    @property
    def would(self) -> bool:
        """Tell whether only the operator's own settings stood in the way."""
        return self in (Why.MODE, Why.OVERRIDE, Why.BUDGET)


@dataclass(frozen=True, slots=True)
class Case:
    """
    A finding, as this stage needs it.

    Attributes:
        scope: The attributed scope.
        signals: What sounds about it.
        severe: Enough without a second signal.
        agreed: Two kinds of signals agree.
        sample: Judged requests of the scope that the finding rests on.
    """

    scope: Scope
    signals: tuple[Signal, ...]
    severe: bool
    agreed: bool
    sample: int

    @property
    def tripped(self) -> bool:
        """Tell whether a breaker trip is among the signals."""
        return any(signal.detector is Detector.TRIP for signal in self.signals)


def rule(
    case: Case, policy: RespondPolicy, mode: Mode, *, mark: Mark | None = None, override: Override | None = None
) -> Why:
    """
    Return `Why.ACT`, or the first condition of the table that does not hold.

    Args:
        case: The finding.
        policy: How far automation may go.
        mode: The least of all modes on the way (service, detect, respond).
        mark: The verdict that binds it, if any.
        override: The `allow` or `observe` that covers it, if any.
    """
    causes = [signal for signal in case.signals if signal.detector in CAUSES]
    if not causes:
        return Why.CAUSE
    if case.scope.kind is ScopeKind.ENDPOINT:
        return Why.ENDPOINT
    if not case.tripped:
        weak = _weakness(case, causes, policy.min_requests)
        if weak is not None:
            return weak
    if mark is not None:
        return Why.VERDICT
    if override is not None:
        return Why.OVERRIDE
    if mode is not Mode.ENFORCE or policy.action is Response.OBSERVE:
        return Why.MODE
    return Why.ACT if policy.max_refused_ratio > 0 else Why.BUDGET


def _weakness(case: Case, causes: list[Signal], min_requests: int) -> Why | None:
    strong = [signal for signal in causes if signal.score >= signal.threshold + MARGIN]
    if not strong:
        return Why.MARGIN
    if not any(signal.material for signal in strong):
        return Why.MATERIAL
    if case.sample < min_requests:
        return Why.SAMPLE
    return None if case.severe or case.agreed else Why.AGREEMENT


def proven_again(
    signals: tuple[Signal, ...], rows: Sequence[RouteSecond], scope: Scope, since_at: float, now: float
) -> bool:
    """
    Tell whether *signals* rest on harm done after *since_at*, and are not the fading alarm of what ended then.

    Args:
        signals: What sounds.
        rows: The seconds of the scope's routes after *since_at*.
        scope: What sounds about it.
        since_at: When an isolation or the incident ended. `now`: monotonic seconds.
    """
    if any(row.trips for row in rows):
        return True
    total, bad, _ = requests_of(rows, scope)
    errors = any(signal.detector in (Detector.ERRORS, Detector.TRIP) for signal in signals)
    if errors and bad >= FRESH_FAILURES and bad >= FRESH_RATIO * total:
        return True
    others = [signal for signal in signals if signal.detector not in (Detector.ERRORS, Detector.TRIP)]
    return now - since_at >= FADE_S and any(s.material or s.detector is not Detector.LATENCY for s in others)


def propose(
    scope: Scope, signals: tuple[Signal, ...], policy: RespondPolicy, load: Load, window_s: float
) -> Proposal | None:
    """
    Return what automation does to *scope*, or would do; None when isolating cannot help against these signals.

    Args:
        scope: The attributed scope.
        signals: What sounds about it; silence, refusals, burn and drift are not mended by refusing more.
        policy: `action` and `share_ratio`.
        load: Recent arrivals. `window_s`: over how many seconds.
    """
    if scope.kind is ScopeKind.ENDPOINT or all(s.detector in _NO_CURE for s in signals):
        return None
    rate = load.of(scope) / window_s
    if policy.action is Response.ISOLATE:
        return Proposal(scope, Action.ISOLATE, sample_ratio(rate))
    return Proposal(scope, Action.THROTTLE, max(policy.share_ratio, sample_ratio(rate)))


_NO_CURE: Final = frozenset({Detector.SILENCE, Detector.REFUSALS, Detector.BURN, Detector.DRIFT})


def sample_ratio(rate_per_s: float) -> float:
    """Return the share that always passes: the larger of 1 % and min(1/s, 10 %), in whole percents."""
    wanted = SAMPLE_CAP_RATIO if rate_per_s <= 0 else min(SAMPLE_PER_S / rate_per_s, SAMPLE_CAP_RATIO)
    return round(max(SAMPLE_RATIO, wanted), 2)
