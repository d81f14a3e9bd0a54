"""
The answers' shapes, as JSON Schema (2020-12, the dialect of OpenAPI 3.1).

Objects are open: a later release may add a field. What is listed as required is what users and scripts rely on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

Schema = Mapping[str, Any]

TEXT: Final[Schema] = {"type": "string"}
NUMBER: Final[Schema] = {"type": "number"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
FLAG: Final[Schema] = {"type": "boolean"}
RATIO: Final[Schema] = {"type": "number", "minimum": 0, "maximum": 1}
TIME: Final[Schema] = {"type": "string", "format": "date-time"}
ANY: Final[Schema] = {}


def maybe(schema: Schema) -> Schema:
    """Return *schema*, or null."""
    return {**schema, "type": [schema["type"], "null"]}


def words(*values: str) -> Schema:
    """Return one of some texts."""
    return {"type": "string", "enum": list(values)}


def ref(name: str) -> Schema:
    """Return a reference to a named schema."""
    return {"$ref": f"#/components/schemas/{name}"}


def rows(schema: Schema) -> Schema:
    """Return a list."""
    return {"type": "array", "items": schema}


def record(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    """Return an object with these fields; others may be added."""
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}}


def listing(name: str) -> Schema:
    """Return a list document of a named row."""
    return record({"items": rows(ref(name)), "next": maybe(TEXT)})


def either(schema: Schema) -> Schema:
    """Return *schema*, which may be a reference, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


_CHANGE: Final = record({"path": TEXT, "old": ANY, "new": ANY})
_FAULT: Final = record({"path": TEXT, "problem": TEXT, "hint": TEXT}, {"line": COUNT, "column": COUNT})

_SIGNAL: Final = record(
    {
        "detector": TEXT, "scope": TEXT, "value": NUMBER, "baseline": NUMBER, "sample": COUNT, "score": NUMBER,
        "threshold": NUMBER, "since_time": TIME,
    },
    {"unit": words("ratio", "s", "per_s")},
)  # fmt: skip

_ISOLATION: Final = record(
    {
        "id": TEXT, "scope": TEXT, "action": TEXT, "share": maybe(RATIO),
        "state": words("provisional", "confirmed", "recovering", "released", "expired", "superseded"),
        "owner": TEXT, "reason": TEXT, "start_time": TIME, "end_time": maybe(TIME), "durable": FLAG,
    },
    {
        "refused": COUNT, "would_have_succeeded_ratio": maybe(RATIO), "ended_by": maybe(TEXT), "ended_why": maybe(TEXT),
        "share_floor": maybe(RATIO),
    },
)  # fmt: skip

_IMPACT: Final = record(
    {
        "failed": COUNT, "refused": COUNT, "seconds": COUNT,
        "scopes": rows(
            record(
                {
                    "scope": TEXT, "failed": COUNT, "refused": COUNT, "reasons": ANY, "isolated": COUNT,
                    "would_have_succeeded_ratio": maybe(RATIO), "drilled": COUNT, "seconds": COUNT,
                }
            )
        ),
        "others": record({"requests": COUNT, "failed": COUNT}),
    }
)  # fmt: skip

_INCIDENT: Final = record(
    {
        "id": COUNT, "title": TEXT,
        "state": words("open", "acknowledged", "mitigated", "resolved", "closed"),
        "verdict": words("pending", "confirmed", "false_positive", "benign"),
        "resolution": {"enum": ["recovered", "released", "superseded", "expired", None]},
        "severity": words("warning", "severe"),
        "scope": TEXT, "opened_time": TIME, "acknowledged_time": maybe(TIME), "resolved_time": maybe(TIME),
        "flaps": COUNT, "drill": FLAG, "observed": FLAG, "signals": rows(ref("Signal")), "isolations": rows(ref("Isolation")),
        "suspect": either(record({"version": COUNT, "diff": ANY})),
        "next_step": either(record({"do": TEXT, "at_time": TIME})),
        "runbook": maybe(TEXT), "commands": rows(TEXT),
        "checklist": rows(record({"step": COUNT, "text": TEXT, "done_by": maybe(TEXT), "done_time": maybe(TIME)})),
        "silenced": either(ref("Silence")),
    },
    {"impact": _IMPACT},
)  # fmt: skip

_OVERRIDE: Final = record(
    {
        "scope": TEXT, "action": TEXT, "author": TEXT, "reason": TEXT, "start_time": TIME, "end_time": TIME,
        "durable": FLAG,
    }
)  # fmt: skip

