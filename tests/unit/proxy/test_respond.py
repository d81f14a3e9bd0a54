"""Refusals on the wire: the table of reasons, written out."""

from __future__ import annotations

import json
from typing import cast

import h11
import pytest

from sidecar.config.policies import Explain
from sidecar.proxy.respond import CONTINUE_100, render
from sidecar.reasons import TABLE, Reason, Refusal, RetryAfter

ON_THE_WIRE = [reason for reason in Reason if reason is not Reason.CLIENT_DISCONNECTED]


def read(raw: bytes, method: str = "GET") -> tuple[h11.Response, bytes]:
    """Read an answer with an independent parser; nothing may be left over."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(raw)
    response = cast("h11.Response", client.next_event())
    body = b""
    while not isinstance(event := client.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Data), event
        body += bytes(event.data)
    assert client.trailing_data[0] == b""
    return response, body


def fields(response: h11.Response) -> dict[str, str]:
    """Return the fields as texts."""
    return {name.decode(): value.decode() for name, value in response.headers}


@pytest.mark.parametrize("reason", ON_THE_WIRE)
@pytest.mark.parametrize("explain", [Explain.FULL, Explain.REASON, Explain.NONE])
def test_every_row_is_a_well_formed_answer(reason: Reason, explain: str) -> None:
    """Status, length, close and Retry-After follow the table at every level of explanation."""
    row = TABLE[reason]
    refusal = Refusal(reason, 1.2, "rule", 'de"tail\\ é', "12")
    response, body = read(render(refusal, decision="d-1", explain=explain))
    problem = json.loads(body)
    assert response.status_code == problem["status"] == row.status
    assert fields(response)["content-type"] == "application/problem+json"
    assert ("connection" in fields(response)) is row.close
    assert ("retry-after" in fields(response)) is (row.retry_after is not RetryAfter.NONE)
    assert problem["decision"] == "d-1"
    assert ("reason" in problem) is (explain != Explain.NONE)


def test_what_each_level_of_explanation_tells() -> None:
    """`full` has rule and values, `reason` the reason and incident, `none` the status and the decision's id."""
    refusal = Refusal(Reason.RATE_LIMITED, 1.0, "limit.per_client", "10/s burst 20", "12")
    full = json.loads(read(render(refusal, decision="d", explain=Explain.FULL))[1])
    assert full["detail"].endswith("(limit.per_client: 10/s burst 20)")
    assert full["incident"] == "12"
    reason = json.loads(read(render(refusal, decision="d", explain=Explain.REASON))[1])
    assert reason["detail"] == TABLE[Reason.RATE_LIMITED].advice
    assert (reason["reason"], reason["incident"]) == ("rate_limited", "12")
    response, body = read(render(refusal, decision="d", explain=Explain.NONE))
    assert json.loads(body) == {"type": "about:blank", "title": "Too Many Requests", "status": 429, "decision": "d"}
    assert fields(response)["proxy-status"] == "sidecar"


def test_a_client_learns_what_is_wrong_with_its_message() -> None:
    """The detail of a malformed message is the client's own; it is told at the default level."""
    refusal = Refusal(Reason.BAD_REQUEST, 0.0, "framing", "Host is missing")
    assert "(Host is missing)" in json.loads(read(render(refusal, decision="d"))[1])["detail"]


def test_no_incident_no_member() -> None:
    """Absent, not null; a refusal without rule and detail has no empty brackets."""
    problem = json.loads(read(render(Refusal(Reason.DRAINING), decision="d", explain=Explain.FULL))[1])
    assert "incident" not in problem
    assert problem["detail"] == TABLE[Reason.DRAINING].advice


@pytest.mark.parametrize(
    ("reason", "wait_s", "jitter", "seconds"),
    [
        (Reason.RATE_LIMITED, 0.0, 0.9, "1"), (Reason.RATE_LIMITED, 1.0, 0.9, "1"), (Reason.RATE_LIMITED, 1.01, 0.9, "2"),
        (Reason.BREAKER_OPEN, 4.0, 0.0, "4"), (Reason.BREAKER_OPEN, 4.0, 1.0, "6"), (Reason.BREAKER_OPEN, 4.0, 0.3, "5"), (Reason.CONCURRENCY_LIMITED, 0.0, 0.5, "1"),
        (Reason.DRAINING, 30.0, 0.9, "1"),
    ],
)  # fmt: skip
def test_retry_after(reason: Reason, wait_s: float, jitter: float, seconds: str) -> None:
    """Exact and rounded up, or with up to half of it added, or one second."""
    response, _ = read(render(Refusal(reason, wait_s), decision="d", jitter_ratio=jitter))
    assert fields(response)["retry-after"] == seconds


def test_proxy_status() -> None:
    """RFC 9209: error and details; quoted for RFC 9651 whatever is in them."""
    refusal = Refusal(Reason.ISOLATED, 1.0, "isolation-12", 'a"b\\c é')
    response, _ = read(render(refusal, decision="d", explain=Explain.FULL))
    assert (
        fields(response)["proxy-status"]
        == 'sidecar; error=destination_unavailable; details="isolation-12: a\\"b\\\\c ?"'
    )
    response, _ = read(render(refusal, decision="d"))
    assert fields(response)["proxy-status"] == 'sidecar; error=destination_unavailable; details="isolated"'


def test_rate_limit_fields() -> None:
    """As handed in, both or none."""
    lines = b'ratelimit-policy: "client";q=20;w=2\r\nratelimit: "client";r=0;t=1\r\n'
    raw = render(Refusal(Reason.RATE_LIMITED, 1.0), decision="d", rate_limit=lines)
    assert fields(read(raw)[0])["ratelimit-policy"] == '"client";q=20;w=2'
    assert fields(read(raw)[0])["ratelimit"] == '"client";r=0;t=1'
    assert b"ratelimit" not in render(Refusal(Reason.RATE_LIMITED, 1.0), decision="d")


def test_connection() -> None:
    """Close when asked or by the row; keep-alive is said to 1.0 clients."""
    refusal = Refusal(Reason.RATE_LIMITED, 1.0)
    assert fields(read(render(refusal, decision="d", close=True))[0])["connection"] == "close"
    assert fields(read(render(refusal, decision="d", minor=0))[0])["connection"] == "keep-alive"
    assert fields(read(render(refusal, decision="d", minor=0, close=True))[0])["connection"] == "close"


def test_head_only() -> None:
    """HEAD gets the same head and no body."""
    refusal = Refusal(Reason.NO_ROUTE)
    head = render(refusal, decision="d", head_only=True)
    assert head.endswith(b"\r\n\r\n")
    assert render(refusal, decision="d").startswith(head)
    assert read(head, "HEAD")[1] == b""


def test_continue() -> None:
    """A complete interim response."""
    assert CONTINUE_100 == b"HTTP/1.1 100 Continue\r\n\r\n"
