"""THE table of the admin API: one row per call. Routing, roles, checks and the OpenAPI document all come from it."""

from __future__ import annotations

from typing import Final

from sidecar.admin import (
    audit,
    breakers,
    config,
    controls,
    decisions,
    drills,
    incidents,
    openapi,
    overrides,
    proposals,
    receivers,
    silences,
    status,
    stream,
    tap,
    tape,
    tokens,
)
from sidecar.admin import parameters as p
from sidecar.admin.auth import Role
from sidecar.admin.calls import EVENTS, HTML, LINES, MARKDOWN, YAML, Call
from sidecar.admin.models import (
    ApplyBody,
    DismissBody,
    DrillBody,
    Empty,
    NoteBody,
    OverrideBody,
    ReleaseBody,
    RollbackBody,
    SilenceBody,
    TickBody,
    TokenBody,
    WhyBody,
)

_VIEWER, _OPERATOR, _ADMIN = Role.VIEWER, Role.OPERATOR, Role.ADMIN
_PAGE: Final = (p.LIMIT, p.CURSOR)

# fmt: off
CALLS: Final[tuple[Call, ...]] = (
    Call("GET", "/status", _VIEWER, status.status, "What is going on, in one document.", "Status"),
    Call("GET", "/controls", _VIEWER, status.controls, "Every control and whether it runs.", "Controls"),
    Call("POST", "/controls/{name}/promote", _OPERATOR, controls.promote, "Listen to a demoted detector again.",
         "Records", (p.CONTROL_NAME,), WhyBody, errors=(404, 409)),
    Call("POST", "/controls/{name}/demote", _OPERATOR, controls.demote, "Let a detector only observe.",
         "Records", (p.CONTROL_NAME,), WhyBody, errors=(404, 409)),
    Call("POST", "/controls/{name}/missed", _OPERATOR, controls.missed, "Say that a detector missed something.",
         "Records", (p.CONTROL_NAME,), WhyBody, errors=(404, 409)),
    Call("GET", "/routes", _VIEWER, status.routes, "The routes and their traffic now.", "Routes"),
    Call("GET", "/routes/{name}/series", _VIEWER, status.series, "One route's recent seconds.", "Series",
         (p.ROUTE, p.WINDOW, p.STEP), errors=(404,)),
    Call("GET", "/isolations", _VIEWER, status.isolations, "The isolations in force.", "Isolations"),
    Call("GET", "/decisions/{id}", _VIEWER, decisions.one, "Why a request was refused.", "Decision",
         (p.DECISION,), errors=(404,)),
    Call("GET", "/tape", _VIEWER, tape.serve, "Recorded traffic, one route and second a line.", "",
         (p.PAST, p.FOR), media=LINES, errors=(503,)),

    Call("GET", "/incidents", _VIEWER, incidents.listed, "Incidents, the newest first.", "Incidents",
         (p.STATE, *_PAGE), errors=(503,)),
    Call("GET", "/incidents/{id}", _VIEWER, incidents.one, "One incident.", "Incident",
         (p.INCIDENT,), errors=(404, 503)),
    Call("GET", "/incidents/{id}/evidence", _VIEWER, incidents.evidence, "What was frozen at detection.", "Evidence",
         (p.INCIDENT,), errors=(404, 503)),
    Call("GET", "/incidents/{id}/postmortem", _VIEWER, incidents.postmortem, "The post-mortem draft.", "",
         (p.INCIDENT,), media=MARKDOWN, errors=(404, 503)),
    Call("GET", "/incidents/{id}/postmortem.html", _VIEWER, incidents.report, "The same as a page with plots.", "",
         (p.INCIDENT,), media=HTML, errors=(404, 503)),
    Call("POST", "/incidents/{id}/acknowledge", _OPERATOR, incidents.acknowledge, "Say that you look at it.",
         "Incident", (p.INCIDENT,), Empty, errors=(404, 409)),
    Call("POST", "/incidents/{id}/confirm", _OPERATOR, incidents.confirm, "It is real: keep or apply the isolation.",
         "Incident", (p.INCIDENT,), Empty, errors=(404, 409)),
    Call("POST", "/incidents/{id}/release", _OPERATOR, incidents.release, "End its isolations, with a verdict.",
         "Incident", (p.INCIDENT,), ReleaseBody, errors=(404, 409)),
    Call("POST", "/incidents/{id}/notes", _OPERATOR, incidents.note, "Add a note to its timeline.",
         "Incident", (p.INCIDENT,), NoteBody, errors=(404, 409)),
    Call("POST", "/incidents/{id}/checklist", _OPERATOR, incidents.tick, "Tick a step of its runbook, or take it back.",
         "Incident", (p.INCIDENT,), TickBody, errors=(404, 409)),
    Call("POST", "/incidents/{id}/close", _OPERATOR, incidents.close, "Close it, once it is resolved.",
         "Incident", (p.INCIDENT,), Empty, errors=(404, 409)),

    Call("GET", "/overrides", _VIEWER, overrides.listed, "The overrides in force.", "Overrides"),
    Call("GET", "/overrides/{scope}", _VIEWER, overrides.one, "The override on one scope.", "Override",
         (p.SCOPE,), errors=(404,)),
    Call("PUT", "/overrides/{scope}", _OPERATOR, overrides.put, "Set an override; it replaces an older one there.",
         "Override", (p.SCOPE,), OverrideBody, errors=(404, 409)),
    Call("DELETE", "/overrides/{scope}", _OPERATOR, overrides.delete, "End an override now.", "Override",
         (p.SCOPE,), errors=(404, 409)),

    Call("GET", "/config", _VIEWER, config.show, "The active configuration, secrets hidden.", "Config", etag=True),
    Call("PUT", "/config", _ADMIN, config.apply, "Apply a configuration live, on every worker.", "Applied",
         (p.IF_MATCH, p.DRY_RUN, p.CONFIRM_WITHIN, p.REASON), YAML, errors=(409, 412, 428, 503), etag=True),
    Call("POST", "/config/confirm", _ADMIN, config.confirm, "Keep the version that waits for confirmation.",
         "Version", (), Empty, errors=(409, 503)),
    Call("GET", "/config/versions", _VIEWER, config.versions, "Every version, the newest first.", "Versions",
         _PAGE, errors=(503,)),
    Call("GET", "/config/versions/{version}", _VIEWER, config.version, "One version.", "Version",
         (p.VERSION,), errors=(404, 503)),
    Call("GET", "/config/diff", _VIEWER, config.diff, "What changed between two versions.", "Diff",
         (p.FROM, p.TO, p.REPLAY), errors=(404, 503)),
    Call("POST", "/config/rollback", _OPERATOR, config.rollback, "Run an earlier version's text again.", "Applied",
         (), RollbackBody, errors=(404, 409, 503), etag=True),

    Call("GET", "/proposals", _VIEWER, proposals.listed, "What incidents taught, the newest first.", "Proposals",
         (p.PROPOSAL_STATE,)),
    Call("GET", "/proposals/{id}", _VIEWER, proposals.one, "One proposal.", "Proposal", (p.PROPOSAL,), errors=(404,)),
    Call("POST", "/proposals/{id}/apply", _ADMIN, proposals.apply, "Make a config version of it, to be confirmed.",
         "Proposal", (p.PROPOSAL,), ApplyBody, errors=(404, 409, 412, 503)),
    Call("POST", "/proposals/{id}/dismiss", _OPERATOR, proposals.dismiss, "Say no to it, or lift its rule.",
         "Proposal", (p.PROPOSAL,), DismissBody, errors=(404, 409)),

    Call("GET", "/silences", _VIEWER, silences.listed, "The silences in force.", "Silences"),
    Call("POST", "/silences", _OPERATOR, silences.add, "Tell nobody about a scope for a time.", "Silence",
         (), SilenceBody, errors=(404, 409)),
    Call("DELETE", "/silences/{id}", _OPERATOR, silences.end, "End a silence now.", "Silence",
         (p.SILENCE,), errors=(404, 409)),

    Call("GET", "/drills", _VIEWER, drills.listed, "The drills, the newest first.", "Drills"),
    Call("POST", "/drills", _OPERATOR, drills.start, "Inject a fault on purpose, and grade the loop.", "Drill",
         (), DrillBody, errors=(404, 409)),
    Call("POST", "/drills/stop", _OPERATOR, drills.stop, "End the fault of the drill that runs.", "Drill",
         (), Empty, errors=(404, 409)),

    Call("GET", "/tokens", _VIEWER, tokens.listed, "Every token, without its hash.", "Tokens"),
    Call("POST", "/tokens", _ADMIN, tokens.new, "Issue a token; its secret is shown once.", "IssuedToken",
         (), TokenBody, errors=(409, 503), secret=True),
    Call("DELETE", "/tokens/{name}", _ADMIN, tokens.revoke, "Refuse a token from now on.", "Token",
         (p.TOKEN_NAME,), errors=(404, 409)),

    Call("GET", "/audit", _VIEWER, audit.listed, "Every change, the newest first.", "Events", _PAGE, errors=(503,)),
    Call("GET", "/audit/verify", _VIEWER, audit.verify, "Check the hash chain.", "Verified", errors=(503,)),
    Call("GET", "/events", _VIEWER, stream.events, "Events as they happen.", "", (p.LAST_EVENT,), media=EVENTS,
         errors=(503,)),

    Call("GET", "/tap", _VIEWER, tap.serve, "Requests as they end, filtered and redacted.", "",
         (p.TAP_ROUTE, p.TAP_STATUS, p.TAP_CLIENT, p.TAP_SLOWER, p.TAP_REFUSED), media=EVENTS, errors=(404, 503)),

    Call("POST", "/breakers/{name}/reset", _OPERATOR, breakers.reset, "Close a route's breaker by hand.", "Breaker",
         (p.ROUTE,), Empty, errors=(404, 409)),
    Call("POST", "/notify/{name}/test", _OPERATOR, receivers.test, "Send a test message to a receiver.",
         "ReceiverTest", (p.RECEIVER,), Empty, errors=(404,)),
    Call("GET", "/openapi.json", _VIEWER, openapi.serve, "This document.", "OpenApi"),
)
# fmt: on
