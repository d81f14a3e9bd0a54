"""
Playbooks: a guard's behaviour as a script of moments, requests and answers.

```python
play = Playbook(breaker(consecutive=7, open_s=5, probes=5))
play.at(0.0).send(7, outcome=FAILURE)
play.at(0.1).expect(Refuse(BREAKER_OPEN, retry_after_s=approx(4.9)))
```
Time never moves by itself. A mismatch shows the script as expected beside the script as it went.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from sidecar.facts import Action, Directive, Outcome, Scope
from sidecar.guard.guard import Guard, RouteGuard, Ticket
from sidecar.guard.policies import (
    BreakerPolicy,
    BucketPolicy,
    ConcurrencyPolicy,
    GuardPolicy,
    LimitMode,
    LimitPolicy,
    RoutePolicy,
)
from sidecar.reasons import Reason, Refusal

SUCCESS, FAILURE, IGNORED, CANCELLED = Outcome.SUCCESS, Outcome.FAILURE, Outcome.IGNORED, Outcome.CANCELLED
PENDING: Final = None  # the outcome of a request that has not ended yet

RATE_LIMITED, CLIENT_THROTTLED, ISOLATED = Reason.RATE_LIMITED, Reason.CLIENT_THROTTLED, Reason.ISOLATED
BREAKER_OPEN, CONCURRENCY_LIMITED, OVERRIDDEN = Reason.BREAKER_OPEN, Reason.CONCURRENCY_LIMITED, Reason.OVERRIDDEN

ROUTE: Final = "checkout"


@dataclass(frozen=True)
class Refuse:
    """An expected no; what is None may be anything. Numbers may be `pytest.approx`."""

    reason: Reason
    retry_after_s: object = None
    rule: str | None = None

    def matches(self, answer: Ticket | Refusal) -> bool:
        """Tell whether *answer* is this no."""
        return (
            isinstance(answer, Refusal)
            and answer.reason is self.reason
            and (self.retry_after_s is None or bool(answer.retry_after_s == self.retry_after_s))
            and (self.rule is None or answer.rule == self.rule)
        )

    def __str__(self) -> str:
        details = [str(self.reason)]
        details += [f"retry_after_s={self.retry_after_s}"] if self.retry_after_s is not None else []
        details += [f"rule={self.rule}"] if self.rule is not None else []
        return f"<< refuse {' '.join(details)}"


@dataclass(frozen=True)
class Admit:
    """An expected yes, with what observing controls would have said, and the directive that let it pass."""

    would: tuple[Reason, ...] = ()
    directive: str | None = None

    def matches(self, answer: Ticket | Refusal) -> bool:
        """Tell whether *answer* is this yes."""
        return (
            isinstance(answer, Ticket)
            and tuple(item.refusal.reason for item in answer.would) == self.would
            and answer.directive == self.directive
        )

    def __str__(self) -> str:
        would = f" would={','.join(self.would)}" if self.would else ""
        return f"<< admit{would}" + (f" directive={self.directive}" if self.directive else "")


def seen(answer: Ticket | Refusal) -> str:
    """Return what the guard answered, as a line of the script."""
    if isinstance(answer, Ticket):
        return str(Admit(tuple(item.refusal.reason for item in answer.would), answer.directive))
    return str(Refuse(answer.reason, answer.retry_after_s, answer.rule))


class Playbook:
    """One guard, one clock that only the script moves, and the requests in flight."""

    def __init__(self, policy: GuardPolicy | RoutePolicy, *, route: str = ROUTE) -> None:
        self.policy = policy if isinstance(policy, GuardPolicy) else service(policy)
        self.guard = Guard(self.policy, 0.0)
        self.now = 0.0
        self.pending: list[tuple[RouteGuard, Ticket]] = []
        self._route, self._client = route, "k1"
        self._expected: list[str] = []
        self._actual: list[str] = []

    # --- the script ----------------------------------------------------------------------------------------------

    def at(self, now: float) -> Playbook:
        """Move the clock; also backwards."""
        self.now = now
        return self._note(f"at {now:g}")

    def of(self, client: str | None = None, *, route: str | None = None) -> Playbook:
        """Let the next requests come from *client*, on *route*."""
        self._client, self._route = client or self._client, route or self._route
        return self._note(f"of {self._client} on {self._route}")

    def send(
        self,
        count: int = 1,
        *,
        outcome: Outcome | None = SUCCESS,
        latency_s: float | None = None,
        client_error: bool = False,
    ) -> Playbook:
        """Send *count* requests that must be admitted, and end them at once with *outcome* unless it is PENDING."""
        for _ in range(count):
            self._note(f">> {self._client} {outcome or 'pending'}")
            route, answer = self._admit()
            self._check(Admit() if isinstance(answer, Refusal) else None, answer)
            assert isinstance(answer, Ticket)
            route.sent(answer, self.now)
            if outcome is PENDING:
                self.pending.append((route, answer))
            else:
                route.first_byte(answer, self.now)
                route.settle(answer, outcome, self.now, latency_s=latency_s, client_error=client_error)
        return self

    def expect(self, *answers: Refuse | Admit) -> Playbook:
        """Send one request for each of *answers*; the admitted ones stay in flight."""
        for expected in answers:
            self._note(f">> {self._client}")
            route, answer = self._admit()
            self._check(None if expected.matches(answer) else expected, answer)
            if isinstance(answer, Ticket):
                self.pending.append((route, answer))
        return self

    def end(self, count: int | None = None, *, outcome: Outcome = SUCCESS, latency_s: float | None = None) -> Playbook:
        """End the *count* oldest requests in flight, or all."""
        self._note(f"end {count or 'all'} {outcome}")
        ending, self.pending = self.pending[:count], self.pending[len(self.pending[:count]) :]
        for route, ticket in ending:
            route.settle(ticket, outcome, self.now, latency_s=latency_s)
        return self

    def tick(self) -> list[str]:
        """Let time act and return the rules of the trips since the last tick."""
        self._note("tick")
        return [trip.rule for trip in self.guard.tick(self.now)]

    def direct(self, *directives: Directive) -> Playbook:
        """Put the full set of directives in force."""
        self.guard.direct(directives, self.now)
        return self._note(f"direct {', '.join(item.id for item in directives) or 'nothing'}")

    def apply(self, policy: GuardPolicy | RoutePolicy) -> Playbook:
        """Change the config live."""
        self.policy = policy if isinstance(policy, GuardPolicy) else replace(self.policy, routes={policy.name: policy})
        self.guard.apply(self.policy, self.now)
        return self._note("apply another policy")

    def limit_header(self, client: str, now: float) -> tuple[str, str] | None:
        """Return the values of `RateLimit-Policy` and `RateLimit` that *client* is told."""
        lines = self.route.limit_fields(client, now).decode().removesuffix("\r\n")
        if not lines:
            return None
        (one, policy), (two, limit) = (line.split(": ") for line in lines.split("\r\n"))
        assert (one, two) == ("ratelimit-policy", "ratelimit")
        return policy, limit

    def passed(self, count: int) -> int:
        """Send *count* requests that succeed at once where they are admitted; return how many were."""
        admitted = 0
        for _ in range(count):
            route, answer = self._admit()
            if isinstance(answer, Ticket):
                admitted += 1
                route.settle(answer, SUCCESS, self.now)
        return admitted

    # --- what can be looked at -----------------------------------------------------------------------------------

    @property
    def route(self) -> RouteGuard:
        """The stack of the current route."""
        return self.guard.route(self._route)

    @property
    def state(self) -> str:
        """The breaker's state now."""
        return self.guard.gauges(self._route, self.now).breaker.value

    def _admit(self) -> tuple[RouteGuard, Ticket | Refusal]:
        route = self.route
        return route, route.admit(self._client, self.now)

    def _note(self, line: str) -> Playbook:
        self._expected.append(line)
        self._actual.append(line)
        return self

    def _check(self, expected: Refuse | Admit | None, answer: Ticket | Refusal) -> None:
        self._actual.append(seen(answer))
        self._expected.append(seen(answer) if expected is None else str(expected))
        if expected is not None:
            diff = "\n".join(difflib.ndiff(self._expected, self._actual))
            raise AssertionError(f"the guard left the script (- expected, + actual):\n{diff}")


