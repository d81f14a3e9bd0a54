"""A request as a line: complete, parseable, ASCII, bounded, whatever the client sent."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.config.policies import LogFormat
from sidecar.facts import RequestFacts
from sidecar.telemetry.access import FORMS, MAX_LINE_BYTES, common_line, document, json_line

SERVED = RequestFacts(
    unix=1_772_334_727.25, route="checkout", client="203.0.113.7", method="POST", path="/api/orders/12", minor=1,
    template="/api/orders/{id}", status=201, reason="", flag="", guard_s=0.0000312, upstream_s=0.0123456, total_s=0.0131,
    bytes_in=120, bytes_out=683, trace="0af7651916cd43dd8448eb211c80319c", endpoint="127.0.0.1:9000", retries=1,
)  # fmt: skip
REFUSED = RequestFacts(
    unix=1_772_334_727.999, route="checkout", client="h-0123456789abcdef", method="GET", path='/a"b\\c', minor=0,
    template="/a", status=429, reason="rate_limited", flag="RL", guard_s=0.00002, upstream_s=None, total_s=0.00002,
    bytes_in=0, bytes_out=0, decision="5f2a-1c",
)  # fmt: skip
NO_REQUEST = RequestFacts(
    1_772_334_727.0, "_none", "203.0.113.7", "", "", 1, "", 400, "bad_request", "DPE", 0.0, None, 0.0, 0, 301, "5f2a-1d"
)
COMMON = re.compile(
    rb'(\S+) - - \[(\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000)\] "((?:[^"\\]|\\.)*)" (\d{3}) (\d+|-)\n'
)


def test_a_served_request_tells_everything() -> None:
    """
    Times, sizes, route, endpoint, trace and repetitions of a success; nothing that it has not.
    """
    assert json.loads(json_line(SERVED)) == {
        "event": "request", "time": "2026-03-01T03:12:07.250Z", "client": "203.0.113.7", "method": "POST", "path": "/api/orders/12",
        "path_template": "/api/orders/{id}", "route": "checkout", "status": 201, "guard_s": 0.000031, "upstream_s": 0.012346,
        "duration_s": 0.0131, "bytes_in": 120, "bytes_out": 683, "trace": "0af7651916cd43dd8448eb211c80319c",
        "endpoint": "127.0.0.1:9000", "retried": 1,
    }  # fmt: skip


def test_a_refusal_tells_its_reason_and_decision() -> None:
    """
    What `sidecar explain` needs is in the line.
    """
    row = json.loads(json_line(REFUSED))
    assert (row["reason"], row["flags"], row["decision"]) == ("rate_limited", "RL", "5f2a-1c")
    assert "upstream_s" not in row
    assert "endpoint" not in row


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        (SERVED, b'203.0.113.7 - - [01/Mar/2026:03:12:07 +0000] "POST /api/orders/12 HTTP/1.1" 201 683\n'),
        (REFUSED, b'h-0123456789abcdef - - [01/Mar/2026:03:12:07 +0000] "GET /a\\"b\\\\c HTTP/1.0" 429 -\n'),
        (NO_REQUEST, b'203.0.113.7 - - [01/Mar/2026:03:12:07 +0000] "-" 400 301\n'),
    ],
)
def test_the_common_format(facts: RequestFacts, line: bytes) -> None:
    """
    Client, time, request line, status and bytes, as NCSA's httpd wrote them.
    """
    assert common_line(facts) == line


TEXT = st.text(max_size=3000)
TOKEN = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=64)


@settings(max_examples=200, deadline=None)
@given(path=TEXT, client=TOKEN, seconds=st.floats(0, 1e6), size=st.integers(0, 1 << 62))
def test_any_request_makes_one_bounded_line(path: str, client: str, seconds: float, size: int) -> None:
    """
    The JSON line says what `document` says; no line is longer than a pipe takes in one piece, or can forge another one.
    """
    facts = dataclasses.replace(SERVED, path=path, template=path[:64], client=client, total_s=seconds, bytes_out=size)
    plain = path[:1024].isascii()
    for line in (json_line(facts), common_line(facts)):
        assert line.endswith(b"\n")
        assert all(0x20 <= byte < 0x7F for byte in line[:-1])
        assert len(line) <= MAX_LINE_BYTES or not plain  # paths are ASCII: the framing sees to it
    assert json.loads(json_line(facts)) == {"event": "request", **document(facts)}
    assert COMMON.fullmatch(common_line(facts))


def test_every_format_of_the_config_has_its_form() -> None:
    """
    A word that the config takes writes lines, but `off`.
    """
    assert set(FORMS) == set(LogFormat) - {LogFormat.OFF}