_TRAFFIC: Final = {
    "requests_per_s": NUMBER, "failure_ratio": maybe(RATIO), "refused_ratio": maybe(RATIO), "in_flight": COUNT,
    "amplification": NUMBER,
}  # fmt: skip
_LATENCY: Final = {"latency_p50_s": maybe(NUMBER), "latency_p99_s": maybe(NUMBER)}

_CONFIG_STATE: Final = words("active", "confirming", "superseded", "failed", "reverted")
_ACTIVE: Final = {
    "version": COUNT, "hash": TEXT, "state": _CONFIG_STATE, "diverged_from_file": FLAG,
    "confirm_by_time": maybe(TIME),
}  # fmt: skip

_STATUS: Final = record(
    {
        "version": TEXT,
        "mode": words("off", "observe", "enforce"),
        "time": TIME,
        "uptime_s": NUMBER,
        "config": record(_ACTIVE),
        "workers": rows(record({"worker": COUNT, "up": FLAG})),
        "store": record({"ok": FLAG, "problem": TEXT}),
        "traffic": record(_TRAFFIC, _LATENCY),
        "incidents": rows(ref("Incident")),
        "isolations": rows(ref("Isolation")),
        "overrides": rows(ref("Override")),
        "silences": rows(ref("Silence")),
        "drill": either(ref("Drill")),
        "breakers_open": rows(TEXT),
        "receivers": rows(ref("Receiver")),
        "demoted": rows(record({"control": TEXT, "why": TEXT})),
        "proposals_open": COUNT,
        "would_have": COUNT,
        "token": record({"name": TEXT, "role": words("viewer", "operator", "admin")}),
    }
)

_VERSION: Final = record(
    {
        "version": COUNT, "hash": TEXT, "author": TEXT, "reason": TEXT,
        "source": words("file", "api", "rollback", "proposal"), "time": TIME, "state": _CONFIG_STATE,
    },
    {"text": TEXT},
)  # fmt: skip

_APPLIED: Final = record(
    {
        "version": COUNT, "hash": TEXT, "state": words("active", "confirming"), "dry_run": FLAG,
        "changes": rows(ref("Change")), "confirm_by_time": maybe(TIME),
        "workers": record({"acknowledged": COUNT, "total": COUNT}),
    }
)  # fmt: skip

_SHADOW: Final = record(
    {"since_time": TIME, "would_have_raised": COUNT, "seconds": COUNT}, {"confirmed": COUNT, "false_positive": COUNT}
)

_RECORD: Final = record(
    {
        "confirmed": COUNT, "false_positive": COUNT, "benign": COUNT, "precision": maybe(RATIO), "delay_s": maybe(NUMBER),
        "pages": COUNT, "falsely_refused_s": NUMBER,
        "last": rows(record({"incident": COUNT, "verdict": TEXT, "time": TIME})),
        "demoted": either(_SHADOW),
        "silent": rows(record({"scope": TEXT, "up_to": NUMBER, "incident": COUNT, "quieted": COUNT})),
    }
)  # fmt: skip

_BOTH: Final = record({"from": COUNT, "to": COUNT})
_REPLAY: Final = record(
    {
        "since_time": TIME, "until_time": TIME, "requests": COUNT, "refused": _BOTH,
        "routes": rows(record({"route": TEXT, "requests": COUNT, "refused": _BOTH})),
        "incidents": rows(
            record(
                {
                    "change": words("same", "earlier", "later", "hidden", "added"), "sooner_s": maybe(NUMBER),
                    "scope": TEXT, "title": TEXT, "from_time": maybe(TIME), "to_time": maybe(TIME),
                }
            )
        ),
    }
)  # fmt: skip

_SILENCE: Final = record(
    {"id": COUNT, "scope": TEXT, "author": TEXT, "reason": TEXT, "start_time": TIME, "end_time": TIME}
)
_TOKEN_FIELDS: Final = {
    "name": TEXT, "role": words("viewer", "operator", "admin"), "source": words("file", "first", "issued"),
    "author": maybe(TEXT), "issued_time": maybe(TIME), "revoked_time": maybe(TIME), "revoked_by": maybe(TEXT),
}  # fmt: skip
_TOKEN: Final = record(_TOKEN_FIELDS)

