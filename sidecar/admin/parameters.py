"""
The parameters of calls: each is declared once, and both enforced and documented from that declaration.

A parameter's JSON Schema is what OpenAPI shows; `_check` enforces the same schema, so the two cannot drift apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar

from aiohttp import web

from sidecar.admin.errors import Problem, fault
from sidecar.config.units import DURATIONS, parse_duration, shown
from sidecar.facts import Scope, ScopeError

T = TypeVar("T")

# What people and programs may write in one line: no control character, no line separator.
CONTROL: Final = r"\u0000-\u001f\u007f-\u009f\u2028\u2029"
LINE: Final = rf"^[^{CONTROL}]*$"
SENTENCE: Final = rf"^[^{CONTROL}]*[^\s{CONTROL}][^{CONTROL}]*$"
DURATION: Final = r"^([1-9][0-9]{0,5}[sm]|[1-9][0-9]{0,3}h|[1-9][0-9]{0,2}d)$"
NAME: Final = r"^[A-Za-z0-9_.@-]{1,64}$"  # as in `admin.tokens`
_INTEGER: Final = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)


def matches(pattern: str, text: str) -> bool:
    """Tell whether *text* is what a documented pattern means; unlike a search, no line feed slips in at the end."""
    return re.fullmatch(pattern, text) is not None


class Where(StrEnum):
    """In which part of the request a parameter stands."""

    PATH = "path"
    QUERY = "query"
    HEADER = "header"


@dataclass(frozen=True, slots=True, eq=False)
class Parameter(Generic[T]):
    """
    One parameter.

    Attributes:
        schema: Its JSON Schema: `integer` with bounds, or `string` with `enum` or `pattern`.
        read: Makes the value of a text that satisfies the schema; may still raise ValueError with what to type.
        default: The value when it is absent and not required.
        missing: The status when it is absent and required.
    """

    name: str
    where: Where
    schema: Mapping[str, Any]
    read: Callable[[str], T]
    default: T
    about: str
    required: bool = False
    missing: int = 400
    hint: str = ""

    def of(self, request: web.Request) -> T:
        """
        Return this parameter's value in *request*.

        Raises:
            ValueError: when it is malformed or given twice; the message says what to type.
            Problem: when it is required and absent.
        """
        texts = self._texts(request)
        if not texts:
            if self.required:
                raise Problem(self.missing, f"{self.name} is missing", self.hint)
            return self.default
        if len(texts) > 1:
            raise ValueError(f"given {len(texts)} times")
        _check(self.schema, texts[0])
        return self.read(texts[0])

    def _texts(self, request: web.Request) -> list[str]:
        match self.where:
            case Where.PATH:
                return [request.match_info[self.name]]
            case Where.QUERY:
                return request.query.getall(self.name, [])
            case Where.HEADER:
                return request.headers.getall(self.name, [])

    def document(self) -> dict[str, Any]:
        """Return its OpenAPI parameter object."""
        # A header whose absence has its own status is documented as optional: OpenAPI knows no other way to say that.
        return {
            "name": self.name,
            "in": self.where.value,
            "required": self.required,
            "description": self.about,
            "schema": dict(self.schema),
        }


def _check(schema: Mapping[str, Any], text: str) -> None:
    if "enum" in schema and text not in schema["enum"]:
        raise ValueError(f"{shown(text)} is none of {', '.join(schema['enum'])}")
    if "pattern" in schema and not matches(schema["pattern"], text):
        raise ValueError(f"{shown(text)} is malformed")
    if len(text) > schema.get("maxLength", len(text)):
        raise ValueError(f"longer than {schema['maxLength']} characters")
    if schema["type"] == "integer":
        if not _INTEGER.fullmatch(text):
            fault_of = (
                "is too large" if text.isdecimal() and text.isascii() and text[0] != "0" else "is not a whole number"
            )
            raise ValueError(f"{shown(text)} {fault_of}")
        if not schema["minimum"] <= int(text) <= schema["maximum"]:
            raise ValueError(f"{text} is not from {schema['minimum']} to {schema['maximum']}")


def read_all(declared: Iterable[Parameter[Any]], request: web.Request) -> dict[Parameter[Any], Any]:
    """
    Return the values of all declared parameters.

    Raises:
        Problem: 400 with every malformed or unknown parameter at once.
    """
    values: dict[Parameter[Any], Any] = {}
    faults: list[dict[str, Any]] = []
    declared = tuple(declared)
    for parameter in declared:
        try:
            values[parameter] = parameter.of(request)
        except ValueError as error:
            faults.append(fault(f"{parameter.where}.{parameter.name}", str(error), parameter.hint))
    known = sorted(p.name for p in declared if p.where is Where.QUERY)
    unknown = sorted(set(request.query) - set(known))
    hint = f"known are {', '.join(known)}" if known else "this call takes none"
    faults += [fault(f"query.{name}", "unknown parameter", hint) for name in unknown]
    if faults:
        raise Problem(
            400, "; ".join(f"{row['path']}: {row['problem']}" for row in faults), faults[0]["hint"], errors=faults
        )
    return values


def _scope(text: str) -> Scope:
    try:
        return Scope.parse(text)
    except ScopeError as error:
        raise ValueError(str(error)) from error


def _integer(minimum: int, maximum: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": minimum, "maximum": maximum}


def _maybe_int(text: str) -> int | None:
    return int(text)


def _maybe_text(text: str) -> str | None:
    return text


def _maybe_duration(text: str) -> float | None:
    return parse_duration(text)


def _statuses(text: str) -> tuple[int, int] | None:
    first = int(text[0]) * 100
    return (first, first + 99) if text.endswith("xx") else (int(text), int(text))


def _etag(text: str) -> int:
    return int(text.strip('"v'))


MAX_ID: Final = 10**15
STATES: Final = ("open", "acknowledged", "mitigated", "resolved", "closed")
_P, _Q, _H = Where.PATH, Where.QUERY, Where.HEADER

INCIDENT: Final[Parameter[int]] = Parameter(
    "id", _P, _integer(1, MAX_ID), int, 0, "The incident's number.", required=True,
    hint="incidents have numbers; GET /api/v1/incidents lists them",
)  # fmt: skip
PROPOSAL_STATES: Final = ("open", "applied", "dismissed", "superseded")
PROPOSAL: Final[Parameter[int]] = Parameter(
    "id", _P, _integer(1, MAX_ID), int, 0, "The proposal's number.", required=True,
    hint="GET /api/v1/proposals lists them",
)  # fmt: skip
PROPOSAL_STATE: Final[Parameter[str | None]] = Parameter(
    "state", _Q, {"type": "string", "enum": list(PROPOSAL_STATES)}, _maybe_text, None, "Only proposals in this state.",
    hint=f"use {', '.join(PROPOSAL_STATES)}",
)  # fmt: skip
VERSION: Final[Parameter[int]] = Parameter(
    "version", _P, _integer(1, MAX_ID), int, 0, "The config version's number.", required=True,
    hint="GET /api/v1/config/versions lists them",
)  # fmt: skip
DECISION: Final[Parameter[str]] = Parameter(
    "id", _P, {"type": "string", "pattern": r"^[A-Za-z0-9_-]{1,64}$"}, str, "", "The `decision` of a refused answer.",
    required=True, hint="take the `decision` of a refused answer's body",
)  # fmt: skip
ROUTE: Final[Parameter[str]] = Parameter(
    "name", _P, {"type": "string", "pattern": r"^[a-z0-9_-]{1,64}$"}, str, "", "The route's name.", required=True,
    hint="GET /api/v1/routes lists them",
)  # fmt: skip
CONTROL_NAME: Final[Parameter[str]] = Parameter(
    "name", _P, {"type": "string", "pattern": r"^[a-z]+[a-z._]{0,40}(:[a-z0-9_-]{1,64})?$"}, str, "",
    "A control, as `detect.errors:checkout`; without a route, on all of them.", required=True,
    hint="GET /api/v1/controls lists them; name one as detect.errors:ROUTE",
)  # fmt: skip
RECEIVER: Final[Parameter[str]] = Parameter(
    "name", _P, {"type": "string", "pattern": r"^[A-Za-z0-9_.-]{1,64}$"}, str, "", "The receiver's name.",
    required=True, hint="GET /api/v1/status lists the receivers",
)  # fmt: skip
TOKEN_NAME: Final[Parameter[str]] = Parameter(
    "name", _P, {"type": "string", "pattern": NAME}, str, "", "The token's name.", required=True,
    hint="GET /api/v1/tokens lists them",
)  # fmt: skip
SCOPE_PATTERN: Final = (
    r"^(service|route:[a-z0-9_-]{1,64}|client:[a-z0-9_-]{1,64}:[!-~]{1,512}"
    r"|endpoint:[A-Za-z0-9.\[\]:-]{1,255}:[0-9]{1,5})$"
)
SILENCE: Final[Parameter[int]] = Parameter(
    "id", _P, _integer(1, MAX_ID), int, 0, "The silence's number.", required=True, hint="GET /api/v1/silences lists them",
)  # fmt: skip
SCOPE: Final[Parameter[Scope]] = Parameter(
    "scope", _P,
    {
        "type": "string",
        "maxLength": 1024,
        "pattern": SCOPE_PATTERN,
    },
    _scope, Scope.service(), "`service`, `route:NAME`, `client:ROUTE:KEY` or `endpoint:HOST:PORT`, percent-encoded.",
    required=True, hint="use service, route:NAME, client:ROUTE:KEY or endpoint:HOST:PORT, percent-encoded",
)  # fmt: skip

STATE: Final[Parameter[str | None]] = Parameter(
    "state", _Q, {"type": "string", "enum": list(STATES)}, _maybe_text, None, "Only incidents in this state.",
    hint=f"use {', '.join(STATES)}",
)  # fmt: skip
LIMIT: Final[Parameter[int]] = Parameter(
    "limit", _Q, _integer(1, 1000), int, 100, "How many rows at most.", hint="use 1 to 1000"
)
CURSOR: Final[Parameter[str | None]] = Parameter(
    "cursor", _Q, {"type": "string", "pattern": r"^[0-9]{1,15}$"}, _maybe_text, None,
    "The `next` of the page before.", hint="take the `next` of the page before, unchanged",
)  # fmt: skip
WINDOW: Final[Parameter[float]] = Parameter(
    "window", _Q, {"type": "string", "pattern": DURATION}, parse_duration, 300.0, "How far back, as 5m.",
    hint=f"write {DURATIONS}",
)  # fmt: skip
STEP: Final[Parameter[float]] = Parameter(
    "step", _Q, {"type": "string", "pattern": DURATION}, parse_duration, 1.0, "Seconds that one point covers, as 1s.",
    hint="write 1s, 10s or 1m",
)  # fmt: skip
PAST: Final[Parameter[float]] = Parameter(
    "past", _Q, {"type": "string", "pattern": DURATION}, parse_duration, 0.0,
    "Begin with what is remembered of this time, as 1h; two hours are kept.", hint=f"write {DURATIONS}",
)  # fmt: skip
FOR: Final[Parameter[float]] = Parameter(
    "for", _Q, {"type": "string", "pattern": DURATION}, parse_duration, 0.0,
    "Go on with what happens from now on for this time, as 10m.", hint=f"write {DURATIONS}",
)  # fmt: skip
TAP_ROUTE: Final[Parameter[str]] = Parameter(
    "route", _Q, {"type": "string", "pattern": r"^[a-z0-9_-]{1,64}$"}, str, "", "Only requests of this route.",
    hint="GET /api/v1/routes lists them",
)  # fmt: skip
TAP_CLIENT: Final[Parameter[str]] = Parameter(
    "client", _Q, {"type": "string", "pattern": r"^[!-~]{1,512}$"}, str, "", "Only requests of this client's key.",
    hint="take the KEY of a scope client:ROUTE:KEY",
)  # fmt: skip
TAP_STATUS: Final[Parameter[tuple[int, int] | None]] = Parameter(
    "status", _Q, {"type": "string", "pattern": r"^[1-5](xx|[0-9]{2})$"}, _statuses, None,
    "Only requests that were answered so, as 503 or 5xx.", hint="write 503, or 5xx for all of them",
)  # fmt: skip
TAP_SLOWER: Final[Parameter[float]] = Parameter(
    "slower", _Q, {"type": "string", "pattern": r"^[1-9][0-9]{0,5}(ms|s|m)$"}, parse_duration, 0.0,
    "Only requests that took at least this long, as 200ms.", hint="write 200ms or 2s",
)  # fmt: skip
TAP_REFUSED: Final[Parameter[bool]] = Parameter(
    "refused", _Q, {"type": "string", "enum": ["0", "1"]}, lambda text: text == "1", False,
    "With 1 only requests that a guard refused.", hint="use refused=1",
)  # fmt: skip
FROM: Final[Parameter[int | None]] = Parameter(
    "from", _Q, _integer(1, MAX_ID), _maybe_int, None, "The older version; by default the one before `to`.",
    hint="GET /api/v1/config/versions lists them",
)  # fmt: skip
TO: Final[Parameter[int | None]] = Parameter(
    "to", _Q, _integer(1, MAX_ID), _maybe_int, None, "The newer version; by default the active one.",
    hint="GET /api/v1/config/versions lists them",
)  # fmt: skip
REPLAY: Final[Parameter[float | None]] = Parameter(
    "replay", _Q, {"type": "string", "pattern": DURATION}, _maybe_duration, None,
    "Also replay the stored history of this time under both versions, as 24h.", hint=f"write {DURATIONS}",
)  # fmt: skip
DRY_RUN: Final[Parameter[bool]] = Parameter(
    "dry_run", _Q, {"type": "string", "enum": ["0", "1"]}, lambda text: text == "1", False,
    "With 1 only say what would change.", hint="use dry_run=1",
)  # fmt: skip
CONFIRM_WITHIN: Final[Parameter[float | None]] = Parameter(
    "confirm_within", _Q, {"type": "string", "pattern": DURATION}, _maybe_duration, None,
    "Revert by itself unless confirmed in this time, as 2m.", hint="write 30s, 2m or 1h",
)  # fmt: skip
REASON: Final[Parameter[str]] = Parameter(
    "reason", _Q, {"type": "string", "maxLength": 500, "pattern": LINE}, str, "", "Why, for the history and the audit.",
    hint="one line of at most 500 characters",
)  # fmt: skip
IF_MATCH: Final[Parameter[int]] = Parameter(
    "If-Match", _H, {"type": "string", "pattern": r'^"v[1-9][0-9]{0,14}"$'}, _etag, 0,
    "The ETag of the version that this change was made from.", required=True, missing=428,
    hint='read the ETag of GET /api/v1/config and send it as If-Match: "v7"',
)  # fmt: skip
IDEMPOTENCY_KEY: Final[Parameter[str | None]] = Parameter(
    "Idempotency-Key", _H, {"type": "string", "maxLength": 255, "pattern": r"^[!-~]+$"}, _maybe_text, None,
    "A new name for this call: repeated with it, the call does nothing and gets the first answer. Kept for a day.",
    hint="send 1 to 255 visible ASCII characters, such as a UUID",
)  # fmt: skip
LAST_EVENT: Final[Parameter[int | None]] = Parameter(
    "Last-Event-ID", _H, _integer(0, MAX_ID), _maybe_int, None, "Go on after this event.",
    hint="send the `id` of the last event that you got",
)  # fmt: skip
