"""
THE table: one row per way in which a request can end other than with the upstream's own answer.

From it come the response (`proxy/respond.py`), the metric label, the access log's field, the words on every screen
and the page `docs/reference/reasons.md`. Adding a row here is all it takes; a test fails while the page lags behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Reason(StrEnum):
    """Why a request ended without the upstream's own answer."""

    RATE_LIMITED = "rate_limited"
    CLIENT_THROTTLED = "client_throttled"
    ISOLATED = "isolated"
    BREAKER_OPEN = "breaker_open"
    CONCURRENCY_LIMITED = "concurrency_limited"
    OVERRIDDEN = "overridden"
    DRAINING = "draining"
    BAD_REQUEST = "bad_request"
    HEADER_TOO_LARGE = "header_too_large"
    URI_TOO_LONG = "uri_too_long"
    BODY_TOO_LARGE = "body_too_large"
    REQUEST_TIMEOUT = "request_timeout"
    LOOP_DETECTED = "loop_detected"
    NO_ROUTE = "no_route"
    UPSTREAM_CONNECT_FAILED = "upstream_connect_failed"
    UPSTREAM_TLS_FAILED = "upstream_tls_failed"
    UPSTREAM_RESET = "upstream_reset"
    UPSTREAM_PROTOCOL_ERROR = "upstream_protocol_error"
    UPSTREAM_CONNECT_TIMEOUT = "upstream_connect_timeout"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    CLIENT_DISCONNECTED = "client_disconnected"
    DRILL = "drill"
    INTERNAL_ERROR = "internal_error"


class RetryAfter(StrEnum):
    """How the answer's Retry-After is made."""

    NONE = "none"
    EXACT = "exact"  # the guard's own figure, rounded up
    JITTERED = "jittered"  # the guard's figure plus a jitter, so that clients do not return together
    ONE = "one"  # 1 s: a new process is about to answer


class Party(StrEnum):
    """Whose act ended the request; decides the outcome's class."""

    GUARD = "guard"  # an own refusal: cancelled, feeds only the `refusals` signal
    CLIENT = "client"  # the client's message or departure
    UPSTREAM = "upstream"  # feeds breaker and error detectors as failure
    SIDECAR = "sidecar"


@dataclass(frozen=True, slots=True)
class Row:
    """
    How one reason looks from outside.

    Attributes:
        status: The HTTP status that the client gets; 499 never goes on the wire.
        flag: Envoy's response flag of the same meaning, or our own where Envoy has none.
        proxy_status: The error type of RFC 9209, section 2.3.
        problem: The problem type: one registered with IANA by draft-ietf-httpapi-ratelimit-headers, our own
            (`/problems/REASON`), or `about:blank`.
        retry_after: How Retry-After is made.
        close: The connection ends with this answer.
        party: Whose act it was.
        title: What a person reads.
        advice: What the client's developer should do.
    """

    status: int
    flag: str
    proxy_status: str
    problem: str
    retry_after: RetryAfter
    close: bool
    party: Party
    title: str
    advice: str


_QUOTA: Final = "https://iana.org/assignments/http-problem-types#quota-exceeded"
_ABNORMAL: Final = "https://iana.org/assignments/http-problem-types#abnormal-usage-detected"
_REDUCED: Final = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
_BLANK: Final = "about:blank"


def _own(reason: Reason) -> str:
    return f"/problems/{reason.value}"


_R = Reason
_NONE, _EXACT, _JITTERED, _ONE = RetryAfter.NONE, RetryAfter.EXACT, RetryAfter.JITTERED, RetryAfter.ONE
_GUARD, _CLIENT, _UPSTREAM, _SIDECAR = Party.GUARD, Party.CLIENT, Party.UPSTREAM, Party.SIDECAR

