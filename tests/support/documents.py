"""Documents in the shapes of the admin API, with fixed times: what a sidecar would answer in one incident's middle."""

from __future__ import annotations

from typing import Any

NOW = "2026-03-01T03:20:00Z"

SIGNAL: dict[str, Any] = {
    "detector": "errors",
    "scope": "route:checkout",
    "value": 0.62,
    "baseline": 0.001,
    "sample": 340,
    "score": 41.7,
    "threshold": 12.0,
    "since_time": "2026-03-01T03:12:04Z",
    "unit": "ratio",
}
SLOW: dict[str, Any] = {
    **SIGNAL, "detector": "latency", "value": 1.9, "baseline": 0.08, "score": 20.1, "unit": "s",
}  # fmt: skip
ISOLATION: dict[str, Any] = {
    "id": "isolation-3",
    "scope": "route:checkout",
    "action": "throttle",
    "share": 0.1,
    "state": "provisional",
    "owner": "automation",
    "reason": "errors and latency",
    "start_time": "2026-03-01T03:12:08Z",
    "end_time": "2026-03-01T03:27:08Z",
    "durable": True,
    "incident": 12,
    "refused": 870,
    "would_have_succeeded_ratio": 0.26,
    "ended_by": None,
    "ended_why": None,
    "share_floor": None,
}
INCIDENT: dict[str, Any] = {
    "id": 12,
    "title": "62% of requests to checkout fail (normally 0.1%)",
    "state": "open",
    "verdict": "pending",
    "resolution": None,
    "severity": "severe",
    "scope": "route:checkout",
    "opened_time": "2026-03-01T03:12:07Z",
    "acknowledged_time": None,
    "resolved_time": None,
    "flaps": 1,
    "drill": False,
    "observed": False,
    "signals": [SIGNAL, SLOW],
    "isolations": [ISOLATION],
    "suspect": {
        "version": 7,
        "diff": [{"path": "upstream.response_timeout", "old": "30s", "new": "300ms"}],
    },
    "next_step": {"do": "probe", "at_time": "2026-03-01T03:27:07Z"},
    "runbook": "docs/runbooks/errors.md",
    "checklist": [
        {"step": 1, "text": "Is it one client?", "done_by": "ops", "done_time": "2026-03-01T03:13:00Z"},
        {"step": 2, "text": "Is it the last config version?", "done_by": None, "done_time": None},
    ],
    "silenced": None,
    "commands": [
        "sidecar incident confirm 12",
        "sidecar incident release 12 --verdict false_positive",
        "sidecar config rollback 6 --reason 'incident 12'",
    ],
}
OVERRIDE: dict[str, Any] = {
    "scope": "client:search:203.0.113.7",
    "action": "throttle=10/s",
    "author": "ops",
    "reason": "scraper",
    "start_time": "2026-03-01T02:50:00Z",
    "end_time": "2026-03-01T03:50:00Z",
    "durable": True,
}
CONFIG: dict[str, Any] = {
    "version": 7,
    "hash": "sha256:7c1d",
    "state": "active",
    "diverged_from_file": False,
    "confirm_by_time": None,
    "text": "upstream: {endpoints: ['http://127.0.0.1:9000']}\n",
}
RECEIVER: dict[str, Any] = {
    "name": "pager",
    "type": "webhook",
    "sent": 4,
    "failed": 1,
    "lost": 0,
    "folded": 2,
    "waiting": 0,
    "problem": "",
    "last_time": "2026-03-01T03:12:09Z",
}
TRAFFIC: dict[str, Any] = {
    "amplification": 1.8,
    "requests_per_s": 118.4,
    "failure_ratio": 0.21,
    "refused_ratio": 0.34,
    "in_flight": 17,
    "latency_p50_s": 0.012,
    "latency_p99_s": 1.9,
}
QUIET_TRAFFIC: dict[str, Any] = {
    "amplification": 1.0,
    "requests_per_s": 120.0,
    "failure_ratio": 0.001,
    "refused_ratio": 0.0,
    "in_flight": 3,
    "latency_p50_s": 0.011,
    "latency_p99_s": 0.08,
}
ROUTE: dict[str, Any] = {"name": "checkout", **TRAFFIC, "breaker": "open", "concurrency_limit": 64}
QUIET_ROUTE: dict[str, Any] = {"name": "default", **QUIET_TRAFFIC, "breaker": "closed", "concurrency_limit": None}
CONTROLS: list[dict[str, Any]] = [
    {"name": "limit", "route": "checkout", "state": "enforce", "why": ""},
    {"name": "breaker", "route": "checkout", "state": "observe", "why": ""},
    {"name": "latency", "route": "default", "state": "cannot run", "why": "warming up, 12 s left"},
    {"name": "concurrency", "route": "default", "state": "off", "why": "not configured"},
    {
        "name": "detect.errors",
        "id": "detect.errors:checkout",
        "route": "checkout",
        "state": "observe",
        "offset": 0.8,
        "why": "demoted by automation: 2 of 5 verdicts confirm it; would have raised 1 since",
        "record": {
            "confirmed": 2,
            "false_positive": 3,
            "benign": 0,
            "precision": 0.4,
            "delay_s": 3.0,
            "pages": 4,
            "falsely_refused_s": 95.0,
            "last": [{"incident": 12, "verdict": "confirmed", "time": "2026-03-01T03:00:00Z"}],
            "demoted": {
                "since_time": "2026-03-01T03:00:00Z",
                "would_have_raised": 1,
                "seconds": 40,
                "confirmed": 1,
                "false_positive": 0,
            },
        },
    },
]
WORKER: dict[str, Any] = {
    "worker": 0, "up": True, "pid": 4711, "connections": 40, "in_flight": 17, "config_version": 7, "restarts": 0,
}  # fmt: skip
STATUS: dict[str, Any] = {
    "version": "0.1.0",
    "mode": "enforce",
    "time": NOW,
    "uptime_s": 86_520.0,
    "config": {name: value for name, value in CONFIG.items() if name != "text"},
    "workers": [WORKER],
    "store": {"ok": True, "problem": ""},
    "traffic": TRAFFIC,
    "incidents": [INCIDENT],
    "isolations": [ISOLATION],
    "overrides": [OVERRIDE],
    "silences": [],
    "drill": None,
    "breakers_open": ["checkout"],
    "receivers": [RECEIVER],
    "demoted": [
        {
            "control": "detect.surge:search",
            "why": "demoted by automation: 2 of 5 verdicts confirm it; would have raised 1 since",
        }
    ],
    "proposals_open": 1,
    "would_have": 2,
}
QUIET_STATUS: dict[str, Any] = {
    **STATUS, "traffic": QUIET_TRAFFIC, "incidents": [], "isolations": [], "overrides": [],
    "breakers_open": [], "demoted": [], "proposals_open": 0, "would_have": 0,
}  # fmt: skip
VERSION: dict[str, Any] = {
    "version": 7,
    "hash": "sha256:7c1d",
    "author": "ops",
    "reason": "shorter timeout",
    "source": "api",
    "time": "2026-03-01T03:08:00Z",
    "state": "active",
    "text": CONFIG["text"],
}
OLDER: dict[str, Any] = {
    **VERSION, "version": 6, "author": "file", "reason": "config/sidecar.yaml", "source": "file",
    "time": "2026-02-27T10:00:00Z", "state": "superseded",
}  # fmt: skip
APPLIED: dict[str, Any] = {
    "version": 8,
    "hash": "sha256:90ab",
    "state": "active",
    "dry_run": False,
    "changes": [{"path": "service.limit.rate", "old": "2000/s", "new": "500/s"}],
    "confirm_by_time": None,
    "workers": {"acknowledged": 2, "total": 2},
}
DIFF: dict[str, Any] = {"from": 6, "to": 7, "changes": INCIDENT["suspect"]["diff"]}
DECISION: dict[str, Any] = {
    "id": "5f2a-1c",
    "reason": "rate_limited",
    "time": "2026-03-01T03:19:58Z",
    "route": "checkout",
    "client": "203.0.113.7",
    "rule": "limit.per_client",
    "detail": "10/s burst 20",
    "retry_after_s": 0.7,
    "incident": None,
}
TAPPED: dict[str, Any] = {
    "time": "2026-03-01T03:12:07.250Z",
    "client": "203.0.113.7",
    "method": "POST",
    "path_template": "/api/checkout/{id}",
    "route": "checkout",
    "status": 503,
    "reason": "breaker_open",
    "flags": "UH",
    "guard_s": 0.000031,
    "duration_s": 0.000036,
    "bytes_in": 120,
    "bytes_out": 301,
    "decision": "5f2a-1c",
    "trace": "0af7651916cd43dd8448eb211c80319c",
    "retried": 0,
    "fields": ["host", "content-length"],
    "worker": 0,
    "missed": 3,
}