COMPONENTS: Final[Mapping[str, Schema]] = {
    "Problem": record(
        {"type": TEXT, "title": TEXT, "status": {"type": "integer"}, "detail": TEXT},
        {"hint": TEXT, "errors": rows(ref("Fault"))},
    ),
    "Fault": _FAULT,
    "Signal": _SIGNAL,
    "Isolation": _ISOLATION,
    "Isolations": listing("Isolation"),
    "Incident": _INCIDENT,
    "Incidents": listing("Incident"),
    "Evidence": {"type": "object"},
    "Override": _OVERRIDE,
    "Overrides": listing("Override"),
    "Receiver": record(
        {"name": TEXT, "type": TEXT, "sent": COUNT, "failed": COUNT, "lost": COUNT, "waiting": COUNT},
        {"problem": TEXT, "last_time": maybe(TIME), "held_until_time": maybe(TIME)},
    ),
    "ReceiverTest": record({"name": TEXT, "type": TEXT, "ok": FLAG, "attempts": COUNT, "problem": TEXT}),
    "Status": _STATUS,
    "Control": record(
        {"name": TEXT, "route": TEXT, "state": words("off", "observe", "enforce", "cannot run"), "why": TEXT},
        {"id": TEXT, "offset": NUMBER, "record": _RECORD},
    ),
    "Records": record(
        {
            "items": rows(
                record(
                    {"control": TEXT, "route": TEXT, "detector": TEXT, "offset": NUMBER, "record": _RECORD},
                    {"shadow": either(_SHADOW)},
                )
            )
        }
    ),
    "Controls": listing("Control"),
    "Route": record(
        {"name": TEXT, **_TRAFFIC, "breaker": words("closed", "open", "half_open")},
        {**_LATENCY, "concurrency_limit": maybe(COUNT)},
    ),
    "Routes": listing("Route"),
    "Series": record({"route": TEXT, "step_s": NUMBER, "items": rows(record({"time": TIME}))}),
    "Decision": record({"id": TEXT, "reason": TEXT, "time": TIME}, {"incident": maybe(TEXT)}),
    "Config": record({**_ACTIVE, "text": TEXT}),
    "Applied": _APPLIED,
    "Change": _CHANGE,
    "Diff": record({"from": maybe(COUNT), "to": maybe(COUNT), "changes": rows(ref("Change"))}, {"replay": _REPLAY}),
    "Version": _VERSION,
    "Versions": listing("Version"),
    "Drill": record(
        {
            "id": COUNT,
            "kind": words("errors", "latency", "hang", "surge", "bad-config"),
            "route": TEXT,
            "share": RATIO,
            "author": TEXT,
            "state": words("injecting", "recovering", "passed", "failed", "aborted"),
            "why": maybe(TEXT),
            "start_time": TIME,
            "end_time": TIME,
            "incident": maybe(COUNT),
            "stages": rows(record({"stage": TEXT, "target_s": NUMBER, "took_s": maybe(NUMBER), "met": FLAG})),
        }
    ),
    "Drills": listing("Drill"),
    "Silence": _SILENCE,
    "Silences": listing("Silence"),
    "Token": _TOKEN,
    "Tokens": listing("Token"),
    "IssuedToken": record({"token": TEXT, **_TOKEN_FIELDS}),
    "Proposal": record(
        {
            "id": COUNT,
            "incident": COUNT,
            "kind": words("threshold", "limit", "breaker", "timeout", "validation"),
            "state": words("open", "applied", "dismissed", "superseded"),
            "why": TEXT,
            "made_time": TIME,
            "changes": rows(ref("Change")),
            "effect": record({"over_s": NUMBER, "words": TEXT}, {"sooner_s": maybe(NUMBER)}),
        },
        {
            "version": maybe(COUNT),
            "decided_by": maybe(TEXT),
            "decided_time": maybe(TIME),
            "applied": ref("Applied"),
            "rule": either(record({"path": TEXT, "at_least": NUMBER, "words": TEXT})),
        },
    ),
    "Proposals": listing("Proposal"),
    "Event": record(
        {"sequence": COUNT, "time": TIME, "kind": TEXT, "author": TEXT},
        {"incident": maybe(COUNT), "scope": maybe(TEXT), "body": {"type": "object"}},
    ),
    "Events": listing("Event"),
    "Verified": record({"ok": FLAG, "rows": COUNT}, {"first_bad": maybe(COUNT), "problem": maybe(TEXT)}),
    "Breaker": {"type": "object"},
    "OpenApi": record({"openapi": TEXT, "info": {"type": "object"}, "paths": {"type": "object"}}),
}
