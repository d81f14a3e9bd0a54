"""
From a refusal to the bytes that the client gets: the table in `reasons.py`, written out.

Status line, problem+json (RFC 9457), Retry-After, RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers),
Proxy-Status (RFC 9209). No randomness: the jitter is a number that the caller derives from the decision.
"""

from __future__ import annotations

import json
import math
from http import HTTPStatus
from typing import Final

from sidecar.config.policies import Explain
from sidecar.reasons import TABLE, Party, Refusal, RetryAfter, Row

CONTINUE_100: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
SERVER_NAME: Final = "sidecar"
MIN_JITTER_S: Final = 1.0  # even a short wait is spread over at least this


def render(
    refusal: Refusal,
    *,
    decision: str,
    explain: str = Explain.REASON,
    close: bool = False,
    minor: int = 1,
    head_only: bool = False,
    rate_limit: bytes = b"",
    jitter_ratio: float = 0.0,
) -> bytes:
    """
    Write a complete response.

    Args:
        refusal: What is answered.
        decision: The id for `sidecar explain`.
        explain: How much the client learns: `full`, `reason` or `none`.
        close: The connection ends with this answer (also when the reason's row says so).
        minor: The client's HTTP/1.x.
        head_only: The request was HEAD: the body is announced but not sent.
        rate_limit: The field lines RateLimit-Policy and RateLimit, or nothing.
        jitter_ratio: 0..1, fixed for one decision, so that clients of one outage do not return together.

    Returns:
        Head and body, framed by Content-Length.
    """
    row = TABLE[refusal.reason]
    body = json.dumps(_problem(refusal, row, decision, explain), separators=(",", ":")).encode()
    lines = [
        f"HTTP/1.1 {row.status} {HTTPStatus(row.status).phrase}",
        "content-type: application/problem+json",
        f"content-length: {len(body)}",
        "cache-control: no-store",
    ]
    retry_after_s = _retry_after_s(refusal, row, jitter_ratio)
    if retry_after_s is not None:
        lines.append(f"retry-after: {retry_after_s}")
    lines.append(f"proxy-status: {_proxy_status(refusal, row, explain)}")
    if close or row.close:
        lines.append("connection: close")
    elif minor == 0:
        lines.append("connection: keep-alive")
    head = b"%b\r\n%b\r\n" % ("\r\n".join(lines).encode("ascii"), rate_limit)
    return head if head_only else head + body


def _problem(refusal: Refusal, row: Row, decision: str, explain: str) -> dict[str, str | int]:
    if explain == Explain.NONE:
        return {
            "type": "about:blank",
            "title": HTTPStatus(row.status).phrase,
            "status": row.status,
            "decision": decision,
        }
    why = _why(refusal) if explain == Explain.FULL else refusal.detail if row.party is Party.CLIENT else ""
    problem: dict[str, str | int] = {
        "type": row.problem,
        "title": row.title,
        "status": row.status,
        "detail": f"{row.advice} ({why})" if why else row.advice,
        "reason": refusal.reason.value,
        "decision": decision,
    }
    if refusal.incident is not None:
        problem["incident"] = refusal.incident
    return problem


def _why(refusal: Refusal) -> str:
    return ": ".join(part for part in (refusal.rule, refusal.detail) if part)


def _retry_after_s(refusal: Refusal, row: Row, jitter_ratio: float) -> int | None:
    """Whole seconds, rounded up; None when the row has no Retry-After."""
    match row.retry_after:
        case RetryAfter.NONE:
            return None
        case RetryAfter.ONE:
            return 1
        case RetryAfter.EXACT:
            return max(1, math.ceil(refusal.retry_after_s))
        case RetryAfter.JITTERED:
            spread = max(MIN_JITTER_S, refusal.retry_after_s / 2)
            return max(1, math.ceil(refusal.retry_after_s + jitter_ratio * spread))


def _proxy_status(refusal: Refusal, row: Row, explain: str) -> str:
    if explain == Explain.NONE:
        return SERVER_NAME
    text = f"{SERVER_NAME}; error={row.proxy_status}"
    details = _why(refusal) if explain == Explain.FULL else refusal.reason.value
    return f'{text}; details="{_quoted(details)}"' if details else text


def _quoted(text: str) -> str:
    """Make *text* fit for a quoted string of RFC 9651: visible ASCII, escaped."""
    plain = "".join(char if " " <= char <= "~" else "?" for char in text)
    return plain.replace("\\", "\\\\").replace('"', '\\"')
