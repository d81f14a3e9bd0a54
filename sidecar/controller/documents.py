"""
What people and scripts see of the engine, in the shapes of the contract.

Nothing is decided here. The status is written for an operator at 3 a.m.: one line says what is wrong, what was done and
what to type; the rest is for those who want more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sidecar.config.policies import Compiled
from sidecar.controller.book import Book
from sidecar.controller.collect import RouteTotals, Totals
from sidecar.controller.history import History
from sidecar.controller.views import MetricViews
from sidecar.decide.overrides import action_text
from sidecar.decide.policies import Response
from sidecar.detect.bank import Bank
from sidecar.facts import Mode, Moment, RouteSecond
from sidecar.guard.policies import ConcurrencyPolicy, GuardPolicy, LimitMode
from sidecar.incident.lifecycle import Incident, Severity, Verdict
from sidecar.incident.telling import title
from sidecar.incident.words import figure, many, percent, rfc3339
from sidecar.link.frames import Decided
from sidecar.measure import histogram

RECENT_S: Final = 10.0
QUANTILES: Final = (("latency_p50_s", 0.5), ("latency_p95_s", 0.95), ("latency_p99_s", 0.99))


class Documents:
    """Portrays the book, the history and the bank."""

    def __init__(self, book: Book, history: History, bank: Bank) -> None:
        self._book = book
        self._history = history
        self._bank = bank

    def __repr__(self) -> str:
        return f"<Documents of {self._book}>"

    # --- status

    def status(self, now: Moment) -> dict[str, Any]:
        """Return health, one line about it, what to type, and the traffic of the last ten seconds."""
        running = self._book.asking()
        rows = self._history.window(self._history.routes, now.at - RECENT_S)
        open_breakers = [name for name in self._history.routes if self._history.breaker(name) != "closed"]
        health = "incident" if running else "degraded" if open_breakers or self._book.overrides else "ok"
        return {
            "health": health,
            "summary": self._summary(running, open_breakers, rows),
            "commands": self._book.document(_first(running))["commands"] if running else [],
            "routes": len(self._history.routes),
            "breakers_open": open_breakers,
            "incidents_by_state": dict(Counter(i.state.value for i in self._book.incidents.values())),
            "traffic": traffic(rows, RECENT_S),
        }

    def _summary(self, running: Sequence[Incident], breakers: Sequence[str], rows: Sequence[RouteSecond]) -> str:
        if running:
            return self._incidents_line(running)
        if self._book.overrides:
            set_by = [f"{o.scope} {action_text(o)} by {o.author}" for o in self._book.overrides.values()]
            return f"{many(len(set_by), 'override')} in force: " + "; ".join(set_by[:3])
        if breakers:
            return f"the breaker is open on {', '.join(breakers)}"
        figures = traffic(rows, RECENT_S)
        if not figures["requests_per_s"]:
            return "no traffic"
        return (
            f"all well: {figure(figures['requests_per_s'])} requests/s, {percent(figures['failure_ratio'] or 0.0)} fail"
        )

    def _incidents_line(self, running: Sequence[Incident]) -> str:
        first = _first(running)
        live = self._book.live_of(first)
        done = "; ".join(f"{i.scope} {i.action}d, {percent(i.share_ratio)} passes ({i.state})" for i in live)
        what = done or (f"not isolated: {first.ruling}" if first.ruling else "not isolated")
        more = f" (and {many(len(running) - 1, 'more incident')})" if len(running) > 1 else ""
        return f"incident {first.id}: {title(first)}. {what[:1].upper()}{what[1:]}{more}."

    # --- incidents, isolations, overrides, decisions

    def incidents(self, state: str | None) -> list[dict[str, Any]]:
        """Return the incidents in memory, the newest first; of one state only when given."""
        rows = sorted(self._book.incidents.values(), key=lambda incident: -incident.id)
        return [self._book.document(row) for row in rows if state is None or row.state.value == state]

    def isolations(self) -> list[dict[str, Any]]:
        """Return the isolations in force, the oldest first."""
        return [self._book.isolation_document(isolation) for isolation in self._book.live()]

    def overrides(self) -> list[dict[str, Any]]:
        """Return the overrides in force, in order of scope."""
        rows = sorted(self._book.overrides.values(), key=lambda override: str(override.scope))
        return [self._book.override_document(row) for row in rows]

    def decision(self, decision_id: str) -> dict[str, Any] | None:
        """Return why one request was refused, while it is remembered."""
        found = self._history.decision(decision_id)
        return None if found is None else _decision(*found)

    # --- routes

    def routes(self, totals: Totals, compiled: Compiled, now: Moment) -> list[dict[str, Any]]:
        """Return every route with its traffic of the last ten seconds and its guards."""
        return [
            self._route(rule.name, totals.routes.get(rule.name), _match(compiled, rule.name), now)
            for rule in compiled.proxy.routes
        ]

    def _route(self, name: str, totals: RouteTotals | None, match: Mapping[str, Any], now: Moment) -> dict[str, Any]:
        rows = self._history.window((name,), now.at - RECENT_S)
        states = {detector.value: state for (route, detector), state in self._bank.states().items() if route == name}
        return {
            "name": name,
            "match": match,
            **traffic(rows, RECENT_S),
            "breaker": self._history.breaker(name),
            "limits": dict(totals.limits) if totals else {},
            "concurrency_limit": totals.concurrency_limit if totals else None,
            "detectors": states,
            "isolations": [i.id for i in self._book.live() if name in self._history.routes_of(i.scope)],
            "overrides": [str(s) for s in self._book.overrides if name in self._history.routes_of(s)],
        }

    def series(self, route: str, window_s: float, step_s: float, now: Moment) -> dict[str, Any] | None:
        """Return the route's recent seconds in steps of *step_s*; None for an unknown route."""
        if route not in self._history.routes:
            return None
        step = max(1.0, step_s)
        steps: dict[int, list[RouteSecond]] = {}
        for row in self._history.window((route,), now.at - window_s):
            steps.setdefault(int((now.at - row.at) // step), []).append(row)
        points = [
            {"time": rfc3339(now.unix - age * step), **traffic(steps[age], step)} for age in sorted(steps, reverse=True)
        ]
        return {"route": route, "window_s": window_s, "step_s": step, "items": points}

    # --- controls

    def controls(self, compiled: Compiled) -> list[dict[str, Any]]:
        """Return the inventory: every control with its state and, when it cannot run, why."""
        rows = list(_guards(compiled))
        rows += [
            _control(c.name, f"route:{c.route}", _least(c.state, compiled.mode), c.why) for c in self._bank.inventory()
        ]
        respond = compiled.respond
        watching = respond.action is Response.OBSERVE
        state = Mode.OBSERVE.value if watching else _least(respond.mode.value, compiled.mode)
        why = f"{respond.action}, at most {percent(respond.max_refused_ratio)} of all traffic"
        rows.append(_control("respond.isolation", "service", state, why))
        rollback = {"never": "off", "propose": "observe", "auto": "enforce"}[respond.rollback.value]
        rows.append(_control("respond.rollback", "service", rollback, respond.rollback.value))
        return rows

    # --- metrics

    def metric_views(self, signals: Mapping[tuple[str, str], int], version: int) -> MetricViews:
        """Return the engine's part of `/metrics`."""
        incidents = [i for i in self._book.incidents.values() if not i.observed]
        verdicts = Counter(i.verdict.value for i in incidents if i.verdict is not Verdict.PENDING)
        return MetricViews(
            scores={(route, detector.value): score for (route, detector), score in self._bank.scores().items()},
            signals=dict(signals),
            incidents_current=Counter(i.state.value for i in incidents),
            incidents_by_verdict=verdicts,
            isolations=Counter((i.scope.kind.value, i.state.value) for i in self._book.live()),
            overrides_active=len(self._book.overrides),
            silences_active=len(self._book.silences),
            config_version=version,
        )


def _first(running: Iterable[Incident]) -> Incident:
    """Return what an operator looks at first: severe before warning, unanswered before answered, the newest."""
    return max(running, key=lambda i: (i.severity is Severity.SEVERE, i.verdict is Verdict.PENDING, i.id))


def traffic(rows: Sequence[RouteSecond], window_s: float) -> dict[str, Any]:
    """Return the figures of some seconds; ratios are None without judged requests, quantiles without an answer."""
    arrivals, failures = sum(row.arrivals for row in rows), sum(row.failures for row in rows)
    judged = sum(row.judged for row in rows)
    refused: Counter[str] = Counter()
    for row in rows:
        refused.update(row.refused)
    latency = histogram.merge(*(row.latency for row in rows))
    latest = max((row.at for row in rows), default=0.0)
    return {
        "requests": arrivals,
        "requests_per_s": arrivals / window_s,
        "successes": judged - failures,
        "failures": failures,
        "failure_ratio": failures / judged if judged else None,
        "amplification": amplification(arrivals, sum(row.again for row in rows)),
        "refused": dict(refused),
        "refused_ratio": sum(refused.values()) / arrivals if arrivals else None,
        "in_flight": sum(row.in_flight for row in rows if row.at == latest),
        **{name: histogram.quantile(latency, q) if latency else None for name, q in QUANTILES},
    }


def amplification(arrivals: int, again: int) -> float:
    """Return how many requests came for each first try; 1 without retries."""
    return arrivals / max(arrivals - again, 1) if arrivals else 1.0


def _decision(found: Decided, unix: float) -> dict[str, Any]:
    return {
        "id": found.id,
        "time": rfc3339(unix),
        "route": found.route,
        "client": found.client,
        "method": found.method,
        "path": found.path,
        "reason": found.reason,
        "rule": found.rule,
        "detail": found.detail,
        "incident": found.incident,
        "enforced": found.enforced,
        "config_version": found.config_version,
    }


def _match(compiled: Compiled, name: str) -> dict[str, Any]:
    match = next(rule.match for rule in compiled.proxy.routes if rule.name == name)
    return {"path": match.path, "methods": list(match.methods), "hosts": list(match.hosts)}


def _guards(compiled: Compiled) -> Iterable[dict[str, Any]]:
    guard = compiled.guard
    if guard.limit is not None:
        yield _control("limit.service", "service", _limit_state(guard.limit.mode, compiled.mode), "")
    if guard.concurrency is not None:
        state = _least(guard.concurrency.mode.value, compiled.mode)
        yield _control("concurrency.service", "service", state, _in_flight(guard.concurrency))
    state = _least(guard.rearrivals.value, compiled.mode)
    yield _control(
        "rearrivals",
        "service",
        state,
        "" if _keeps(guard) else "no shared limit or concurrency to keep for first tries",
    )
    for name, route in guard.routes.items():
        scope = f"route:{name}"
        limit = route.limit
        shared, each = (limit.bucket, limit.per_client) if limit else (None, None)
        state = _limit_state(limit.mode, compiled.mode) if limit else "off"
        yield _control("limit.route", scope, state if shared else "off", f"{shared.rate_per_s:g}/s" if shared else "")
        yield _control("limit.per_client", scope, state if each else "off", f"{each.rate_per_s:g}/s" if each else "")
        flight = route.concurrency
        state = _least(flight.mode.value, compiled.mode) if flight else "off"
        yield _control("concurrency", scope, state, _in_flight(flight) if flight else "")
        state = _least(route.breaker.mode.value, compiled.mode) if route.breaker else "off"
        yield _control("breaker", scope, state, "")


def _keeps(guard: GuardPolicy) -> bool:
    """Tell whether there is anything but isolations that first tries could get before those who ask again."""
    limits = [guard.limit, *(route.limit for route in guard.routes.values())]
    flights = [guard.concurrency, *(route.concurrency for route in guard.routes.values())]
    return any(flights) or any(limit is not None and limit.bucket is not None for limit in limits)


def _in_flight(policy: ConcurrencyPolicy) -> str:
    learned = "" if policy.min_in_flight is None else f"{policy.min_in_flight} to "
    return f"{learned}{policy.max_in_flight} in flight"


def _limit_state(mode: LimitMode, service: Mode) -> str:
    return _least("enforce" if mode is LimitMode.SHAPE else mode.value, service)


def _least(state: str, service: Mode) -> str:
    """Return a control's own state, lowered by the service's mode."""
    if state != Mode.ENFORCE.value:
        return state
    return service.value


def _control(name: str, scope: str, state: str, why: str) -> dict[str, Any]:
    return {"name": name, "route": scope.removeprefix("route:"), "scope": scope, "state": state, "why": why}