EVENT: dict[str, Any] = {
    "sequence": 41,
    "time": "2026-03-01T03:12:07Z",
    "kind": "incident.opened",
    "author": "automation",
    "incident": 12,
    "scope": "route:checkout",
    "body": {"severity": "severe"},
}
APPLY_EVENT: dict[str, Any] = {
    **EVENT, "sequence": 40, "time": "2026-03-01T03:08:00Z", "kind": "config.applied", "author": "ops",
    "incident": None, "scope": "", "body": {"version": 7, "reason": "shorter timeout"},
}  # fmt: skip
SERIES: dict[str, Any] = {
    "route": "checkout",
    "step_s": 1.0,
    "items": [{"time": NOW, "arrivals": 118, "failures": 25}],
}
EVIDENCE: dict[str, Any] = {"incident": 12, "config_version": 7, "series": {"checkout": []}}
REPORT = "<!doctype html>\n<title>Incident 12</title>\n"
POSTMORTEM = "# Incident 12\n\n- 03:12:07Z opened\n"


def listing(*items: dict[str, Any]) -> dict[str, Any]:
    """Return a whole list's document."""
    return {"items": list(items), "next": None}


PROPOSAL: dict[str, Any] = {
    "id": 3, "incident": 12, "state": "open", "kind": "threshold",
    "why": "it would have been found earlier with sensitivity high on checkout", "made_time": "2026-01-05T12:00:00Z",
    "decided_time": None, "decided_by": None, "reason": None, "version": None, "rule": None,
    "changes": [{"path": "routes.checkout.detect.sensitivity", "old": None, "new": "high"}],
    "effect": {
        "sooner_s": 7.0, "hidden": 0, "added": 0, "requests": 86400, "refused": 0, "over_s": 86400.0,
        "words": "found 7s earlier, no alarm hidden, none added (over 24h)",
    },
}  # fmt: skip