# fmt: off
TABLE: Final[dict[Reason, Row]] = {
    _R.RATE_LIMITED: Row(429, "RL", "http_request_denied", _QUOTA, _EXACT, False, _GUARD,
        "Too many requests", "Slow down; retry after the given seconds."),
    _R.CLIENT_THROTTLED: Row(429, "RL", "http_request_denied", _ABNORMAL, _JITTERED, False, _GUARD,
        "This client is throttled", "Requests of this client fail unusually often; find out why before you retry."),
    _R.ISOLATED: Row(503, "UH", "destination_unavailable", _REDUCED, _JITTERED, False, _GUARD,
        "Temporarily isolated", "The service behind is failing and is being protected; retry later."),
    _R.BREAKER_OPEN: Row(503, "UH", "destination_unavailable", _REDUCED, _JITTERED, False, _GUARD,
        "Circuit breaker open", "The service behind is failing; retry after the given seconds."),
    _R.CONCURRENCY_LIMITED: Row(503, "UO", "connection_limit_reached", _REDUCED, _JITTERED, False, _GUARD,
        "Too many requests in flight", "The service is at its limit; retry shortly."),
    _R.OVERRIDDEN: Row(503, "UH", "http_request_denied", _own(_R.OVERRIDDEN), _JITTERED, False, _GUARD,
        "Blocked by an operator", "An operator blocked this traffic for a time; retry later."),
    _R.DRAINING: Row(503, "DR", "proxy_internal_response", _own(_R.DRAINING), _ONE, True, _GUARD,
        "Shutting down", "Retry at once on a new connection."),
    _R.BAD_REQUEST: Row(400, "DPE", "http_request_error", _BLANK, _NONE, True, _CLIENT,
        "Bad request", "The message is malformed or ambiguous; the detail says where."),
    _R.HEADER_TOO_LARGE: Row(431, "DPE", "http_request_error", _BLANK, _NONE, True, _CLIENT,
        "Request header fields too large", "Send fewer or shorter header fields."),
    _R.URI_TOO_LONG: Row(414, "DPE", "http_request_error", _BLANK, _NONE, True, _CLIENT,
        "URI too long", "Shorten the request target."),
    _R.BODY_TOO_LARGE: Row(413, "DPE", "http_request_error", _BLANK, _NONE, True, _CLIENT,
        "Content too large", "Send a smaller body."),
    _R.REQUEST_TIMEOUT: Row(408, "RTO", "http_request_error", _BLANK, _NONE, True, _CLIENT,
        "Request timeout", "Send the whole request faster."),
    _R.LOOP_DETECTED: Row(502, "LD", "proxy_loop_detected", _own(_R.LOOP_DETECTED), _NONE, False, _SIDECAR,
        "Loop detected", "The sidecar's upstream leads back to the sidecar; correct upstream.endpoints."),
    _R.NO_ROUTE: Row(404, "NR", "destination_not_found", _BLANK, _NONE, False, _CLIENT,
        "No route", "No route matches; add one, such as match: {path: /**}."),
    _R.UPSTREAM_CONNECT_FAILED: Row(502, "UF", "connection_refused", _own(_R.UPSTREAM_CONNECT_FAILED), _NONE,
        False, _UPSTREAM, "The service behind cannot be reached", "Retry later."),
    _R.UPSTREAM_TLS_FAILED: Row(502, "UF", "tls_protocol_error", _own(_R.UPSTREAM_TLS_FAILED), _NONE, False, _UPSTREAM,
        "The service behind cannot be reached safely", "Retry later."),
    _R.UPSTREAM_RESET: Row(502, "UC", "connection_terminated", _own(_R.UPSTREAM_RESET), _NONE, False, _UPSTREAM,
        "The service behind closed the connection", "Retry later."),
    _R.UPSTREAM_PROTOCOL_ERROR: Row(502, "UPE", "http_protocol_error", _own(_R.UPSTREAM_PROTOCOL_ERROR), _NONE,
        False, _UPSTREAM, "The service behind sent an invalid answer", "Retry later."),
    _R.UPSTREAM_CONNECT_TIMEOUT: Row(504, "UF", "connection_timeout", _own(_R.UPSTREAM_CONNECT_TIMEOUT), _NONE,
        False, _UPSTREAM, "The service behind did not accept a connection in time", "Retry later."),
    _R.UPSTREAM_TIMEOUT: Row(504, "UT", "http_response_timeout", _own(_R.UPSTREAM_TIMEOUT), _NONE, False, _UPSTREAM,
        "The service behind did not answer in time", "Retry later."),
    _R.CLIENT_DISCONNECTED: Row(499, "DC", "", _BLANK, _NONE, True, _CLIENT,
        "The client left", "Nothing was sent."),
    _R.DRILL: Row(503, "DR", "proxy_internal_response", _own(_R.DRILL), _ONE, False, _SIDECAR,
        "A drill", "The operators of this service practise a failure; it ends by itself."),
    _R.INTERNAL_ERROR: Row(500, "IE", "proxy_internal_error", _own(_R.INTERNAL_ERROR), _NONE, True, _SIDECAR,
        "Internal error", "This is a fault of the sidecar; report it with the decision id."),
}
# fmt: on


@dataclass(frozen=True, slots=True)
class Refusal:
    """
    A guard's or the parser's no, as a value.

    Attributes:
        reason: The row of the table.
        retry_after_s: Seconds until a retry makes sense; 0 when the row has no Retry-After.
        rule: What refused, as `limit.per_client`, `isolation-12`, `breaker`: the first word of an explanation.
        detail: The rule's values for `sidecar explain`, small and free of secrets, as `10/s burst 20`.
        incident: The incident behind it, when there is one.
    """

    reason: Reason
    retry_after_s: float = 0.0
    rule: str = ""
    detail: str = ""
    incident: str | None = None


@dataclass(frozen=True, slots=True)
class Would:
    """What a control that only observes would have answered: of another type than a no, so that nobody gives it as one."""

    refusal: Refusal
