"""What the bodies of calls may hold: strict, closed and bounded; and how JSON is read before they see it."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from sidecar.admin import actions
from sidecar.admin.errors import Problem, fault
from sidecar.admin.parameters import DURATION, LINE, MAX_ID, NAME, SCOPE_PATTERN, SENTENCE, matches
from sidecar.config.units import shown

# Like a sentence, but line feeds and tabs may stand in it.
_TEXT: Final = (
    r"^[^\u0000-\u0008\u000b-\u001f\u007f-\u009f]*"
    r"[^\s\u0000-\u001f\u007f-\u009f]"
    r"[^\u0000-\u0008\u000b-\u001f\u007f-\u009f]*$"
)
_ROUTE: Final = r"^[a-z0-9_-]{1,64}$"
_HEADER: Final = r"^[\t -~]{1,1024}$"


def _shaped(pattern: str, wanted: str, what: str = "") -> AfterValidator:
    """Require *pattern*; *what* names the thing where its text may be shown: `'60' is no duration: write …`."""

    def check(text: str) -> str:
        if not matches(pattern, text):
            raise ValueError(f"{shown(text)} is no {what}: {wanted}" if what else wanted)
        return text

    return AfterValidator(check)


def _known_action(text: str) -> str:
    actions.parse_action(text)
    return text


Reason = Annotated[
    str,
    Field(max_length=500, json_schema_extra={"pattern": SENTENCE}),
    _shaped(SENTENCE, "write one line that says why"),
]
Line = Annotated[
    str, Field(max_length=500, json_schema_extra={"pattern": LINE}), _shaped(LINE, "write one line, or nothing")
]
Words = Annotated[
    str,
    Field(max_length=4000, json_schema_extra={"pattern": _TEXT}),
    _shaped(_TEXT, "write some text, without control characters"),
]
Ttl = Annotated[
    str, Field(json_schema_extra={"pattern": DURATION}), _shaped(DURATION, "write 30s, 10m, 2h or 1d", "duration")
]
ActionText = Annotated[
    str, Field(max_length=64, json_schema_extra={"pattern": actions.PATTERN}), AfterValidator(_known_action)
]
ScopeText = Annotated[
    str,
    Field(max_length=1024, json_schema_extra={"pattern": SCOPE_PATTERN}),
    _shaped(SCOPE_PATTERN, "write service, route:NAME, client:ROUTE:KEY or endpoint:HOST:PORT", "scope"),
]
HeaderValue = Annotated[
    str, Field(json_schema_extra={"pattern": _HEADER}), _shaped(_HEADER, "write the header's value as it is sent")
]


class Body(BaseModel):
    """A JSON object without surprises."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class Empty(Body):
    """Nothing to say: `{}`, or no body at all."""


class ReleaseBody(Body):
    """What a person found."""

    verdict: Literal["false_positive", "benign", "none"]
    reason: Line | None = None


class NoteBody(Body):
    """A line for the timeline."""

    text: Words


class OverrideBody(Body):
    """What to do with a scope, for how long, and why."""

    action: ActionText
    ttl: Ttl
    reason: Reason
    header_value: HeaderValue | None = None


class ApplyBody(Body):
    """How long the new version waits for its confirmation; by default two minutes."""

    confirm_within: Ttl | None = None


class WhyBody(Body):
    """Why."""

    reason: Line | None = None


class DismissBody(Body):
    """Why not."""

    reason: Line | None = None


class DrillBody(Body):
    """Which fault, where, for how long, and for which part of the route's requests."""

    kind: Literal["errors", "latency", "hang", "surge", "bad-config"]
    route: Annotated[
        str, Field(json_schema_extra={"pattern": _ROUTE}), _shaped(_ROUTE, "take one of GET /api/v1/routes", "route")
    ]
    duration: Ttl = "60s"
    share: Annotated[float, Field(gt=0, le=1)] = 1.0


class SilenceBody(Body):
    """About what people are not told, for how long, and why."""

    scope: ScopeText
    ttl: Ttl
    reason: Reason


class TickBody(Body):
    """Which step of the runbook, counted from 1; `done: false` takes it back."""

    step: Annotated[int, Field(ge=1, le=100)]
    done: bool = True


class TokenBody(Body):
    """Whose token it is, and what it may do."""

    name: Annotated[
        str,
        Field(json_schema_extra={"pattern": NAME}),
        _shaped(NAME, "write 1 to 64 letters, digits, . _ @ or -", "name"),
    ]
    role: Literal["viewer", "operator", "admin"]


class RollbackBody(Body):
    """Which version's text to run again; by default the one before the active one."""

    to: Annotated[int, Field(ge=1, le=MAX_ID)] | None = None
    reason: Reason


B = TypeVar("B", bound=Body)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Problem(400, f"the body has the field {twice!r} twice", "send each field once")
    return found


def _no_constant(name: str) -> float:
    raise Problem(400, f"the body holds {name}, which is not JSON", "send a number")


def read_json(data: bytes) -> Any:
    """
    Return the JSON value of a body.

    Raises:
        Problem: 400 with the line and column of the first fault.
    """
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode()  # refuses half of a surrogate pair, which no UTF-8 can hold
    except json.JSONDecodeError as error:
        row = fault("", error.msg, "send one JSON object", line=error.lineno, column=error.colno)
        detail = f"the body is no JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        raise Problem(400, detail, "send one JSON object", errors=[row]) from error
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Problem(400, f"the body is no JSON: {reason}", "send one JSON object in UTF-8") from error
    return value


def parse(model: type[B], data: bytes) -> B:
    """
    Return the body that *data* holds; no bytes at all stand for `{}`.

    Raises:
        Problem: 400 when it is no JSON, 422 with every fault at once when it does not fit *model*.
    """
    value = read_json(data) if data else {}
    if not isinstance(value, dict):
        raise Problem(422, "the body is not a JSON object", "send { … }")
    try:
        return model.model_validate(value)
    except ValidationError as invalid:
        known = ", ".join(model.model_fields) or "none"
        errors = [_row(error, known) for error in invalid.errors(include_url=False, include_input=False)]
        detail = "; ".join(f"{row['path']}: {row['problem']}" for row in errors)
        hint = errors[0]["hint"] if len(errors) == 1 else "correct the fields that `errors` names"
        raise Problem(422, detail[:1000], hint, errors=errors) from invalid


_HINTS: Final = {
    "missing": "add it",
    "string_type": "send a text in quotes",
    "int_type": "send a whole number",
    "literal_error": "send one of the words",
}


def _row(error: Any, known: str) -> dict[str, Any]:
    path = ".".join(str(part) for part in error["loc"])
    kind = error["type"]
    problem = str(error["msg"]).removeprefix("Value error, ")
    if kind == "extra_forbidden":
        return fault(path, "unknown field", f"known fields: {known}")
    return fault(path, problem, _HINTS.get(kind, ""))