# --- policies ----------------------------------------------------------------------------------------------------


def service(
    *routes: RoutePolicy,
    limit: LimitPolicy | None = None,
    concurrency: ConcurrencyPolicy | None = None,
    **rest: object,
) -> GuardPolicy:
    """Return a guard's policy over *routes*; without a seed, so without jitter."""
    policy = GuardPolicy({route.name: route for route in routes}, limit, concurrency)
    return replace(policy, **rest) if rest else policy  # type: ignore[arg-type]


def breaker(name: str = ROUTE, **numbers: object) -> RoutePolicy:
    """Return a route with a breaker of the defaults but *numbers*."""
    return RoutePolicy(name, breaker=replace(BreakerPolicy(), **numbers))  # type: ignore[arg-type]


def bucket(rate_per_s: float, burst: float) -> BucketPolicy:
    """Return a token bucket."""
    return BucketPolicy(rate_per_s, burst)


def limited(
    *,
    route: BucketPolicy | None = None,
    client: BucketPolicy | None = None,
    max_keys: int = 100_000,
    mode: LimitMode = LimitMode.ENFORCE,
    name: str = ROUTE,
) -> RoutePolicy:
    """Return a route with limits."""
    return RoutePolicy(name, LimitPolicy(route, client, max_keys, mode))


def isolation(
    scope: Scope, *, number: int = 1, share: float | None = 0.0, end_at: float = 900.0, **rest: object
) -> Directive:
    """Return an automatic isolation."""
    made = Directive(f"isolation-{number}", scope, Action.ISOLATE, end_at, share_ratio=share, bypass_breaker=True)
    return replace(made, **rest) if rest else made  # type: ignore[arg-type]


def override(scope: Scope, action: Action, *, end_at: float = 600.0, **rest: object) -> Directive:
    """Return an operator's override."""
    made = Directive(f"override-{scope}", scope, action, end_at, confirmed=True)
    return replace(made, **rest) if rest else made  # type: ignore[arg-type]


def shares(play: Playbook, requests: int, step_s: float) -> Sequence[bool]:
    """Send *requests*, one each *step_s*, and tell of each whether it was admitted."""
    answers = []
    for _ in range(requests):
        answers.append(play.passed(1) == 1)
        play.now += step_s
    return answers


# --- beginnings ------------------------------------------------------------------------------------------------


def opened(**numbers: object) -> Playbook:
    """Return a playbook whose breaker tripped at 0.0 by seven failures."""
    play = Playbook(breaker(**numbers))
    return play.at(0.0).send(7, outcome=FAILURE)


def half_open(**numbers: object) -> Playbook:
    """Return a playbook whose breaker is about to half-open at 5.0."""
    return opened(**numbers).at(5.0)


def closed_again(**numbers: object) -> Playbook:
    """Return a playbook whose breaker closed at 5.0 by eight good probes."""
    return half_open(**numbers).send(8)
