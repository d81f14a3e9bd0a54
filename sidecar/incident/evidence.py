"""
What was true at the moment of detection, frozen.

Theory
    Averages wash out: ten minutes of good traffic after an outage and nobody believes it. So the last `FROZEN_S`
    seconds of the affected routes are copied into the incident once, at detection, and never changed. Nothing in it
    identifies a person beyond a client key, and nothing is a secret: samples hold method, path template, status and the
    names of header fields, never a query, a body or a value.

What can go wrong
    A wide scope with many routes and a flood of clients: every list is cut at a stated length, and the series hold
    only what changed in that second, so that one evidence stays below about a megabyte.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sidecar.facts import Moment, RouteSecond, Scope
from sidecar.incident.tally import add_clients, add_pairs, ranked
from sidecar.incident.words import rfc3339
from sidecar.link.frames import Sample

FROZEN_S: Final = 120.0
TOP: Final = 20
MAX_ROUTES: Final = 20
MAX_SAMPLES: Final = 50


def freeze(
    scope: Scope,
    rows: Sequence[RouteSecond],
    samples: Sequence[Sample],
    breakers: Mapping[str, str],
    config_version: int,
    now: Moment,
) -> dict[str, Any]:
    """
    Return the evidence document.

    Args:
        scope: What the incident is about.
        rows: The last `FROZEN_S` seconds of the affected routes.
        samples: Redacted exchanges of these routes.
        breakers: Route → state.
        config_version: In force at detection.
        now: The moment of detection.
    """
    by_route: dict[str, list[RouteSecond]] = {}
    for row in rows:
        by_route.setdefault(row.route, []).append(row)
    busiest = sorted(by_route, key=lambda name: (-sum(row.arrivals for row in by_route[name]), name))[:MAX_ROUTES]
    return {
        "scope": str(scope),
        "frozen_time": rfc3339(now.unix),
        "window_s": FROZEN_S,
        "config_version": config_version,
        "routes": [_route(name, by_route[name], breakers.get(name, "closed"), now) for name in sorted(busiest)],
        "samples": [_sample(sample, now) for sample in samples[-MAX_SAMPLES:]],
    }


def _route(name: str, rows: Sequence[RouteSecond], breaker: str, now: Moment) -> dict[str, Any]:
    return {
        "route": name,
        "breaker": breaker,
        "series": [second(row, now) for row in rows],
        "clients": _pairs(add_clients(rows)),
        "paths": _pairs(add_pairs(row.paths for row in rows)),
        "statuses": _pairs(add_pairs(row.statuses for row in rows)),
        "methods": _pairs(add_pairs(row.methods for row in rows)),
        "endpoints": _pairs(add_pairs(row.endpoints for row in rows)),
        "latency": _buckets(row.latency for row in rows),
        "waiting": _buckets(row.waiting for row in rows[-1:]),
    }


def second(row: RouteSecond, now: Moment) -> dict[str, Any]:
    """Return one second of a series; what is zero is left out, `time` and `arrivals` never."""
    facts = {
        "successes": row.successes,
        "failures": row.failures,
        "ignored": row.ignored,
        "cancelled": row.cancelled,
        "in_flight": row.in_flight,
        "again": row.again,
        "trips": row.trips,
        "refused": dict(row.refused),
        "latency": _buckets([row.latency]),
        "waiting": _buckets([row.waiting]),
    }
    time = rfc3339(now.unix - (now.at - row.at))
    return {"time": time, "arrivals": row.arrivals, **{key: value for key, value in facts.items() if value}}


def _pairs(pairs: Mapping[str, tuple[int, int]]) -> list[dict[str, Any]]:
    return [{"name": name, "requests": n, "failures": bad} for name, n, bad in ranked(pairs, TOP)]


def _buckets(maps: Iterable[Mapping[int, int]]) -> list[list[int]]:
    total: dict[int, int] = {}
    for buckets in maps:
        for index, count in buckets.items():
            total[index] = total.get(index, 0) + count
    return [[index, total[index]] for index in sorted(total)]


def _sample(sample: Sample, now: Moment) -> dict[str, Any]:
    return {
        "time": rfc3339(now.unix - (now.at - sample.at)),
        "route": sample.route,
        "client": sample.client,
        "method": sample.method,
        "path": sample.path,
        "status": sample.status,
        "reason": sample.reason,
        "latency_s": sample.latency_s,
        "fields": list(sample.fields),
        "trace": sample.trace,
    }
