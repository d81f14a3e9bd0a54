"""
The stack of one route: the hot path of every request.

`admit` is the plain path: everything enforces, no directive touches the route. `_admit_fully` is the same stack with
directives and observing controls; a property test holds both to the same answers. See `guard.py` for the rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from sidecar.facts import Action, BreakerState, Directive, Mode, Outcome, RouteGauges
from sidecar.guard import isolation as isolations
from sidecar.guard import override as overrides
from sidecar.guard import rules, spare
from sidecar.guard.breaker import Breaker
from sidecar.guard.concurrency import Concurrency
from sidecar.guard.gate import Gate
from sidecar.guard.levels import Levels
from sidecar.guard.limit import Limits
from sidecar.guard.policies import BreakerPolicy, Priority, RoutePolicy
from sidecar.guard.shared import Shared
from sidecar.guard.ticket import Ticket
from sidecar.reasons import Refusal, Would

_NEVER: Final = float("inf")
_GATES_KEPT: Final = 64  # beyond it those of ended directives go
_OFF: Final = Mode.OFF
_NO_RULING: Final = rules.Ruling()


class RouteGuard:
    """The stack of one route. Bind it once an exchange; it survives live changes."""

    __slots__ = (
        "_breaker", "_concurrency", "_gates", "_late", "_learning", "_levels", "_limits", "_plain", "_priority", "_reach",
        "_retired", "_rules", "_service", "_shared", "_slow_due_at", "_waiting", "name",
    )  # fmt: skip

    def __init__(self, name: str, shared: Shared) -> None:
        self.name = name
        self._shared = shared
        self._service = shared.concurrency
        self._concurrency = Concurrency("concurrency")
        self._learning: tuple[Concurrency, ...] = ()
        self._priority = Priority.NORMAL
        self._reach = shared.concurrency.reaches[Priority.NORMAL]
        self._levels = Levels(name, shared)
        self._limits: Limits | None = None
        self._breaker: Breaker | None = None
        self._retired: Breaker | None = None
        self._rules: rules.Rules | None = None
        self._gates: dict[tuple[str, bool], Gate] = {}
        self._plain = True
        # Tickets that were sent and wait for their first byte, oldest first; those older than `slow` move to `_late`.
        self._waiting: dict[Ticket, float] = {}
        self._late: dict[Ticket, float] = {}
        self._slow_due_at = _NEVER  # no waiting ticket is older than `slow` before it

    def __repr__(self) -> str:
        return f"<RouteGuard {self.name} in_flight={self._concurrency.in_flight} {self._breaker}>"

    # --- one request ---------------------------------------------------------------------------------------------

    def admit(self, client: str, now: float) -> Ticket | Refusal:  # noqa: C901, PLR0912 - the hot path is one straight line
        """Let one request of *client* pass, or say why not; a *now* before the last call's counts as the last."""
        shared = self._shared
        if now >= shared.now:
            shared.now = now
        else:
            now = shared.now
        if not self._plain:
            return self._admit_fully(client, now)
        if now >= self._slow_due_at:
            self._find_late(now)
        limits, concurrency, service, breaker = self._limits, self._concurrency, self._service, self._breaker
        if limits is not None:
            refusal = limits.take(client, now)
            if refusal is not None:
                return refusal
        if concurrency.in_flight >= concurrency.cap or service.in_flight >= self._reach.gate:
            refusal = concurrency.refusal() if concurrency.full() else service.ask(client, self._priority, now)
            if refusal is not None:
                if limits is not None:
                    limits.cancel(client)
                return refusal
        ticket = Ticket(client, now)
        if breaker is not None:
            if breaker.free:
                ticket.generation = breaker.generation
            else:
                refusal = breaker.ask(now)
                if refusal is not None:
                    if limits is not None:
                        limits.cancel(client)
                    return refusal
                breaker.admit(ticket, now)
        concurrency.in_flight += 1
        service.in_flight += 1
        return ticket

    def admit_again(self, client: str, now: float) -> Ticket | Refusal:
        """Do what `admit` does for one that asks again too soon in a retry storm: first tries come first; see `spare.py`."""
        shared = self._shared
        now = shared.now = max(now, shared.now)
        mode, ruling = shared.policy.rearrivals, self._ruling(client, now)
        if mode is _OFF or ruling.lenient or self._priority is Priority.PROBE:
            return self.admit(client, now)
        isolation = None if shared.observing else ruling.isolation
        found = spare.refusal(
            client, ruling.override, isolation, self._limits, self._concurrency, self._service, self._reach, now
        )
        if found is None:
            return self.admit(client, now)
        refusal, gate = found
        if mode is Mode.ENFORCE:
            if gate is not None:
                gate.hold()
            elif self._limits is not None:
                self._limits.held_back(client, refusal.rule, now)
            return refusal
        ticket = self.admit(client, now)
        if isinstance(ticket, Ticket):
            ticket.would = (*ticket.would, Would(refusal))
        return ticket

    def sent(self, ticket: Ticket, now: float) -> None:
        """Note that the last byte of the request went upstream: from here on its age is upstream latency."""
        if ticket.sent_at is not None or ticket.settled:
            return
        ticket.sent_at = now
        if ticket.first_byte_at is not None:
            return
        if not self._waiting and self._breaker is not None:
            self._slow_due_at = now + self._breaker.slow_s
        self._waiting[ticket] = now

    def first_byte(self, ticket: Ticket, now: float) -> None:
        """Note the first byte of the answer: its age ends here, so a stream of events is not slow."""
        if ticket.first_byte_at is not None or ticket.settled:
            return
        ticket.first_byte_at = now
        if ticket.sent_at is not None:
            (self._late if ticket.slow else self._waiting).pop(ticket, None)

    def settle(
        self,
        ticket: Ticket,
        outcome: Outcome,
        now: float,
        latency_s: float | None = None,
        client_error: bool = False,  # noqa: FBT001, FBT002 - hot path: positional
    ) -> None:
        """
        End *ticket*: return its permits and tell the breaker. Exactly once; a second call is counted as a fault.

        Args:
            ticket: What `admit` gave.
            outcome: As `measure/classify.py` decided it.
            now: Monotonic seconds.
            latency_s: Last request byte sent → first response byte; the age at the end when there was no answer.
            client_error: The upstream answered 4xx: while half open that is a sign of life.
        """
        if ticket.settled:
            self._shared.faults += 1
            return
        shared = self._shared
        if now >= shared.now:
            shared.now = now
        else:
            now = shared.now
        ticket.settled = True
        concurrency, service, breaker = self._concurrency, self._service, self._breaker
        if self._learning:
            self._learn(ticket, outcome, now, latency_s)
        concurrency.in_flight -= 1
        service.in_flight -= 1
        if ticket.beyond:
            concurrency.beyond -= ticket.beyond & 1
            service.beyond -= ticket.beyond >> 1
        if ticket.sent_at is not None:
            (self._late if ticket.slow else self._waiting).pop(ticket, None)
        if breaker is not None and ticket.generation == breaker.generation:
            breaker.record(ticket, outcome, now, latency_s, client_error)

    def _learn(self, ticket: Ticket, outcome: Outcome, now: float, latency_s: float | None) -> None:
        """Let adaptive limits learn from a success, or from what never had an answer."""
        answered = outcome is Outcome.SUCCESS and latency_s is not None
        if answered or (outcome is Outcome.FAILURE and ticket.first_byte_at is None):
            for member in self._learning:
                member.learn(latency_s if answered else None, now)

    def limit_fields(self, client: str, now: float) -> bytes:
        """Return the field lines `RateLimit-Policy` and `RateLimit`; empty when no limit is enforced."""
        return b"" if self._limits is None else self._limits.fields(client, now)

    # --- the same with directives and observing controls ---------------------------------------------------------

    def _admit_fully(self, client: str, now: float) -> Ticket | Refusal:
        ruling = self._ruling(client, now)
        if self._priority is Priority.PROBE:
            return self._admit_probe(client, ruling, now)
        self._find_late(now)
        would: list[Would] = []
        passed: list[Gate] = []
        refusal = self._ask_directives(ruling, now, would, passed)
        if refusal is not None:
            return refusal
        if self._limits is not None:
            refusal = self._limits.take_observing(client, now, would, lenient=ruling.lenient)
            if refusal is not None:
                return refusal
        ticket = Ticket(client, now)
        refusal = self._ask_concurrency(ticket, would, now, lenient=ruling.lenient)
        if refusal is None:
            refusal = self._ask_breaker(ticket, ruling, now, would)
        if refusal is not None:
            if self._limits is not None:
                self._limits.cancel(client)
            return refusal
        ticket.would = tuple(would)
        self._hand_out(ticket, passed, now)
        return ticket

    def _admit_probe(self, client: str, ruling: rules.Ruling, now: float) -> Ticket | Refusal:
        """Let an orchestrator's health check pass; only an operator who isolates stops it."""
        gate = ruling.override
        if gate is not None and gate.directive.action is Action.ISOLATE:
            refusal = overrides.refusal(gate, now)
            if refusal is not None:
                gate.hold()
                return refusal
        self._concurrency.in_flight += 1
        self._service.in_flight += 1
        return Ticket(client, now)

    def _ruling(self, client: str, now: float) -> rules.Ruling:
        if self._rules is not None and now >= self._rules.end_at:
            self.direct(self._shared.in_force(now))
        found = self._rules
        return _NO_RULING if found is None else found.clients.get(client, found.everyone)

    def _ask_directives(
        self, ruling: rules.Ruling, now: float, would: list[Would], passed: list[Gate]
    ) -> Refusal | None:
        if ruling.override is not None:
            refusal = overrides.refusal(ruling.override, now)
            if refusal is not None:
                ruling.override.hold()
                return refusal
            passed.append(ruling.override)
        if ruling.isolation is not None:
            refusal = isolations.refusal(ruling.isolation, now)
            if refusal is None:
                passed.append(ruling.isolation)
                return None
            ruling.isolation.hold()
            if not (ruling.lenient or self._shared.observing):
                return refusal
            would.append(Would(refusal))
        return None

    def _ask_concurrency(self, ticket: Ticket, would: list[Would], now: float, *, lenient: bool) -> Refusal | None:
        route, service, reach = self._concurrency, self._service, self._reach.cap
        if not (lenient or route.observed):
            if route.full():
                return route.refusal()
        elif route.would_be_full():
            would.append(Would(route.refusal()))
            ticket.beyond |= 1
        if not (lenient or service.observed):
            return service.ask(ticket.client, self._priority, now)
        if service.would_be_full(reach):
            would.append(Would(service.refusal(reach)))
            ticket.beyond |= 2
        return None

    def _ask_breaker(self, ticket: Ticket, ruling: rules.Ruling, now: float, would: list[Would]) -> Refusal | None:
        breaker = self._breaker
        if breaker is None or ruling.allow:
            return None
        if ruling.trial and not self._shared.observing:
            breaker.admit_trial(ticket, now)
            return None
        refusal = breaker.ask(now)
        if refusal is None:
            breaker.admit(ticket, now)
        elif ruling.lenient or breaker.observed:
            would.append(Would(refusal))
            return None
        return refusal

    def _hand_out(self, ticket: Ticket, passed: Sequence[Gate], now: float) -> None:
        self._concurrency.in_flight += 1
        self._service.in_flight += 1
        self._concurrency.beyond += ticket.beyond & 1
        self._service.beyond += ticket.beyond >> 1
        for gate in passed:
            gate.take(now)
            ticket.directive = gate.directive.id

    # --- time ----------------------------------------------------------------------------------------------------

    def _find_late(self, now: float) -> None:
        """Move the tickets whose age passed `slow` to `_late` and count each once."""
        if now < self._slow_due_at:
            return
        breaker, self._slow_due_at = self._breaker, _NEVER
        if breaker is None:
            return
        late = []
        for ticket, sent_at in self._waiting.items():
            if sent_at + breaker.slow_s > now:
                self._slow_due_at = sent_at + breaker.slow_s
                break
            late.append(ticket)
        for ticket in late:
            self._late[ticket] = self._waiting.pop(ticket)
            ticket.slow = True
            breaker.overdue(ticket, now)
        if late:
            breaker.judge(now)

    def tick(self, now: float) -> None:
        """Let time act on this route."""
        self._find_late(now)
        if self._breaker is not None:
            self._breaker.tick(now)
        self._levels.sweep(now)

    def gauges(self, now: float) -> RouteGauges:
        """Return what this route's guard says of itself."""
        breaker, counted = self._breaker, self._breaker or self._retired
        gates = [gate for (_, observing), gate in self._gates.items() if not observing]
        return RouteGauges(
            in_flight=self._concurrency.in_flight,
            waiting_ages_s=tuple(
                now - sent_at for waiting in (self._late, self._waiting) for sent_at in waiting.values()
            ),
            breaker=BreakerState.CLOSED if breaker is None else breaker.state,
            generation=0 if counted is None else counted.generation,
            trips=0 if counted is None else counted.trips,
            limits={} if self._limits is None else self._limits.remaining(now),
            concurrency_limit=self._concurrency.limit,
            passed={gate.directive.id: gate.passed for gate in gates},
            held={gate.directive.id: gate.held for gate in gates},
        )

    # --- changes -------------------------------------------------------------------------------------------------

    def apply(self, policy: RoutePolicy, now: float) -> None:
        """Go on under *policy*."""
        whole = self._shared.policy
        self._levels.apply(policy.limit, now)
        self._limits = self._levels.limits
        self._concurrency.apply(policy.concurrency, whole.mode, whole.workers, now)
        self._priority = policy.priority
        self._reach = self._service.reaches[policy.priority]
        self._learning = tuple(one for one in (self._concurrency, self._service) if one.adaptive is not None)
        self._apply_breaker(policy.breaker, now)
        self._slow_due_at = now  # `slow` may be another one: look again
        self.direct(self._shared.directives)

    def _apply_breaker(self, policy: BreakerPolicy | None, now: float) -> None:
        whole = self._shared.policy
        if policy is None or _OFF in (policy.mode, whole.mode):
            # Kept aside: its generations must go on when it comes back, or a ticket of before would count as new.
            self._retired, self._breaker = self._breaker or self._retired, None
            return
        if self._breaker is None and self._retired is not None:
            self._breaker, self._retired = self._retired, None
            self._breaker.reset(now)
        if self._breaker is None:
            self._breaker = Breaker(self.name, policy, whole.seed, self._shared.trips, now)
        self._breaker.apply(policy, whole.mode, whole.seed, now)

    def share(self, now: float) -> None:
        """Go on under the shares of the limits that are in force now."""
        self._levels.share(now)

    def asked(self) -> Iterator[tuple[str, float, float]]:
        """Yield bucket, tokens asked since the last call, and of how many a second there are at all."""
        yield from self._levels.asked()
        for (name, observing), gate in self._gates.items():
            rate = gate.directive.rate_per_s
            if rate is not None and not observing:
                yield name, gate.asked(), rate

    def direct(self, directives: Sequence[Directive]) -> None:
        """Take the full set of directives in force; gates are kept, for their counts are cumulative."""
        ids = {item.id for item in directives}
        if len(self._gates) > _GATES_KEPT:
            self._gates = {key: gate for key, gate in self._gates.items() if key[0] in ids}
        self._rules = rules.of_route(self.name, directives, self._gate)
        self._bind()

    def _gate(self, directive: Directive, observing: bool) -> Gate:  # noqa: FBT001 - the shape that `rules` asks for
        sampled = not overrides.is_override(directive)
        observing = observing or (sampled and self._shared.observing)
        bucket, workers = self._shared.throttle(directive, observing=observing), self._shared.policy.workers
        gate = self._gates.get((directive.id, observing))
        if gate is None:
            gate = Gate(directive, sampled=sampled, bucket=bucket, workers=workers)
            self._gates[directive.id, observing] = gate
        gate.apply(directive, bucket, workers)
        return gate

    def _bind(self) -> None:
        observed = self._concurrency.observed or self._service.observed
        observed = observed or (self._limits is not None and not self._limits.plain)
        observed = observed or (self._breaker is not None and self._breaker.observed)
        observed = observed or self._priority is Priority.PROBE
        self._plain = self._rules is None and not observed

    @property
    def limits(self) -> Limits | None:
        """The limits in force; None when no request of this route meets any."""
        return self._limits

    @property
    def breaker(self) -> Breaker | None:
        """The route's breaker; None when it has none."""
        return self._breaker