RECORD: dict[str, Any] = {
    "control": "detect.errors:checkout", "route": "checkout", "detector": "errors", "offset": 0.9,
    "record": {
        "confirmed": 1, "false_positive": 1, "benign": 0, "precision": 0.5, "delay_s": 3.0, "pages": 2,
        "falsely_refused_s": 40.0, "demoted": None, "silent": [],
        "last": [{"incident": 12, "verdict": "confirmed", "time": "2026-01-05T12:00:00Z"}],
    },
}  # fmt: skip

SILENCE: dict[str, Any] = {
    "id": 1, "scope": "route:checkout", "author": "ops", "reason": "the database moves",
    "start_time": "2026-03-01T03:10:00Z", "end_time": "2026-03-01T05:10:00Z",
}  # fmt: skip

TOKEN: dict[str, Any] = {
    "name": "ops", "role": "operator", "source": "file", "author": None, "issued_time": None, "revoked_time": None,
    "revoked_by": None,
}  # fmt: skip

DRILL: dict[str, Any] = {
    "id": 1, "kind": "errors", "route": "checkout", "share": 1.0, "author": "ops", "state": "passed", "why": None,
    "start_time": "2026-01-05T12:00:00Z", "end_time": "2026-01-05T12:01:00Z", "incident": 12,
    "stages": [{"stage": "detected", "target_s": 5.0, "took_s": 2.0, "met": True}],
}  # fmt: skip
